"""Read checkpoint files without running what is in them.

A checkpoint is data: nothing here executes code from a file unless it is told to trust the file.
"""

import io
import json
import mmap
import os
import zipfile
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from ..errors import CheckpointError
from .unpickling import Code, Plain, Refused, Unpickler, checked

# The number that begins files of torch.save before PyTorch 1.6, as pickled.
LEGACY = b'\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.'


def read(
    path: str | os.PathLike[str], trust: bool = False, map_location: Any = 'cpu'
) -> dict[Any, Any]:
    """The content of a ``.safetensors`` file, or of a file that ``torch.save`` wrote.

    Args:
        path (str | Path): The file; which of them it is, its content tells.
        trust (bool): Run the code that the file holds, if any.
        map_location (str | torch.device): Where the tensors are to be; the CPU for anything else.

    Returns:
        dict: Tensors and plain values, see :class:`Plain`.

    Raises:
        CheckpointError: The file holds code, or what no checkpoint needs, or is none.
    """
    device = map_location if isinstance(map_location, (str, torch.device)) else 'cpu'
    try:
        kind = container(path)
        if trust and kind != 'safetensors':
            content = torch.load(path, map_location=device, weights_only=False)
        else:
            reader = dict(zip=_read_zip, legacy=_read_legacy, safetensors=_read_safetensors)[kind]
            content = reader(path, device)
    except CheckpointError:
        raise
    except Code as code:
        name = str(code).removeprefix('builtins.')
        raise CheckpointError(
            f'{path} holds code ({name}), not only tensors and plain values; if you trust '
            'who made it, say so: --trust in the tools, trust=True in Python'
        ) from None
    except Refused as error:
        raise CheckpointError(f'{path} is refused: {error}') from None
    except Exception as error:  # a damaged file can raise anything
        reason = f'{error}' if isinstance(error, ValueError) and f'{error}' else repr(error)
        trouble = 'cannot be read' if isinstance(error, OSError) else 'is damaged or no checkpoint'
        raise CheckpointError(f'{path} {trouble}: {reason[:300]}') from None
    if not isinstance(content, dict):
        raise CheckpointError(f'{path} holds a {type(content).__name__}, expected a dict')
    return content


def container(path: str | os.PathLike[str]) -> str:
    """Which kind of checkpoint file ``path`` is: ``'zip'``, ``'legacy'`` or ``'safetensors'``.

    Raises:
        ValueError: None of them, or not all of it; says how it begins.
    """
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        head = file.read(64)
        if head.startswith(b'PK\3\4'):
            if not zipfile.is_zipfile(file):
                raise ValueError('the end of the zip file is missing')
            return 'zip'
        if head.startswith(b'\x80') and LEGACY in head:
            return 'legacy'
        length = int.from_bytes(head[:8], 'little')
        if head[8:9] == b'{' and 8 + length <= size:
            file.seek(8)
            if 8 + length + _data_size(file.read(length)) == size:
                return 'safetensors'
            raise ValueError('a safetensors file of another size than it says')
    raise ValueError(f'it begins with {head[:40]!r}' if head else 'it is empty')


def _data_size(header):
    """How many bytes follow the header of a safetensors file; -1 if it is malformed."""
    try:
        return max(
            (
                entry['data_offsets'][1]
                for name, entry in json.loads(header).items()
                if name != '__metadata__'
            ),
            default=0,
        )
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError):
        return -1


def _read_zip(path, device):
    """What ``torch.save`` writes since PyTorch 1.6."""
    size, blocks = os.path.getsize(path), {}
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if any(
            entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size
            for entry in entries.values()
        ):
            raise Refused('it is a compressed zip file, and torch.save writes none')
        if (
            len(entries) < len(archive.infolist())
            or sum(entry.file_size for entry in entries.values()) > size
        ):
            raise Refused('entries of the zip file lie over one another')
        name = next(name for name in entries if name.endswith('/data.pkl'))
        folder = name.removesuffix('data.pkl')
        if folder + 'constants.pkl' in entries:
            raise Refused('it is a TorchScript program')
        if folder + 'byteorder' in entries and archive.read(folder + 'byteorder') != b'little':
            raise Refused('it is of a big-endian machine')

        def block(key, count, itemsize):
            entry = entries.get(f'{folder}data/{key}')
            if entry is None or entry.file_size != count * itemsize:
                raise ValueError('numbers are missing')
            if key not in blocks:
                with archive.open(entry) as file:
                    blocks[key] = _fill(torch.UntypedStorage(entry.file_size), file)
            return blocks[key]

        with archive.open(name) as file:
            tree = Unpickler(io.BytesIO(file.read()), block).load()
    return Plain(size, device)(tree)


