"""How long an iteration and an evaluation of a config take here, and how much memory."""
import multiprocessing
import os
import resource
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope

from ..cpu import fit_model_to_cpu, keep_freed_memory

ITERATIONS, SECONDS = 4, 20  # so many, or as many as take so long


@dataclass
class Cost:
    """Seconds of an iteration and of a validation image; bytes of a training image; how many times
    as long everything takes as the processor works on it, for others work on it, too."""
    step: float
    val_image: float
    memory: float
    busy: float = 1.


def device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def free_memory() -> float:
    """Bytes that training may take: of the GPU, or of what the machine or the container has."""
    if device() == 'cuda':
        return torch.cuda.mem_get_info()[0]
    free = psutil.virtual_memory().available
    for limit, used in (('memory.max', 'memory.current'), (
            'memory/memory.limit_in_bytes', 'memory/memory.usage_in_bytes')):
        limit, used = (Path('/sys/fs/cgroup', name) for name in (limit, used))
        if limit.is_file() and used.is_file() and (text := limit.read_text().strip()).isdigit():
            free = min(free, int(text) - int(used.read_text()))
    return free


def measure(config: Path) -> Cost:
    """Costs of the training that a config describes, by a few of its iterations.

    In a process of its own, whose peak of memory is that of the training, and which gives it back.
    """
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_measure, [config])


def _measure(config: Path) -> Cost:
    import convmlp_backbone  # noqa: F401  registers backbone and hooks
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    where = device()
    if where == 'cpu':
        keep_freed_memory()
        fit_model_to_cpu(cfg.model)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    if cfg.default_scope == 'mmpretrain':
        cfg.model.data_preprocessor['type'] = 'ClsDataPreprocessor'
        cfg.model.backbone.pop('init_cfg', None)
    train, val = (DATASETS.build(cfg[f'{split}_dataloader'].dataset) for split in ('train', 'val'))
    model = MODELS.build(cfg.model).to(where).train()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    size = cfg.train_dataloader.batch_size
    before, times, number = memory_taken(), [], 0
    start, worked = time.monotonic(), time.process_time()
    while len(times) <= ITERATIONS and time.monotonic() - start < SECONDS or len(times) < 2:
        begin = time.monotonic()
        batch = [train[(number + i) % len(train)] for i in range(size)]
        number += size
        loaded = time.monotonic()
        model.train_step(pseudo_collate(batch), optimizer)
        synchronize()
        # Workers load while the network computes; they take some of its cores without a GPU.
        data = (loaded - begin) / (os.cpu_count() or 1)
        times.append(time.monotonic() - loaded + (data if where == 'cpu' else 0))
    memory = max(memory_taken() - before, 1) / size
    busy = (time.monotonic() - start) / max(
        (time.process_time() - worked) / torch.get_num_threads(), 0.01)
    model.eval()
    begin = time.monotonic()
    count = min(3, len(val))
    with torch.no_grad():
        for i in range(count):
            model.val_step(pseudo_collate([val[i]]))
    synchronize()
    return Cost(sorted(times[1:])[len(times[1:]) // 2], (time.monotonic() - begin) / count,
                memory, busy if where == 'cpu' else 1.)


def memory_taken() -> float:
    if device() == 'cuda':
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def synchronize():
    if torch.cuda.is_available():
        torch.cuda.synchronize()
