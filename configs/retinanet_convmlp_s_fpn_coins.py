_base_ = [
    '_base_/retinanet_fpn.py',
    '_base_/coins_detection.py',
    '_base_/schedule_coins.py',
    '_base_/mmdet_runtime.py',
]

model = dict(
    backbone=dict(type='ConvMLP', arch='s'),
    neck=dict(in_channels=[64, 128, 256, 512]),
    bbox_head=dict(num_classes=1),
)
optim_wrapper = dict(optimizer=dict(lr=6e-4))
default_hooks = dict(logger=dict(interval=8), checkpoint=dict(max_keep_ckpts=1))
log_processor = dict(window_size=8)
