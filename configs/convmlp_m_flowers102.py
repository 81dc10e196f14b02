_base_ = ['convmlp_s_flowers102.py']

model = dict(backbone=dict(arch='m', init_cfg=dict(checkpoint='convmlp://convmlp_m_imagenet.pth')))
optim_wrapper = dict(optimizer=dict(lr=3e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 3e-4, by_epoch=True, begin=0, end=11),
    _base_.cosine,
]
