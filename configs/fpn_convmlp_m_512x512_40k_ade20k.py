_base_ = ['fpn_convmlp_s_512x512_40k_ade20k.py']

model = dict(backbone=dict(arch='m', init_cfg=dict(checkpoint='convmlp://convmlp_m_imagenet.pth')))
