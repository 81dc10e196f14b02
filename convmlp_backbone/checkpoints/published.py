"""Where the published checkpoints lie, and the local file that a name or an address stands for."""
import difflib
import hashlib
import os
from pathlib import Path

import torch

from ..errors import CheckpointError
from .download import download

# The published checkpoints. Configs name them by SCHEME, so that the address stands only here.
BASE_URL = 'https://shi-labs.com/projects/convmlp/checkpoints/'
OLD_BASE_URL = 'http://ix.cs.uoregon.edu/~alih/conv-mlp/checkpoints/'  # in the authors' configs
SCHEME = 'convmlp://'
PUBLISHED = [
    *(f'convmlp_{size}_{data}.pth' for data in ('imagenet', 'cifar10', 'cifar100', 'flowers102')
      for size in 'sml'),
    *(f'detection/{model}_convmlp_{size}_coco.pth' for model in ('retinanet', 'maskrcnn')
      for size in 'sml'),
    *(f'segmentation/sem_fpn_convmlp_{size}_ade20k.pth' for size in 'sml')]
# The environment variable that names a folder with copies of published checkpoints.
FOLDER = 'CONVMLP_CHECKPOINTS'


def fetch(source):
    """The local file that ``source`` stands for, downloaded to torch hub's cache if need be.

    Args:
        source (str | Path): A path, an ``http(s)://`` address, or ``convmlp://NAME`` with one of
            :data:`PUBLISHED`. A published one is first looked for in the folder that the
            environment variable ``CONVMLP_CHECKPOINTS`` names, as ``DIR/detection/x.pth`` or
            ``DIR/x.pth``.

    Returns:
        Path: A file that exists.

    Raises:
        CheckpointError: There is no such file, or it cannot be downloaded.
    """
    source = str(source)
    base = next((b for b in (SCHEME, BASE_URL, OLD_BASE_URL) if source.startswith(b)), None)
    if base is None and not source.startswith(('http://', 'https://')):
        path = Path(source).expanduser()
        if not path.is_file():
            raise CheckpointError(f'no such checkpoint file: {path}')
        return path

    name, url, folder = Path(source).name, source, os.environ.get(FOLDER)
    cache = Path(torch.hub.get_dir(), 'checkpoints')
    if base is None:
        # Two addresses may end alike.
        target = cache / hashlib.sha256(url.encode()).hexdigest()[:8] / name
    else:
        published = source[len(base):]
        if published not in PUBLISHED:
            near = difflib.get_close_matches(published, PUBLISHED, cutoff=0)
            raise CheckpointError(f'{source} has not been published; did you mean '
                                  f'{" or ".join(SCHEME + n for n in near)}?')
        if folder and not Path(folder).is_dir():
            raise CheckpointError(f'{FOLDER}={folder}: no such folder')
        if folder:
            for path in (Path(folder, published), Path(folder, name)):
                if path.is_file():
                    return path
        url, target = BASE_URL + published, cache / name
    try:
        download(url, target)
    except OSError as error:
        here = f' ({folder} has no such file)' if base and folder else ''
        hint = f'; if you have the file, set {FOLDER} to its folder{here}' if base else ''
        raise CheckpointError(f'{error}{hint}') from None
    return target
