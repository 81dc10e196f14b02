"""The order of the samples: started anywhere, and with a seed for every sample."""

import copy
import random
from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler, DataLoader

from ..errors import TrainingStopped


def random_seed(*numbers: int) -> int:
    """A seed of 32 bits that depends on all the ``numbers``."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def _seeded_samples(dataset, batch):
    """The samples of a batch of (index, seed)."""
    samples = []
    for index, seed in batch:
        seed_all(seed)
        samples.append(dataset[index])
    return samples


def _starting_at(sampler, skip):
    """A copy of ``sampler`` that leaves out its first ``skip`` samples."""
    kind, sampler = type(sampler), copy.copy(sampler)
    sampler.__class__ = type(
        kind.__name__, (kind,), dict(__iter__=lambda self: islice(kind.__iter__(self), skip, None))
    )
    return sampler


def is_exact(batch_sampler: Any) -> bool:
    """Whether batches of another size, or of another number of processes, hold the same samples in
    the same order."""
    return type(batch_sampler) is BatchSampler and type(batch_sampler.sampler).__iter__ in (
        DefaultSampler.__iter__,
        InfiniteSampler.__iter__,
    )


class Order:
    """Takes the place of a data loader's batch sampler, to start anywhere and seed every sample.

    A sample's seed depends on the epoch of the data and the sample's place in the order of all
    processes: the size of the batch and the number of processes do not change it.
    """

    def __init__(self, loader: DataLoader, seed: int):
        self.batch_sampler: Any = loader.batch_sampler
        self.seed = seed
        self.at(0)
        object.__setattr__(loader, 'batch_sampler', self)  # DataLoader itself refuses
        dataset: Any = loader.dataset
        dataset.__getitems__ = partial(_seeded_samples, dataset)

    def at(self, epoch: int, start: int = 0, done: int = 0) -> None:
        """Where the next iteration begins: ``start`` samples of all processes left out, then
        ``done`` batches of each."""
        self.epoch, self.start, self.done = epoch, start, done

    def __len__(self):
        return len(self.batch_sampler)

    def __getattr__(self, name):
        return getattr(self.__dict__['batch_sampler'], name)

    def __iter__(self):
        rank, processes = get_dist_info()
        (start, self.start), (done, self.done) = (self.start, 0), (self.done, 0)
        batches, sampler = self.batch_sampler, self.batch_sampler.sampler
        if start:
            batches = copy.deepcopy(
                batches, {id(sampler): _starting_at(sampler, start // processes)}
            )
        place = start // processes * processes + rank
        for i, batch in enumerate(batches):
            if i >= done:
                yield [
                    (index, random_seed(self.seed, self.epoch, 1, place + j * processes))
                    for j, index in enumerate(batch)
                ]
            place += len(batch) * processes


class Endless:
    """Takes the place of MMEngine's iterator for trainings that count iterations, not epochs.

    Args:
        loader (DataLoader): With an :class:`Order`.
        next_epoch (Callable): Called before the loader starts again.
        idle (int): How many first calls yield nothing: MMEngine 0.10.7 skips so what it has done.
    """

    def __init__(self, loader: DataLoader, next_epoch: Callable[[], None], idle: int):
        self.batches, self.idle = self._batches(loader, next_epoch), idle

    def _batches(self, loader, next_epoch):
        empty = 0
        while empty < 2:  # the first may be at its end
            empty += 1
            for batch in loader:
                empty = 0
                yield batch
            next_epoch()
        raise TrainingStopped('the data loader has no batch: fewer images than a batch?')

    def __iter__(self):
        return self

    def __next__(self):
        if self.idle:
            self.idle -= 1
            return None
        return next(self.batches)

    def skip_iter(self, num_iters: int) -> None:
        """MMEngine 0.10.12 skips so; the order has done it."""


def untouched_batch_sampler(loader: DataLoader, cfg: Any, seed: int) -> Any:
    """The batch sampler of ``loader`` built anew; MMEngine 0.10.7 has used up some of the other.

    Args:
        loader (DataLoader): As MMEngine has built it.
        cfg (dict): Of the data loader.
        seed (int): Of the sampler.
    """
    if not isinstance(cfg, dict) or not isinstance(cfg.get('sampler'), dict):
        return loader.batch_sampler
    sampler = DATA_SAMPLERS.build(
        cfg['sampler'], default_args=dict(dataset=loader.dataset, seed=seed)
    )
    if cfg.get('batch_sampler'):
        return DATA_SAMPLERS.build(
            cfg['batch_sampler'], default_args=dict(sampler=sampler, batch_size=cfg['batch_size'])
        )
    assert loader.batch_size  # as MMEngine gives it to a loader without a batch sampler
    return BatchSampler(sampler, loader.batch_size, loader.drop_last)
