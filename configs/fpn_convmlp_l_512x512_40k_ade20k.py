_base_ = ['fpn_convmlp_s_512x512_40k_ade20k.py']

model = dict(
    backbone=dict(arch='l', init_cfg=dict(checkpoint='convmlp://convmlp_l_imagenet.pth')),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
