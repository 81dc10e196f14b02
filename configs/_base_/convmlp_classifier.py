"""The published classifier with the mixing of images and labels of the paper's recipe."""

model = dict(
    type='ConvMLPClassifier',
    backbone=dict(type='ConvMLP', out_indices=(3,)),
    head=dict(
        type='ConvMLPClsHead',
        in_channels=512,
        loss=dict(type='LabelSmoothLoss', label_smooth_val=0.1),
    ),
    # One of the two for every batch, each as likely.
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]),
)
