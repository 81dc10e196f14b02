"""Images of four or more channels for MMDetection's models, whose preprocessing takes 1 or 3."""

from typing import Any

import torch
from mmengine.registry import MODELS


def fit_channels(cfg: Any) -> None:
    """Let a config's preprocessing take a mean and a deviation for each of its channels."""
    settings = (cfg.get('model') or {}).get('data_preprocessor') or {}
    kind, mean = settings.get('type'), settings.get('mean') or ()
    if cfg.get('default_scope') == 'mmdet' and len(mean) not in (0, 1, 3) and isinstance(kind, str):
        if kind != 'channel_preprocessor':
            settings.update(type='channel_preprocessor', kind=kind)


@MODELS.register_module()
def channel_preprocessor(kind: str, mean: list, std: list, **settings: Any) -> torch.nn.Module:
    """A preprocessor of type ``kind`` with a mean and a deviation for each channel.

    MMEngine refuses other numbers of them than 1 and 3, and computes with any.
    """
    if len(mean) != len(std):
        raise ValueError(f'data_preprocessor: {len(mean)} values of mean, {len(std)} of std')
    found = MODELS.build(dict(settings, type=kind, mean=[0.0], std=[1.0]))
    found.mean = found.mean.new_tensor(mean).view(-1, 1, 1)
    found.std = found.std.new_tensor(std).view(-1, 1, 1)
    return found
