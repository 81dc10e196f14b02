"""Layer-wise learning-rate decay for any model of the mm toolboxes that has a ConvMLP in it."""

import re
from typing import Any

from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from .convmlp import ConvMLP

LAYER = re.compile(r'tokenizer|conv_stages\.conv_blocks\.\d+|stages\.\d+\.blocks\.\d+')


def backbone_layers(backbone: ConvMLP) -> dict[str, int]:
    """Number the layers of a ConvMLP from the image on: the tokenizer is 0, every block another.

    Args:
        backbone (ConvMLP): The network.

    Returns:
        dict[str, int]: The layer of every parameter; a downsampling belongs to the block before.
    """
    layers: dict[str, int] = {}
    seen: list[str] = []
    for name, _ in backbone.named_parameters():  # in the order in which an image passes them
        match = LAYER.match(name)
        if match and match.group() not in seen:
            seen.append(match.group())
        layers[name] = len(seen) - 1
    return layers


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class ConvMLPLayerDecay(DefaultOptimWrapperConstructor):
    """MMEngine's default constructor, with a learning rate that falls from the head to the image.

    The last block of the backbone learns at ``layer_decay_rate`` times the rate of the neck and the
    head, the block before at its square, and so on. All options of the default constructor work
    besides it::

        optim_wrapper = dict(
            constructor='ConvMLPLayerDecay',
            optimizer=dict(type='AdamW', lr=1e-4, weight_decay=0.05),
            paramwise_cfg=dict(layer_decay_rate=0.8, norm_decay_mult=0, bias_decay_mult=0))

    Raises:
        ValueError: If ``layer_decay_rate`` is not in (0, 1] or the model has no ConvMLP.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.rate = self.paramwise_cfg.get('layer_decay_rate')
        if not isinstance(self.rate, (int, float)) or not 0 < self.rate <= 1:
            raise ValueError(f'paramwise_cfg needs layer_decay_rate in (0, 1], got {self.rate!r}')

    def add_params(
        self, params: list[dict], module: nn.Module, prefix: str = '', **kwargs: Any
    ) -> None:
        super().add_params(params, module, prefix=prefix, **kwargs)
        if prefix:  # a part of the model; its groups are scaled once all parts have theirs
            return
        backbones = [part for part in module.modules() if isinstance(part, ConvMLP)]
        if not backbones:
            raise ValueError(f'ConvMLPLayerDecay finds no ConvMLP in this {type(module).__name__}')
        scales = {}
        for backbone in backbones:
            layers = backbone_layers(backbone)
            depth = max(layers.values()) + 1
            for name, param in backbone.named_parameters():
                scales[param] = self.rate ** (depth - layers[name])
        for group in params:
            group['lr'] = group.get('lr', self.base_lr) * scales.get(group['params'][0], 1)
