"""Read checkpoint files without running what is in them.

A checkpoint is data: nothing here executes code from a file unless it is told to trust the file.
"""
import json
import pickle
import re
from argparse import Namespace
from contextlib import nullcontext

import numpy as np
import torch
from mmengine.logging import HistoryBuffer

from ..errors import CheckpointError


def _history_buffer_method(owner, name):
    """What a pickled HistoryBuffer may use ``getattr`` for: to name its own statistics."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError('GLOBAL getattr')
    return getattr(owner, name)


def _plain_types():
    """What ``weights_only`` has to allow besides for the training checkpoints of MMEngine and timm.

    All are containers of plain values. MMEngine's own list has ``getattr``, which opens the door.
    """
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64().__reduce__()[0]
    types = [HistoryBuffer, Namespace, np.ndarray, np.dtype,
             (_history_buffer_method, 'builtins.getattr')]
    for module in ('numpy._core.multiarray', 'numpy.core.multiarray'):  # NumPy 2 and 1
        types += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    return types + list({type(np.dtype(code)) for code in '?bhilqBHILQefdUS'})


def read(path, trust=False, map_location='cpu'):
    """The content of a ``.safetensors`` file, or of a file that ``torch.save`` wrote.

    Args:
        path (str | Path): The file.
        trust (bool): Run the code that the file holds, if any.
        map_location: As in :func:`torch.load`.

    Returns:
        dict: Tensors and plain values.

    Raises:
        CheckpointError: The file holds code, or it is no checkpoint.
    """
    if str(path).endswith('.safetensors'):
        return _read_safetensors(path)
    # Before torch 2.6 there is no way to allow anything: training checkpoints need trust there.
    allow = nullcontext()
    if not trust and torch.__version__ >= (2, 6):
        allow = torch.serialization.safe_globals(_plain_types())
    try:
        with allow:
            content = torch.load(path, map_location=map_location, weights_only=not trust)
    except Exception as error:  # a damaged file can raise anything
        if code := re.search(r'GLOBAL (\S+)', str(error)):
            raise CheckpointError(
                f'{path} holds code ({code[1]}), not only tensors and plain values; if you trust '
                'who made it, say so: --trust in the tools, trust=True in Python') from None
        reason = str(error).split('WeightsUnpickler error:')[-1].strip().split('\n')[0]
        raise CheckpointError(f'{path} is damaged or no checkpoint: '
                              f'{reason or type(error).__name__}') from None
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds a {type(content).__name__}, expected a dict')
    return content


def safetensors_package(path):
    try:
        import safetensors.torch
    except ImportError:
        raise CheckpointError(f'{path} needs safetensors: pip install safetensors') from None
    return safetensors


def _read_safetensors(path):
    safe_open = safetensors_package(path).safe_open
    try:
        with safe_open(path, 'pt') as file:
            meta = json.loads((file.metadata() or {}).get('meta', '{}'))
            weights = {name: file.get_tensor(name) for name in file.keys()}
            return dict(meta=plain_meta(dict(meta=meta)), state_dict=weights)
    except Exception as error:
        raise CheckpointError(f'{path} is damaged or no safetensors file: {error}') from None


def plain_meta(checkpoint):
    """What a published file tells about itself: class names, ids and colours, progress, versions.

    Not the config and the environment, which tell of the machine.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    plain = {key: meta[key] for key in ('epoch', 'iter', 'mmengine_version') if key in meta}
    # MMDetection 2.x and MMSegmentation 0.x wrote CLASSES and PALETTE right into meta.
    dataset = {key.lower(): value for key, value in (meta.get('dataset_meta') or meta).items()}
    if dataset.get('classes') is not None:
        plain['dataset_meta'] = dict(classes=tuple(map(str, dataset['classes'])))
        if isinstance(dataset.get('palette'), (list, tuple, np.ndarray)):
            # Tuples, since the visualizers take no lists for colours.
            plain['dataset_meta']['palette'] = [tuple(map(int, c)) for c in dataset['palette']]
        if isinstance(dataset.get('category_ids'), (list, tuple)):  # of our own training
            plain['dataset_meta']['category_ids'] = list(map(int, dataset['category_ids']))
    return plain
