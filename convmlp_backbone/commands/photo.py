"""A photo, opened, scaled and normalised as the model at hand wants it."""

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from PIL import Image, UnidentifiedImageError
from torch import nn

from ..errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB, of values from 0 to 1


def open_photo(path: str) -> Image.Image:
    """The image in a file, RGB; UserError if there is none."""
    try:
        return Image.open(path).convert('RGB')
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f'no image: {error}') from None


def fit_photo(
    photo: Image.Image,
    model: nn.Module,
    size: tuple[int, int],
    shape: tuple[int, int] | None = None,
) -> Image.Image:
    """The photo in (height, width) ``shape``, or in ``size`` where the model takes no other."""
    if takes_one_size(model):
        shape = size
    return photo.resize(shape[::-1], Image.Resampling.BICUBIC) if shape else photo


def takes_one_size(model: nn.Module) -> bool:
    return getattr(model, 'default_cfg', {}).get('fixed_input_size', False)


def input_channels(model: nn.Module) -> int:
    """How many channels a model's images have."""
    return getattr(getattr(model, 'backbone', model), 'in_channels', 3)


def pixels_of(photo: Image.Image, channels: int) -> torch.Tensor:
    """The (C, H, W) pixels of an RGB photo as a network of ``channels`` reads such files.

    One: grey values; four: opaque; others repeat red, green and blue.
    """
    mode = {1: 'L', 4: 'RGBA'}.get(channels, 'RGB')
    pixels = torch.from_numpy(np.array(photo.convert(mode)))
    pixels = pixels.view(*photo.size[::-1], -1).permute(2, 0, 1)
    return pixels[torch.arange(channels) % len(pixels)]


def to_input(photo: Image.Image, model: nn.Module) -> torch.Tensor:
    """What ``model`` is fed for an RGB photo, (1, C, H, W): normalised as it was in training.

    A model of the mm toolboxes does so by its own data_preprocessor, one of timm by its
    ``default_cfg``, a backbone alone as the paper's, by ImageNet's mean and deviation.
    """
    pixels = pixels_of(photo, input_channels(model))
    if preprocessor := getattr(model, 'data_preprocessor', None):
        pixels = torch.cat([pixels[:3].flip(0), pixels[3:]])  # BGR
        data = dict(inputs=[pixels], data_samples=[BaseDataElement()])
        return preprocessor(data)['inputs']
    cfg = getattr(model, 'default_cfg', {})
    mean, std = (
        torch.tensor(cfg.get(key, default))[:, None, None]
        for key, default in (('mean', MEAN), ('std', STD))
    )
    return ((pixels / 255 - mean) / std)[None]
