"""How long an iteration and an evaluation of a config take here, and how much memory."""

import multiprocessing
import os
import resource
import time
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DATASETS, MODELS, init_default_scope

from ..amp import use_mixed_precision
from ..cpu import fit_model_to_cpu, keep_freed_memory
from ..memory import available

ITERATIONS, SECONDS = 4, 20  # so many, or as many as take so long


@dataclass
class Cost:
    """What a few iterations took.

    Args:
        step: Seconds of an iteration in float32.
        val_image: Seconds of a validation image.
        memory: Bytes of a training image.
        mixed: Seconds of an iteration in the mixed precision that suits the machine, None where
            there is none.
        busy: How many times as long all took as the processor worked on it: others do, too.
    """

    step: float
    val_image: float
    memory: float
    mixed: float | None = None
    busy: float = 1.0


def device() -> str:
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def free_memory() -> float:
    """Bytes that training may take: of the GPU, or of what the machine or the container has."""
    return available(device())


def measure(config: Path) -> Cost:
    """Costs of the training that a config describes, by a few of its iterations.

    In a process of its own, whose peak of memory is that of the training, and which gives it back.
    """
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_quietly, [config])


def _quietly(config: Path) -> Cost:
    """:func:`_measure` without what toolboxes print on the way."""
    from mmengine.logging import MMLogger

    MMLogger.get_instance('mmengine', log_level='ERROR')
    with open(os.devnull, 'w') as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        return _measure(config)


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
    before, start, worked = memory_taken(), time.monotonic(), time.process_time()
    step = _step(model, cfg, train)
    memory = max(memory_taken() - before, 1) / cfg.train_dataloader.batch_size
    busy = (
        (time.monotonic() - start)
        * torch.get_num_threads()
        / max(time.process_time() - worked, 0.01)
        if where == 'cpu'
        else 1.0
    )
    mixed = None
    if mixed_precision(cfg, where):
        mixed = _step(model, cfg, train)
    model.eval()
    count, begin = min(3, len(val)), time.monotonic()
    with torch.no_grad():
        for i in range(count):
            model.val_step(pseudo_collate([val[i]]))
    synchronize()
    return Cost(step, (time.monotonic() - begin) / count, memory, mixed, busy)


def mixed_precision(cfg: Config, where: str) -> str | None:
    """Make a config train in the mixed precision that suits this machine; in words, None if none
    does."""
    words = use_mixed_precision(cfg, 'auto', where)
    return None if cfg.optim_wrapper.type == 'OptimWrapper' else words


def _step(model: BaseModel, cfg: Config, data: Sequence) -> float:
    """Seconds of an iteration, loading included: the median without the first."""
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    size, start = cfg.train_dataloader.batch_size, time.monotonic()
    times: list[float] = []
    while len(times) < 2 or len(times) <= ITERATIONS and time.monotonic() - start < SECONDS:
        begin = time.monotonic()
        batch = [data[(len(times) * size + i) % len(data)] for i in range(size)]
        loaded = time.monotonic()
        model.train_step(pseudo_collate(batch), optimizer)
        synchronize()
        # Workers load while the network computes; without a GPU they take some of its cores.
        loading = 0 if torch.cuda.is_available() else (loaded - begin) / (os.cpu_count() or 1)
        times.append(time.monotonic() - loaded + loading)
    return sorted(times[1:])[(len(times) - 1) // 2]


def memory_taken() -> float:
    if device() == 'cuda':
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
