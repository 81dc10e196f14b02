_base_ = [
    '_base_/convmlp_classifier.py',
    '_base_/flowers102.py',
    '_base_/schedule_finetune.py',
    '_base_/mmpretrain_runtime.py',
]

model = dict(
    backbone=dict(
        arch='s', init_cfg=dict(type='Pretrained', checkpoint='convmlp://convmlp_s_imagenet.pth')
    ),
    head=dict(num_classes=102),
)
optim_wrapper = dict(optimizer=dict(lr=5e-4))
cosine = dict(type='CosineAnnealingLR', eta_min=1e-8, T_max=50, by_epoch=True, begin=0, end=51)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 5e-4, by_epoch=True, begin=0, end=11),
    cosine,
]
