_base_ = [
    '_base_/convmlp_classifier.py',
    '_base_/imagenet.py',
    '_base_/schedule_imagenet.py',
    '_base_/mmpretrain_runtime.py',
]

model = dict(backbone=dict(arch='s'), head=dict(num_classes=1000))
