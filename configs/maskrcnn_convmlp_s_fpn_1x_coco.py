_base_ = [
    '_base_/maskrcnn_fpn.py',
    '_base_/coco_instance.py',
    '_base_/schedule_1x.py',
    '_base_/mmdet_runtime.py',
]

model = dict(
    backbone=dict(
        type='ConvMLP',
        arch='s',
        init_cfg=dict(type='Pretrained', checkpoint='convmlp://convmlp_s_imagenet.pth'),
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
