"""The norm layers that a config asks for."""

from torch import nn


def norm_layer(cfg: dict, channels: int) -> nn.Module:
    """The norm layer that ``norm_cfg`` asks for; types other than plain BN need mmcv."""
    if cfg == dict(type='BN'):
        return nn.BatchNorm2d(channels)
    from mmcv.cnn import build_norm_layer

    return build_norm_layer(cfg, channels)[1]
