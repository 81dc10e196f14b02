"""RetinaNet small enough to train an epoch of the coins, 16 iterations, in seconds."""

_base_ = ['../configs/retinanet_convmlp_s_fpn_coins.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='ConvMLP',
        arch=dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2),
    ),
    neck=dict(in_channels=[8, 8, 16, 24], out_channels=8),
    bbox_head=dict(in_channels=8, feat_channels=8, stacked_convs=1),
    test_cfg=dict(score_thr=0),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(64, 64), ratio_range=(0.75, 1.3), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
train_cfg = dict(max_epochs=3)
default_hooks = dict(logger=dict(interval=1))
