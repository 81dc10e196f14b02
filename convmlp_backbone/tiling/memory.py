"""How much memory there is, and how much a prediction takes, from two small ones."""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

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


def available(device: str = 'cpu') -> float:
    """Bytes that can be had on a device without anybody being killed; inf where nobody tells."""
    if device.startswith('cuda'):
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(free_of_machine(), free_of_group())


def free_of_machine(file: str = '/proc/meminfo') -> float:
    with suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    return float('inf')


def free_of_group(root: str = '/sys/fs/cgroup', own: str = '/proc/self/cgroup') -> float:
    """What the limits of this process's control groups, of either version, leave."""
    free = float('inf')
    with suppress(OSError):
        for line in Path(own).read_text().splitlines():
            _, kinds, path = line.split(':', 2)
            if kinds and 'memory' not in kinds.split(','):
                continue
            base = Path(root, 'memory') if kinds else Path(root)
            names = (
                ('memory.limit_in_bytes', 'memory.usage_in_bytes', 'total_inactive_file')
                if kinds
                else ('memory.max', 'memory.current', 'inactive_file')
            )
            group = base / path.lstrip('/')
            for folder in (base, group, *group.parents):  # base: in a container, path is outside
                if folder.is_relative_to(base):
                    free = min(free, free_of_folder(folder, *names))
    return free


def free_of_folder(folder: Path, limit: str, usage: str, cache: str) -> float:
    try:
        most, used = (folder / limit).read_text().strip(), int((folder / usage).read_text())
        if most == 'max' or int(most) > 1 << 60:
            return float('inf')
        stat = dict(line.split() for line in (folder / 'memory.stat').read_text().splitlines())
    except (OSError, ValueError):
        return float('inf')
    return max(int(most) - used + int(stat.get(cache, 0)), 0)


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


def resident(name: str) -> int:
    (line,) = (
        line
        for line in Path('/proc/self/status').read_text().splitlines()
        if line.startswith(f'{name}:')
    )
    return int(line.split()[1]) * 1024
