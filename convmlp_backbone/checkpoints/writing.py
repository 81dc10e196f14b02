"""Write weights to new files, whole or not at all."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import CheckpointError
from ..files import whole_file
from .reading import safetensors_package


def write(
    path: str | Path, state_dict: dict[str, Tensor], meta: dict[str, Any], name_hash: bool = False
) -> tuple[Path, str]:
    """Write weights and ``meta`` to a new ``.pth`` or ``.safetensors`` file.

    Args:
        path (str | Path): The file to write.
        state_dict (dict): Tensors by name.
        meta (dict): As of :func:`plain_meta`.
        name_hash (bool): Add the first 8 digits of the file's SHA-256 to its name.

    Returns:
        tuple[Path, str]: The file written and its SHA-256.

    Raises:
        CheckpointError: The file exists, its name ends otherwise, or it cannot be written; nothing
            has changed then.
    """
    path = Path(path)
    if path.suffix not in ('.pth', '.safetensors'):
        raise CheckpointError(f'{path}: expected a name that ends in .pth or .safetensors')
    if not state_dict:
        raise CheckpointError(f'{path}: there are no weights to write')
    # Copies, since several tensors may share, or fill only a part of, one memory.
    state_dict = {name: v.detach().cpu().clone().contiguous() for name, v in state_dict.items()}
    if path.suffix == '.safetensors':
        # One entry, since the order of several, and so the file's hash, is left to chance.
        save = safetensors_package(path).torch.save
        try:
            if '__metadata__' in state_dict:  # which would be written, and never read
                raise ValueError('a tensor cannot be called __metadata__ there')
            data = save(state_dict, dict(meta=json.dumps(meta)))
        except (KeyError, TypeError, ValueError) as error:  # names or types that it cannot have
            raise CheckpointError(f'{path} cannot be written: {error}') from None
    else:
        buffer = io.BytesIO()
        torch.save(dict(meta=meta, state_dict=state_dict), buffer)
        data = buffer.getvalue()
    sha256 = hashlib.sha256(data).hexdigest()
    if name_hash:
        path = path.with_name(f'{path.stem}-{sha256[:8]}{path.suffix}')
    try:
        if path.exists():
            raise CheckpointError(f'{path} exists: not overwritten')
        with whole_file(path) as part:
            part.write_bytes(data)
    except OSError as error:
        raise CheckpointError(f'{path} cannot be written: {error.strerror}') from None
    return path, sha256
