"""The folder of a training: one process at a time, and the checkpoint in it to go on from."""

import difflib
import fcntl
import os
import re
import socket
import time
from pathlib import Path
from typing import TextIO

from mmengine.config import Config
from mmengine.logging import print_log

from ..checkpoints import load
from ..errors import CheckpointError, UserError
from ..processes import RANK

RESUMABLE = re.compile(r'(interrupted|last_good|(epoch|iter)_\d+)\.pth')
# The locks that this process holds: how many times, and the file.
_locks: dict[str, tuple[int, TextIO]] = {}


def lock(work_dir: str | Path) -> None:
    """Keep every other process from training in ``work_dir``, until as many :func:`unlock`.

    The lock ends with the process, however it ends; processes forked from it do not have it.

    Raises:
        UserError: Another process trains there, the message tells which; or nothing can be written.
    """
    path = os.path.realpath(os.path.join(work_dir, '.lock'))
    count, file = _locks.get(path) or (0, _lock(path))
    _locks[path] = count + 1, file


def unlock(work_dir: str | Path) -> None:
    path = os.path.realpath(os.path.join(work_dir, '.lock'))
    count, file = _locks.pop(path)
    if count > 1:
        _locks[path] = count - 1, file
    else:
        file.close()


def _lock(path):
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, exist_ok=True)
        file = open(path, 'a+')
    except OSError as error:
        raise UserError(
            f'the work dir {folder} cannot be written to: {error.strerror}; another: --work-dir DIR'
        ) from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        owner = file.read(200).strip() or 'another process'
        file.close()
        raise UserError(
            f'{owner} trains in {folder}: end it, or take another folder, --work-dir DIR'
        ) from None
    except OSError as error:  # a file system without locks
        _warn(
            f'{folder} cannot be locked ({error.strerror}): see to it yourself that no other '
            'training writes there'
        )
    file.truncate(0)
    file.write(f'process {os.getpid()} on {socket.gethostname()}, since {time.ctime()},')
    file.flush()
    return file


def best_checkpoint(work_dir: str | Path) -> Path | None:
    """The checkpoint of ``work_dir`` with the best score, None if none had a score."""
    found = Path(work_dir).glob('best_*.pth')
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def latest_checkpoint(work_dir: str | Path) -> str | None:
    """The checkpoint of ``work_dir`` that a training goes on from, None if the folder holds none.

    The one that ``last_checkpoint`` names, beside that file if the folder was moved; where that
    file is of no use, the one of most iterations.

    Raises:
        CheckpointError: There are checkpoints, but none is whole.
    """
    pointer = Path(work_dir).absolute() / 'last_checkpoint'
    found = [path for path in pointer.parent.glob('*.pth') if RESUMABLE.fullmatch(path.name)]
    problem = 'is missing'
    if os.path.lexists(pointer):
        try:
            with open(pointer, 'rb') as file:
                named = file.read(4096).decode().strip()  # no path is longer
            problem = f'names {named[:80]!r}, which is not there'
            beside = pointer.with_name(re.split(r'[/\\]', named)[-1])
            for path in (beside, Path(named)):
                if path.is_absolute() and path.is_file():
                    try:
                        _iteration(path)
                        return str(path)
                    except CheckpointError as error:
                        problem = f'names a file of no use ({error})'
        except (OSError, ValueError) as error:  # a folder; not text; too long; a null byte
            problem = f'is none ({getattr(error, "strerror", None) or "not a path"})'
    elif not found:
        return None
    whole = {}
    for path in found:
        try:
            whole[_iteration(path)] = path
        except CheckpointError as error:
            problem += f'; {error}'
    if not whole:
        raise CheckpointError(
            f'nothing to resume: {pointer} {problem}. To start anew, leave out '
            '--resume and take another --work-dir'
        )
    latest = whole[max(whole)]
    _warn(f'{pointer} {problem}: resuming from {latest.name}, which has most iterations')
    return str(latest)


def _iteration(path):
    """How many iterations the checkpoint has seen."""
    checkpoint = load(path)
    try:
        checkpoint['message_hub']
        return int(checkpoint['meta']['iter'])
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(
            f'{path} tells nothing of a training run to resume; to start from '
            f'its weights: --cfg-options load_from={path}'
        ) from None


def prepare_training(cfg: Config) -> None:
    """Lock the work dir of ``cfg`` for this process, and find what ``cfg.resume`` asks for.

    Args:
        cfg (Config): Of ``work_dir``, ``launcher``, ``resume`` and ``load_from``; the latter
            becomes the path of the checkpoint to resume.

    Raises:
        UserError: Another training runs there, or there is nothing to resume.
    """
    if not int(os.environ.get(RANK.get(cfg.get('launcher'), ''), 0)):
        lock(cfg.work_dir)  # until the process ends
    if not cfg.get('resume'):
        return
    source = cfg.get('load_from') or cfg.work_dir
    if os.path.isdir(source):
        cfg.load_from = latest_checkpoint(source)
        if cfg.load_from is None:
            raise CheckpointError(
                f'nothing to resume: no checkpoint in {os.path.abspath(source)}'
                f'{_did_you_mean(source)}; to start anew, leave out --resume'
            )
    elif '://' not in source and not os.path.isfile(source):
        raise CheckpointError(
            f'no checkpoint {os.path.abspath(source)}; a training writes them to its --work-dir'
        )
    else:
        _iteration(source)


def _did_you_mean(folder):
    folder = Path(folder).absolute()
    others = {path.parent.name for path in folder.parent.glob('*/last_checkpoint')}
    near = difflib.get_close_matches(folder.name, others, n=1) or sorted(others)[:1]
    return f'; did you mean --work-dir {folder.parent / near[0]}?' if near else ''


def _warn(message):
    print_log(message, logger='current', level=30)
