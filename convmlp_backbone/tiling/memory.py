"""How much memory a prediction takes, from two small ones, and whether that is there."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from ..memory import available, resident

SIZES = ((256, 256), (512, 512), (768, 1024))  # the first one only makes what is made once
SPARE = 1.25  # times what was measured
DOUBT = 4096  # bytes a pixel: more than any model takes that was measured


class Need(NamedTuple):
    """Bytes that a prediction takes at its peak, besides the model."""

    fixed: float
    per_pixel: float

    def of(self, pixels: float) -> float:
        return SPARE * (self.fixed + self.per_pixel * pixels)

    def pixels(self, room: float) -> float:
        """How large an image may be where there are ``room`` bytes."""
        return max(room / SPARE - self.fixed, 0) / self.per_pixel


def gib(number: float) -> str:
    return f'{number / 2**30:.1f} GiB'


def too_large(
    pixels: float, measured: Callable[[], Need | None], device: str = 'cpu'
) -> str | None:
    """Why an image of so many pixels does not fit into memory; None where it does.

    Args:
        measured: Called only where there is a doubt.
    """
    room = available(device)
    if pixels * DOUBT <= room or (need := measured()) is None or need.of(pixels) <= room:
        return None
    return f'would take about {gib(need.of(pixels))} of memory, {gib(room)} are free'


def measure(run: Callable[[int, int], object], device: str = 'cpu') -> Need | None:
    """What ``run(height, width)`` takes; None where that cannot be told."""
    taken = []
    for size in SIZES:
        found = peak(run, size, device)
        if found is None:
            return None
        taken.append(found)
    (a, b), (small, large) = ((h * w for h, w in SIZES[1:]), taken[1:])
    per_pixel = max((large - small) / (b - a), large / b / 2)
    return Need(max(large - per_pixel * b, 0), per_pixel)


def peak(run: Callable[[int, int], object], size: tuple[int, int], device: str) -> int | None:
    """Bytes that a call takes at most, beyond what is taken before it."""
    if device.startswith('cuda'):
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run(*size)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        # Freed memory that malloc keeps would be taken again unseen; 5 resets the peak, proc(5).
        with suppress(AttributeError, OSError):
            ctypes.CDLL(None).malloc_trim(0)
        Path('/proc/self/clear_refs').write_text('5')
        before = resident('VmRSS')
        run(*size)
        return max(resident('VmHWM') - before, 0)
    except OSError:
        return None
