"""How the C library hands out the memory of tensors on a CPU."""
import ctypes
from contextlib import suppress

_NUMBERS = dict(trim_threshold=-1, mmap_threshold=-3, mmap_max=-4)  # in glibc's malloc.h


def mallopt(**parameters):
    """Set parameters of glibc's malloc, see mallopt(3); does nothing with other C libraries."""
    with suppress(AttributeError, OSError, TypeError):
        function = ctypes.CDLL(None).mallopt
        for name, value in parameters.items():
            function(_NUMBERS[name], value)


def keep_freed_memory():
    """Let this process keep the memory of freed tensors for the next ones.

    Else Linux takes that of large tensors back and clears it anew for the next one, which takes up
    to a third of the time of inference and training on a CPU. The process stays as large as it was
    at its peak. Does nothing where the C library is not glibc.
    """
    mallopt(mmap_max=0, trim_threshold=2**31 - 1)
