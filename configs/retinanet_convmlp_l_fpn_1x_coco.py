_base_ = ['retinanet_convmlp_s_fpn_1x_coco.py']

model = dict(
    backbone=dict(arch='l', init_cfg=dict(checkpoint='convmlp://convmlp_l_imagenet.pth')),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
