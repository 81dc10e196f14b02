"""What models made for GPUs need to run, and to run well, on a CPU."""

import ctypes
import os
from contextlib import suppress

import torch
from mmengine.config import Config

from .config import walk
from .processes import is_first_process

_NUMBERS = dict(trim_threshold=-1, mmap_threshold=-3, mmap_max=-4)  # in glibc's malloc.h


def mallopt(**parameters: int) -> None:
    """Set parameters of glibc's malloc, see mallopt(3); does nothing with other C libraries."""
    with suppress(AttributeError, OSError, TypeError):
        function = ctypes.CDLL(None).mallopt
        for name, value in parameters.items():
            function(_NUMBERS[name], value)


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for the next ones.

    Else Linux takes that of large tensors back and clears it anew for the next one, which takes up
    to a third of the time of inference and training on a CPU. The process stays as large as it was
    at its peak. Does nothing where the C library is not glibc.
    """
    mallopt(mmap_max=0, trim_threshold=2**31 - 1)


def fit_to_cpu(cfg: Config) -> None:
    """Let a config made for GPUs train and test well without one, and print what was changed.

    Args:
        cfg (Config): A whole config with ``launcher``; its results stay what they are. Where the
            launcher is not ``'none'``, the processes are joined here.
    """
    keep_freed_memory()
    changes = []
    if cfg.launcher != 'none':
        # MMEngine's own set-up picks a GPU for every process, and gives DDP its number.
        changes.append('gloo')
        if cfg.launcher == 'slurm':
            for name, slurm in (('RANK', 'PROCID'), ('WORLD_SIZE', 'NTASKS')):
                os.environ[name] = os.environ[f'SLURM_{slurm}']
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
        )
    changes += fit_model_to_cpu(cfg.model)
    if changes and is_first_process():
        print(f'No GPU here: {", ".join(changes)}.', flush=True)


def fit_model_to_cpu(cfg: dict) -> list[str]:
    """Change what needs a GPU, or is slow without one, in a model's config; no result changes.

    Returns:
        list[str]: What was changed, in words.
    """
    changes = set()
    for _, part in walk(cfg):
        if part.get('type') == 'SyncBN':
            part['type'] = 'BN'
            changes.add('BN instead of SyncBN')
        if (
            part.get('type') == 'RoIAlign'
            and part.get('pool_mode', 'avg') == 'avg'
            and not part.get('use_torchvision')
        ):
            # The same numbers; on a CPU 4 times as fast forward and twice backward.
            part['use_torchvision'] = True
            changes.add("torchvision's RoIAlign")
        if (
            part.get('type') == 'nms' and 'split_thr' not in part and not part.get('class_agnostic')
        ):  # which MMCV forgets where it splits
            # The same boxes; else MMCV compares even those of different levels and classes.
            part['split_thr'] = 1
            changes.add('NMS level by level, class by class')
    return sorted(changes)
