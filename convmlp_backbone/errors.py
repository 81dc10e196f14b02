"""What a user can mend: errors whose message is one line that names the value and the way out.

The commands print them as such and end with status 1; everything else is a traceback.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def printable(text: object) -> str:
    """``text`` as one line without control characters, which names from a file may hold."""
    return ''.join(
        c if c.isprintable() else c.encode('unicode_escape').decode()
        for c in ' '.join(str(text).split())
    )


class UserError(Exception):
    """Something the user can mend.

    Attributes:
        answer: What the command found all the same, for ``--json``.
    """

    answer: Any = None

    def __str__(self) -> str:
        return printable(super().__str__())


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be had, is not safe, does not fit, or cannot be written."""


class DownloadError(UserError, OSError):
    """A file could not be had; the message names the address."""


class TrainingStopped(UserError, RuntimeError):
    """Training cannot go on."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the program with one line instead of a traceback where the user can mend the cause."""
    try:
        yield
    except UserError as error:
        sys.exit(f'error: {error}')
    except BrokenPipeError:  # head, or another reader, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit('error: nobody reads the output any more')
    except OSError as error:
        if isinstance(error.filename, (str, bytes)):
            sys.exit(f'error: {os.fsdecode(error.filename)}: {error.strerror}')
        # MMEngine's has a text only; of a full disk nobody tells the name.
        if isinstance(error, FileNotFoundError) or error.errno in (errno.ENOSPC, errno.EDQUOT):
            sys.exit(f'error: {str(error).splitlines()[-1]}')
        raise
