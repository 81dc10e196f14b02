"""Files that are written whole or not at all."""

import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file beside ``path`` that takes its place when the block ends without an error.

    ``path`` is then on the disk, whatever dies meanwhile; before, it is as it was, and after an
    error the temporary file is gone. What a killed process left, the next one that writes ``path``
    removes. Several may write it at once: the last to end prevails.

    Args:
        path (str | Path): The file to write; its folder is made. What is there is replaced.

    Yields:
        Path: A name of its own in the same folder, with the ending of ``path``, to write to.

    Raises:
        OSError: The file cannot be written; names ``path``.
    """
    path = Path(path)
    part = path.with_name(f'.{path.stem}.{secrets.token_hex(4)}.part{path.suffix}')
    try:
        with suppress(FileExistsError):  # of a file; the next line says what that means
            path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        with _locked(part):
            yield part
            with open(part, 'rb+') as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else the new name may be lost with the power
        finally:
            os.close(folder)
    except OSError as error:
        if error.strerror is None or error.filename not in (None, str(part), path.parent):
            raise  # one of the block, about something else
        raise OSError(error.errno, error.strerror, str(path)) from error


def require_writable(path: str | os.PathLike[str]) -> None:
    """Raise now what :func:`whole_file` would raise after long work; the folder is made."""
    with suppress(_EnoughError), whole_file(path):
        raise _EnoughError


class _EnoughError(Exception):
    pass


@contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[bool]:
    """The lock ``path``, while the block runs; whether it could be had, or another has it.

    Where the file system has no locks, nobody has it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        yield _lock(descriptor, wait=False)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(part: Path) -> Iterator[None]:
    """A new file that is locked while its writer lives, so that nobody takes it for a stale one."""
    while True:
        descriptor = os.open(part, os.O_CREAT | os.O_RDWR, 0o666)
        try:
            _lock(descriptor)
            if part.exists():  # else another took it for one, between the two lines above
                yield
                return
        finally:
            with suppress(FileNotFoundError):
                part.unlink()
            os.close(descriptor)


def _remove_stale(path: Path) -> None:
    own = re.compile(rf'\.{re.escape(path.stem)}\.[0-9a-f]+\.part{re.escape(path.suffix)}')
    for part in filter(lambda other: own.fullmatch(other.name), path.parent.iterdir()):
        with suppress(OSError):
            descriptor = os.open(part, os.O_RDONLY | os.O_NONBLOCK)
            try:
                if _lock(descriptor, wait=False):
                    part.unlink()
            finally:
                os.close(descriptor)


def _lock(descriptor: int, wait: bool = True) -> bool:
    """Lock a file until it is closed; False if another has it, or the file system has no locks."""
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        return False
    return True
