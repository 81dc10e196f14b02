_base_ = ['convmlp_s_flowers102.py']

model = dict(
    backbone=dict(arch='l', init_cfg=dict(checkpoint='convmlp://convmlp_l_imagenet.pth')),
    head=dict(in_channels=768),
)
train_dataloader = dict(batch_size=64)
optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 3e-4, by_epoch=True, begin=0, end=11),
    _base_.cosine,
]
