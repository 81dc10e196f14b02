"""A photo, opened, scaled and normalised as the model at hand wants it."""
import numpy as np
import torch
from mmengine.structures import BaseDataElement
from PIL import Image, UnidentifiedImageError

from ..errors import UserError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet, RGB, of values from 0 to 1


def open_photo(path):
    """The image in a file, RGB; UserError if there is none."""
    try:
        return Image.open(path).convert('RGB')
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(f'no image: {error}') from None


def fit_photo(photo, model, size, shape=None):
    """The photo in (height, width) ``shape``, or in ``size`` where the model takes no other."""
    if takes_one_size(model):
        shape = size
    return photo.resize(shape[::-1], Image.Resampling.BICUBIC) if shape else photo


def takes_one_size(model):
    return getattr(model, 'default_cfg', {}).get('fixed_input_size', False)


def to_input(photo, model):
    """What ``model`` is fed for an RGB photo, (1, 3, H, W): normalised as it was in training.

    A model of the mm toolboxes does so by its own data_preprocessor, one of timm by its
    ``default_cfg``, a backbone alone as the paper's, by ImageNet's mean and deviation.
    """
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)
    if hasattr(model, 'data_preprocessor'):
        data = dict(inputs=[pixels.flip(0)], data_samples=[BaseDataElement()])  # BGR
        return model.data_preprocessor(data)['inputs']
    cfg = getattr(model, 'default_cfg', {})
    mean, std = (torch.tensor(cfg.get(key, default))[:, None, None]
                 for key, default in (('mean', MEAN), ('std', STD)))
    return ((pixels / 255 - mean) / std)[None]
