"""Read and write checkpoint files without running what is in them.

A checkpoint is data: nothing here executes code from a file unless it is told to trust the file.
"""
import json
import os
import pickle
import re
from argparse import Namespace
from contextlib import nullcontext
from pathlib import Path

import torch
from mmengine.logging import HistoryBuffer


class CheckpointError(RuntimeError):
    """A checkpoint cannot be had, is not safe, or does not fit; the message is one line."""


def _history_buffer_method(owner, name):
    """What a pickled HistoryBuffer may use ``getattr`` for: to name its own statistics."""
    if owner is not HistoryBuffer or name not in ('min', 'max', 'current', 'mean'):
        raise pickle.UnpicklingError('GLOBAL getattr')
    return getattr(owner, name)


def _plain_types():
    """What ``weights_only`` has to allow besides for the training checkpoints of MMEngine and timm.

    All are containers of plain values. MMEngine's own list has ``getattr``, which opens the door.
    """
    import numpy as np
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
        reason = str(error).split('WeightsUnpickler error: ')[-1].split('\n')[0]
        raise CheckpointError(f'{path} is damaged or no checkpoint: {reason}') from None
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds a {type(content).__name__}, expected a dict')
    return content


def _read_safetensors(path):
    try:
        from safetensors import safe_open
        with safe_open(path, 'pt') as file:
            meta = json.loads((file.metadata() or {}).get('meta', '{}'))
            return dict(meta=meta, state_dict={name: file.get_tensor(name) for name in file.keys()})
    except ImportError:
        raise CheckpointError(f'{path} needs safetensors: pip install safetensors') from None
    except Exception as error:
        raise CheckpointError(f'{path} is damaged or no safetensors file: {error}') from None


def write(path, state_dict, meta):
    """Write weights and ``meta``, plain values, to a new ``.pth`` or ``.safetensors`` file.

    Raises:
        CheckpointError: ``path`` exists or ends otherwise.
    """
    path = Path(path)
    if path.suffix not in ('.pth', '.safetensors'):
        raise CheckpointError(f'{path}: expected a name that ends in .pth or .safetensors')
    if path.exists():
        raise CheckpointError(f'{path} exists: not overwritten')
    part = path.with_name(path.name + '.part')
    state_dict = {name: tensor.detach().cpu().clone() for name, tensor in state_dict.items()}
    try:
        if path.suffix == '.safetensors':
            from safetensors.torch import save_file
            save_file(state_dict, part, dict(format='pt', meta=json.dumps(meta)))
        else:
            torch.save(dict(meta=meta, state_dict=state_dict), part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
