_base_ = [
    '_base_/convmlp_classifier.py',
    '_base_/cifar100.py',
    '_base_/schedule_finetune.py',
    '_base_/mmpretrain_runtime.py',
]

model = dict(
    backbone=dict(
        arch='s', init_cfg=dict(type='Pretrained', checkpoint='convmlp://convmlp_s_imagenet.pth')
    ),
    head=dict(num_classes=100),
)