def _read_legacy(path, device):
    """What ``torch.save`` wrote before PyTorch 1.6: pickles, and then the numbers."""
    blocks: dict[str, tuple[torch.UntypedStorage, int]] = {}
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        room = len(data)

        def block(key, count, itemsize):
            nonlocal room
            if key not in blocks:
                room -= count * itemsize
                if room < 0:
                    raise ValueError('numbers in more bytes than the file has')
                blocks[key] = torch.UntypedStorage(count * itemsize), itemsize
            if len(blocks[key][0]) != count * itemsize:
                raise ValueError('a storage of two sizes')
            return blocks[key][0]

        for _ in ('magic number', 'protocol version', 'system'):
            Unpickler(data).load()
        tree = Unpickler(data, block).load()
        for key in Unpickler(data).load():
            memory, itemsize = blocks.pop(key)
            if int.from_bytes(data.read(8), 'little') * itemsize != len(memory):
                raise ValueError('a storage of two sizes')
            _fill(memory, data)
        if blocks:
            raise ValueError('numbers are missing')
        return Plain(len(data), device)(tree)


def _fill(memory, file):
    """Fill a torch.UntypedStorage with what comes next in ``file``."""
    numbers: Any = torch.empty(0, dtype=torch.uint8).set_(memory).numpy()
    view = memoryview(numbers)
    while view:
        chunk = file.read(min(len(view), 1 << 20))
        view[: len(chunk)] = chunk
        view = view[len(chunk) :]
        if not chunk:
            raise ValueError('numbers are missing')
    return memory


def safetensors_package(path: str | Path) -> ModuleType:
    try:
        import safetensors.torch
    except ImportError:
        raise CheckpointError(f'{path} needs safetensors: pip install safetensors') from None
    return safetensors


def _read_safetensors(path, device):
    with safetensors_package(path).safe_open(path, 'pt', device=str(device)) as file:
        weights = {name: checked(file.get_tensor(name)) for name in file.keys()}
        meta = {}
        with suppress(ValueError, RecursionError):  # not of :func:`write`
            meta = json.loads((file.metadata() or {}).get('meta', '{}'))
        return dict(meta=plain_meta(dict(meta=meta)), state_dict=weights)


def plain_meta(checkpoint: dict[Any, Any]) -> dict[str, Any]:
    """What a published file tells about itself: class names, ids and colours, progress, versions.

    Not the config and the environment, which tell of the machine, and nothing that is malformed.
    """
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    plain = {
        key: meta[key]
        for key, kind in dict(epoch=int, iter=int, mmengine_version=str).items()
        if type(meta.get(key)) is kind
    }
    # MMDetection 2.x and MMSegmentation 0.x wrote CLASSES and PALETTE right into meta.
    dataset = meta.get('dataset_meta')
    dataset = {
        str(key).lower(): value
        for key, value in (dataset if isinstance(dataset, dict) and dataset else meta).items()
    }
    if classes := class_names(dataset.get('classes')):
        plain['dataset_meta'] = dict(classes=classes)
        if palette := colours(dataset.get('palette'), len(classes)):
            plain['dataset_meta']['palette'] = palette
        ids = _items(dataset.get('category_ids'))  # of the training file; see checks.contract
        if len(ids) == len(classes) and all(type(number) is int for number in ids):
            plain['dataset_meta']['category_ids'] = list(ids)
    return plain


def class_names(value: object) -> tuple[str, ...] | None:
    """``value`` as a tuple of names; None if it is none of names."""
    names = _items(value)
    return tuple(map(str, names)) if names and all(isinstance(n, str) for n in names) else None


def colours(value: object, count: int) -> list[tuple[int, int, int]] | None:
    """``value`` as a list of at least ``count`` colours (red, green, blue); None if it is none."""
    rows = [_items(row) for row in _items(value)]
    if (
        rows
        and len(rows) >= count
        and all(
            len(row) == 3 and all(isinstance(n, (int, np.integer)) and 0 <= n <= 255 for n in row)
            for row in rows
        )
    ):
        # Tuples, since the visualizers take no lists for colours.
        return [(int(r), int(g), int(b)) for r, g, b in rows]
    return None


def _items(value):
    if isinstance(value, np.ndarray) and value.ndim:
        return value.tolist()
    return value if isinstance(value, (list, tuple)) else ()
