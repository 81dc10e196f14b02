_base_ = ['cifar10.py']

data_root = 'data/cifar100'
data_source = (
    'it with: python -c "from torchvision.datasets import CIFAR100; '
    "CIFAR100('data/cifar100', download=True)\""
)
mean, std = [129.31, 124.11, 112.40], [68.21, 65.41, 70.41]
data_preprocessor = dict(num_classes=100, mean=mean, std=std)

train_pipeline = [
    _base_.crops,
    _base_.flip,
    dict(
        _base_.augment,
        hparams=dict(pad_val=[round(value) for value in mean[::-1]], interpolation='bicubic'),
    ),
    dict(_base_.erasing, fill_color=mean[::-1], fill_std=std[::-1]),
    dict(type='PackInputs'),
]
train_dataloader = dict(dataset=dict(name='CIFAR100', data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(name='CIFAR100', data_root=data_root))
test_dataloader = val_dataloader
