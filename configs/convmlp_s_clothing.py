"""Four kinds of clothing from 96 photos, from scratch, in minutes on a CPU."""

_base_ = ['_base_/convmlp_classifier.py', '_base_/imagefolder.py', '_base_/mmpretrain_runtime.py']

model = dict(backbone=dict(arch='s', drop_path_rate=0.0), head=dict(num_classes=4), train_cfg=None)
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-4, weight_decay=0.05),
    paramwise_cfg=dict(bias_decay_mult=0.0, flat_decay_mult=0.0),
    clip_grad=dict(max_norm=5),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=True, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(interval=6), checkpoint=dict(interval=10, max_keep_ckpts=1))
randomness = dict(seed=0)
