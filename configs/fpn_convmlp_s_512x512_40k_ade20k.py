_base_ = [
    '_base_/semantic_fpn.py',
    '_base_/ade20k.py',
    '_base_/schedule_40k.py',
    '_base_/mmseg_runtime.py',
]

model = dict(
    backbone=dict(
        type='ConvMLP',
        arch='s',
        init_cfg=dict(type='Pretrained', checkpoint='convmlp://convmlp_s_imagenet.pth'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
