"""Where the published checkpoints lie, and the local file that a name or an address stands for."""

import difflib
import hashlib
import os
import re
from pathlib import Path
from urllib.parse import urlsplit

import torch

from ..errors import CheckpointError
from .download import download, sha256_of, shown
from .reading import container

# The published checkpoints. Configs name them by SCHEME, so that the address stands only here.
BASE_URL = 'https://shi-labs.com/projects/convmlp/checkpoints/'
OLD_BASE_URL = 'http://ix.cs.uoregon.edu/~alih/conv-mlp/checkpoints/'  # in the authors' configs
SCHEME = 'convmlp://'
PUBLISHED = [
    *(
        f'convmlp_{size}_{data}.pth'
        for data in ('imagenet', 'cifar10', 'cifar100', 'flowers102')
        for size in 'sml'
    ),
    *(
        f'detection/{model}_convmlp_{size}_coco.pth'
        for model in ('retinanet', 'maskrcnn')
        for size in 'sml'
    ),
    *(f'segmentation/sem_fpn_convmlp_{size}_ade20k.pth' for size in 'sml'),
]
# The images, RGB, with which all of them were trained.
NORMALISATION = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
# The environment variable that names a folder with copies of published checkpoints.
FOLDER = 'CONVMLP_CHECKPOINTS'


def imagenet_weights(arch: str) -> str:
    """The name of the published ImageNet weights of size ``s``, ``m`` or ``l``."""
    return f'{SCHEME}convmlp_{arch}_imagenet.pth'


def fetch(source: str | Path) -> Path:
    """The local file that ``source`` stands for, downloaded to torch hub's cache if need be.

    Args:
        source (str | Path): A path, an ``http(s)://`` address, or ``convmlp://NAME`` with one of
            :data:`PUBLISHED`. A published one is first looked for in the folder that the
            environment variable ``CONVMLP_CHECKPOINTS`` names, as ``DIR/detection/x.pth`` or
            ``DIR/x.pth``. An address may end in ``#sha256=HEX``, which the file must then have.

    Returns:
        Path: A file that exists.

    Raises:
        CheckpointError: There is no such file, or it cannot be downloaded.
    """
    source = str(source)
    base = next((b for b in (SCHEME, BASE_URL, OLD_BASE_URL) if source.startswith(b)), None)
    if base is None and not re.match('https?://', source, re.IGNORECASE):
        path = Path(source).expanduser()
        if not path.is_file():
            raise CheckpointError(f'no such checkpoint file: {path}')
        return path
    address, _, fragment = source.partition('#')
    sha256 = fragment.removeprefix('sha256=').lower() if fragment.startswith('sha256=') else None
    if sha256 is not None and not re.fullmatch('[0-9a-f]{64}', sha256):
        raise CheckpointError(f'{shown(source)}#{fragment}: expected 64 hexadecimal digits')
    path = _fetch_published(address, base) if base else _fetch_address(address)
    if sha256 not in (None, found := sha256 and sha256_of(path)):
        raise CheckpointError(
            f'{path}, from {shown(source)}, has the SHA-256 {found}, '
            f'not {sha256}; delete it to download it again'
        )
    return path


def _cache():
    return Path(torch.hub.get_dir(), 'checkpoints')


def _fetch_address(url):
    # The name in the path, as far as a file can have it; two addresses may end alike.
    name = re.sub(r'[^\w.-]', '_', urlsplit(url).path.rpartition('/')[2]).lstrip('.')[-100:]
    target = _cache() / hashlib.sha256(url.encode()).hexdigest()[:8] / (name or 'checkpoint')
    try:
        download(url, target, check=container)
    except OSError as error:
        raise CheckpointError(error) from None
    return target


def _fetch_published(source, base):
    published, folder = source[len(base) :], os.environ.get(FOLDER)
    name = Path(published).name
    if published not in PUBLISHED:
        near = difflib.get_close_matches(published, PUBLISHED, cutoff=0)
        raise CheckpointError(
            f'{source} has not been published; did you mean '
            f'{" or ".join(SCHEME + n for n in near)}?'
        )
    if folder and not Path(folder).is_dir():
        raise CheckpointError(f'{FOLDER}={folder}: no such folder')
    for path in (Path(folder, published), Path(folder, name)) if folder else ():
        if path.is_file():
            return path
    try:
        download(BASE_URL + published, _cache() / name, check=container)
    except OSError as error:
        here = f' ({folder} has no such file)' if folder else ''
        raise CheckpointError(
            f'{error}; if you have the file, set {FOLDER} to its folder{here}'
        ) from None
    return _cache() / name
