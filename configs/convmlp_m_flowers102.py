_base_ = ['convmlp_s_flowers102.py']

model = dict(
    backbone=dict(arch='m', init_cfg=dict(checkpoint='convmlp://convmlp_m_imagenet.pth')))
optim_wrapper = dict(optimizer=dict(lr=3e-4))
