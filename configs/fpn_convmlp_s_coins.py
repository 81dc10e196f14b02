_base_ = [
    '_base_/semantic_fpn.py',
    '_base_/coins_segmentation.py',
    '_base_/schedule_coins.py',
    '_base_/mmseg_runtime.py',
]

data_preprocessor = dict(size=(256, 256))
model = dict(
    data_preprocessor=data_preprocessor,
    backbone=dict(type='ConvMLP', arch='s'),
    neck=dict(in_channels=[64, 128, 256, 512]),
    decode_head=dict(num_classes=2),
)
default_hooks = dict(
    logger=dict(interval=8), checkpoint=dict(by_epoch=True, interval=1, max_keep_ckpts=1)
)
log_processor = dict(by_epoch=True, window_size=8)
