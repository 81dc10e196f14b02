"""Resumed trainings that equal uninterrupted ones."""
import random
from functools import partial
from itertools import islice

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import broadcast_object_list, get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


def random_seed(*numbers):
    """A seed of 32 bits that depends on all the ``numbers``."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seed_all(seed):
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


class NumberedBatches:
    """A batch sampler that counts the iterations, and gives a sample's seed along with its index.

    The seed depends on the sample's place in the batch of all processes, so two processes draw
    the same numbers as one with a batch of twice the size.
    """

    def __init__(self, batch_sampler, seed):
        self.batch_sampler, self.seed = batch_sampler, seed
        self.iteration = self.skip = 0

    def __len__(self):
        return len(self.batch_sampler)

    def __getattr__(self, name):
        return getattr(self.__dict__['batch_sampler'], name)

    def __iter__(self):
        rank, world_size = get_dist_info()
        skip, self.skip = self.skip, 0
        for batch in islice(self.batch_sampler, skip, None):
            yield [(index, random_seed(self.seed, self.iteration, 1, i * world_size + rank))
                   for i, index in enumerate(batch)]
            self.iteration += 1


@HOOKS.register_module()
class ReproducibleResumeHook(Hook):
    """A training resumed from any checkpoint equals the uninterrupted one, bit by bit.

    To that end, all random numbers, of the model and of every sample, depend on nothing but the
    seed in the checkpoint and the number of the iteration, neither on the data workers nor on
    their number; and an epoch of which a part is done goes on where it was.
    """

    def before_train(self, runner):
        loader = runner.train_dataloader
        seed = [runner.seed]
        broadcast_object_list(seed)  # the first process's, as its checkpoint has it
        self.seed, self.rank = seed[0], get_dist_info()[0]
        # MMEngine draws the sampler's seed before it has read the checkpoint.
        for sampler in (loader.sampler, loader.batch_sampler.sampler):
            if hasattr(sampler, 'seed'):
                sampler.seed = self.seed
        self.batches = NumberedBatches(loader.batch_sampler, self.seed)
        object.__setattr__(loader, 'batch_sampler', self.batches)  # DataLoader itself refuses
        loader.dataset.__getitems__ = partial(_seeded_samples, loader.dataset)
        if hasattr(runner.train_loop, 'dataloader_iterator'):
            # MMEngine 0.10.7 has started the old one, without the seeds; ending it ends the
            # sampler's only stream of indices, and persistent workers would go on with it.
            loader._iterator = None
            if hasattr(loader.sampler, '_indices_of_rank'):
                loader.sampler.indices = loader.sampler._indices_of_rank()
            iterator = type(runner.train_loop.dataloader_iterator)(loader)
            if isinstance(loader.sampler, InfiniteSampler):
                # MMEngine 0.10.12 would skip within the sampler, unseen by the count.
                iterator.skip_iter = self._skip
            runner.train_loop.dataloader_iterator = iterator

    def _skip(self, batches):
        self.batches.skip = self.batches.iteration = batches

    def before_train_epoch(self, runner):
        if hasattr(runner.train_loop, 'dataloader_iterator'):
            return
        done = runner.iter - runner.epoch * len(self.batches)
        if not 0 <= done <= len(self.batches):
            runner.logger.warning('The checkpoint is of another batch size or data set: '
                                  f'epoch {runner.epoch + 1} starts at its beginning')
            done = 0
        self.batches.skip, self.batches.iteration = done, runner.iter

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        seed_all(random_seed(self.seed, runner.iter, 0, self.rank))
