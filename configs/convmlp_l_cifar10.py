_base_ = ['convmlp_s_cifar10.py']

model = dict(
    backbone=dict(arch='l', init_cfg=dict(checkpoint='convmlp://convmlp_l_imagenet.pth')),
    head=dict(in_channels=768),
)
train_dataloader = dict(batch_size=64)
