"""Files that are written whole or not at all."""
import os
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def whole_file(path):
    """A temporary file beside ``path`` that takes its place when the block ends without an error.

    ``path`` is then on the disk, whatever dies meanwhile; before, it is as it was, and after an
    error the temporary file is gone.

    Args:
        path (str | Path): The file to write; its folder is made. What is there is replaced.

    Yields:
        Path: A name of its own in the same folder, with the ending of ``path``, to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
    try:
        yield part
        with open(part, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # else the new name may be lost with the power
    finally:
        os.close(folder)
