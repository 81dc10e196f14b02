_base_ = ['retinanet_convmlp_s_fpn_1x_coco.py']

model = dict(backbone=dict(arch='m', init_cfg=dict(checkpoint='convmlp://convmlp_m_imagenet.pth')))
