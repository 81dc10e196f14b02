_base_ = ['convmlp_s_cifar10.py']

model = dict(backbone=dict(arch='m', init_cfg=dict(checkpoint='convmlp://convmlp_m_imagenet.pth')))
