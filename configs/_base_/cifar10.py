dataset_type = 'TorchvisionDataset'
data_root = 'data/cifar10'
data_source = (
    'it with: python -c "from torchvision.datasets import CIFAR10; '
    "CIFAR10('data/cifar10', download=True)\""
)
mean, std = [125.31, 122.95, 113.87], [62.99, 62.09, 66.70]
data_preprocessor = dict(num_classes=10, mean=mean, std=std, to_rgb=True)

crop = dict(type='RandomResizedCrop', scale=224, crop_ratio_range=(0.8, 1.0), backend='pillow')
crops = dict(
    type='RandomChoice',
    transforms=[[dict(interpolation='bilinear', **crop)], [dict(interpolation='bicubic', **crop)]],
)
flip = dict(type='RandomFlip', prob=0.5, direction='horizontal')
augment = dict(
    type='RandAugment',
    policies='timm_increasing',
    num_policies=2,
    total_level=10,
    magnitude_level=9,
    magnitude_std=0.5,
)
erasing = dict(
    type='RandomErasing', erase_prob=0.25, mode='rand', min_area_ratio=0.02, max_area_ratio=1 / 3
)
train_pipeline = [
    crops,
    flip,
    dict(
        augment,
        hparams=dict(pad_val=[round(value) for value in mean[::-1]], interpolation='bicubic'),
    ),
    dict(erasing, fill_color=mean[::-1], fill_std=std[::-1]),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='ResizeEdge', scale=224, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        name='CIFAR10',
        data_root=data_root,
        split='train',
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type, name='CIFAR10', data_root=data_root, split='test', pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
