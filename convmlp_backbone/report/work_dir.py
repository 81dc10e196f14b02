"""What a training left in its work dir: config, checkpoint, log, versions."""

import os
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

from ..errors import UserError
from ..hooks import best_checkpoint, latest_checkpoint
from ..training_log import read_run

# As MMEngine's log calls them.
VERSIONS = ('Python', 'PyTorch', 'TorchVision', 'MMEngine', 'OpenCV', 'GPU 0', 'CUDA available')
PACKAGES = ('mmdet', 'mmsegmentation', 'mmpretrain', 'mmcv', 'mmengine')


class WorkDir(NamedTuple):
    """The files of a training.

    Attributes:
        folder: Where they lie.
        config: The config that was trained with.
        checkpoint: The one with the best score, else the last; None if there is none.
        train, val: See :func:`convmlp_backbone.training_log.read_run`; empty without a log.
        versions: Of what it was trained with, as far as the log tells.
        notes: What is not there, in words.
    """

    folder: Path
    config: Path
    checkpoint: Path | None
    train: list[dict]
    val: list[dict]
    versions: dict[str, str]
    notes: list[str]


def open_work_dir(name: str | Path) -> WorkDir:
    """What is in the folder ``name``, of `convmlp train` or `convmlp fit`.

    Raises:
        UserError: There is no such folder, or no config in it.
    """
    folder = Path(name)
    if not folder.is_dir():
        raise UserError(f'no folder {folder}; expected one that convmlp train or fit wrote')
    if (folder / 'train').is_dir() and not list(folder.glob('*/vis_data')):
        folder = folder / 'train'  # of convmlp fit
    notes: list[str] = []
    try:
        train, val = read_run(folder)
    except UserError as error:
        train, val = [], []
        notes.append(str(error))
    dumps = sorted(folder.glob('*/vis_data/config.py'))
    trained = [path for path in dumps if _has_loss(path.with_name('scalars.json'))]
    configs = trained or sorted(folder.glob('*.py')) or dumps
    if not configs:
        raise UserError(
            f'{folder} has no config (TIME/vis_data/config.py); convmlp train leaves one'
        )
    best = best_checkpoint(folder)
    last = None if best else latest_checkpoint(folder)
    if not (best or last):
        notes.append(f'{folder} has no checkpoint')
    elif not best:
        notes.append('no best checkpoint; taken is the last one')
    checkpoint = best or (Path(last) if last else None)
    return WorkDir(
        folder, configs[-1], checkpoint, train, val, _versions(configs[-1].parents[1]), notes
    )


def _has_loss(scalars: Path) -> bool:
    return scalars.is_file() and '"loss"' in scalars.read_text(errors='replace')


def _versions(folder: Path) -> dict[str, str]:
    text = ''.join(
        path.read_text(errors='replace')[:20_000] for path in sorted(folder.glob('*.log'))
    )
    found = {
        name: match[1].strip()
        for name in VERSIONS
        if (match := re.search(rf'^    {re.escape(name)}: (.*)$', text, re.M))
    }
    if 'Python' in found:
        found['Python'] = found['Python'].split()[0]
    return found


def versions_here() -> dict[str, str]:
    """Of what evaluates now."""
    import platform

    from ..version import __version__

    found = {'convmlp-backbone': __version__, 'Python': platform.python_version()}
    for name in ('torch', 'hotcoco', *PACKAGES):
        for package in (name, f'onedl-{name}', f'onedl-{name.replace("mmdet", "mmdetection")}'):
            try:
                found[package] = version(package)
                break
            except PackageNotFoundError:
                continue
    return found


def run_name(folder: Path) -> str:
    """The name of a work dir, with that of the folder above for convmlp fit's ``train``."""
    folder = Path(os.path.abspath(folder))
    return folder.parent.name if folder.name == 'train' else folder.name
