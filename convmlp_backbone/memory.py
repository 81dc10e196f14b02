"""How much memory there is, of a GPU, of the machine, of its control groups, and is taken."""

from contextlib import suppress
from pathlib import Path

import torch

MEMINFO, CGROUPS, OWN_GROUPS = '/proc/meminfo', '/sys/fs/cgroup', '/proc/self/cgroup'


def available(device: str = 'cpu') -> float:
    """Bytes that can be had on a device without anybody being killed; inf where nobody tells."""
    if device.startswith('cuda'):
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(free_of_machine(MEMINFO), free_of_group(CGROUPS, OWN_GROUPS))


def free_of_machine(file: str | Path) -> float:
    with suppress(OSError):
        for line in Path(file).read_text().splitlines():
            if line.startswith('MemAvailable:'):
                return int(line.split()[1]) * 1024
    return float('inf')


def free_of_group(root: str | Path, own: str | Path) -> float:
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
    except (OSError, ValueError):
        return float('inf')
    stat: dict[str, str] = {}
    with suppress(OSError, ValueError):
        stat = dict(line.split() for line in (folder / 'memory.stat').read_text().splitlines())
    return max(int(most) - used + int(stat.get(cache, 0)), 0)


def resident(name: str) -> int:
    """Bytes that Linux says this process takes, VmRSS, or took at most, VmHWM."""
    (line,) = (
        line
        for line in Path('/proc/self/status').read_text().splitlines()
        if line.startswith(f'{name}:')
    )
    return int(line.split()[1]) * 1024
