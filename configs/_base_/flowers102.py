_base_ = ['cifar10.py']

data_root = 'data/flowers102'
data_source = (
    'it with: python -c "from torchvision.datasets import Flowers102; '
    "Flowers102('data/flowers102', download=True)\""
)
mean, std = [111.00, 96.21, 73.24], [75.63, 62.60, 68.80]
data_preprocessor = dict(num_classes=102, mean=mean, std=std)

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
train_dataloader = dict(
    batch_size=96, dataset=dict(name='Flowers102', data_root=data_root, pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(name='Flowers102', data_root=data_root, split='val'))
test_dataloader = dict(dataset=dict(name='Flowers102', data_root=data_root, split='test'))
