"""Rebuilds the weights and inputs behind golden/convmlp.npz from NumPy's frozen RandomState."""

import zlib
from ast import literal_eval
from pathlib import Path

import numpy as np
import torch

OUTPUTS = np.load(Path(__file__).parent / 'golden/convmlp.npz', allow_pickle=True)
INPUT_SIZES = ('64x96', '33x47')


def random_state(name):
    return np.random.RandomState(zlib.crc32(f'public-{name}'.encode()))


def shapes(size):
    """``{name: shape}`` of the published model, classifier included."""
    return {
        str(name): literal_eval(str(shape))
        for name, shape in zip(OUTPUTS[f'{size}/keys'], OUTPUTS[f'{size}/shapes'], strict=True)
    }


def weights(size):
    """``{name: tensor}`` for every name of :func:`shapes` but the integer counters."""
    state_dict = {}
    for name, shape in shapes(size).items():
        if name.endswith('num_batches_tracked'):
            continue
        values = random_state(name).standard_normal(shape).astype(np.float32)
        if name.endswith('running_var'):
            values = 0.5 + np.abs(values)
        elif len(shape) == 1:
            values = float(name.endswith('weight')) + 0.1 * values
        else:
            values = values / np.sqrt(np.prod(shape[1:]))
        state_dict[name] = torch.from_numpy(values.astype(np.float32))
    return state_dict


def image(input_size):
    """Images (2, 3, H, W) for ``'HxW'``."""
    height, width = map(int, input_size.split('x'))
    values = random_state(f'image{height}x{width}').standard_normal((2, 3, height, width))
    return torch.from_numpy(values.astype(np.float32))


def sample(level, size, input_size, index):
    """The 256 values of a level that the reference keeps."""
    picked = random_state(f'idx{size}/{input_size}{index}').randint(0, level.numel(), 256)
    return level.detach().flatten().numpy()[picked]


def relative_error(values, reference):
    values, reference = np.asarray(values), np.asarray(reference)
    return float(np.abs(values - reference).max() / np.abs(reference).max())
