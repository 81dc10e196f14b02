"""24 coins in a photograph, by tools/datasets/make_coins_dataset.py, as a map of two classes."""

dataset_type = 'BaseSegDataset'
data_root = 'data/coins/'
data_source = 'it with: python tools/datasets/make_coins_dataset.py data/coins'
metainfo = dict(classes=('background', 'coin'), palette=[[230, 159, 0], [0, 114, 178]])

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    # The largest coins are in the part held out.
    dict(type='RandomResize', scale=(256, 256), ratio_range=(0.75, 1.3), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(256, 256)),
    dict(
        type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
    ),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    # The crops of the training part are enlarged from 250 to 256 pixels, so this one is too.
    dict(type='Resize', scale_factor=256 / 250),
    dict(type='LoadAnnotations', reduce_zero_label=True),
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=ratio * 256 / 250) for ratio in (0.75, 1.0, 1.25)],
            [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations', reduce_zero_label=True)],
            [dict(type='PackSegInputs')],
        ],
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        metainfo=metainfo,
        reduce_zero_label=True,
        img_suffix='.png',
        data_root=data_root,
        data_prefix=dict(img_path='train', seg_map_path='masks/train'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        metainfo=metainfo,
        reduce_zero_label=True,
        img_suffix='.png',
        data_root=data_root,
        data_prefix=dict(img_path='val', seg_map_path='masks/val'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
