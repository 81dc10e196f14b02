"""Hooks for long trainings: whole checkpoints, exact resume, a stop where the loss is not finite.

They stand on MMEngine's root registry, so that any toolbox's config can name them; the shipped
configs do, in ``_base_/runtime.py``.
"""
import os
import random
import signal
from collections import deque
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Thread

import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    broadcast_object_list,
    get_dist_info,
    is_distributed,
    is_main_process,
)
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from .safe_load import CheckpointError


class TrainingStopped(RuntimeError):
    """Training cannot go on for a reason that the user can mend; the message is one line."""


@register_backend('atomic', force=True)
class AtomicBackend(LocalBackend):
    """Local files that are written whole or not at all, whatever dies meanwhile."""

    def put(self, obj, filepath):
        path = Path(filepath)
        part = path.with_name(f'{path.name}.part')
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, 'wb') as file:
                file.write(obj)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            folder = os.open(path.parent, os.O_RDONLY)
            os.fsync(folder)  # else the new name may be lost with the power
            os.close(folder)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            raise CheckpointError(
                f'{path} could not be written: {error.strerror}; all earlier files are whole'
            ) from error

    def put_text(self, obj, filepath, encoding='utf-8'):
        self.put(obj.encode(encoding), filepath)


def _keep_from_strangers(worker_init_fn, worker_id):
    """Let only the training process terminate this data worker.

    Slurm sends SIGTERM to all processes of a job; without its workers the training process could
    not finish the iteration.
    """
    def wait():
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    Thread(target=wait, daemon=True).start()
    if worker_init_fn is not None:
        worker_init_fn(worker_id)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook that never leaves a training without a whole checkpoint.

    - A checkpoint and ``last_checkpoint`` are written whole or not at all.
    - What is outdated is deleted after the new one is on the disk, not before.
    - SIGTERM, which Slurm sends before it kills, lets the iteration finish, writes
      ``interrupted.pth`` and ends the program with status 143.

    Args:
        Those of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        CheckpointError: A checkpoint cannot be written, for example on a full disk.
    """

    def __init__(self, *args, backend_args=dict(backend='atomic'), **kwargs):
        super().__init__(*args, backend_args=backend_args, **kwargs)
        self.terminated = False
        self.saved_iter = None  # how many iterations the last checkpoint has seen

    def before_train(self, runner):
        super().before_train(runner)
        self.interrupted = os.path.join(self.out_dir, 'interrupted.pth')
        signal.signal(signal.SIGTERM, self._on_sigterm)
        for loop in filter(None, (runner.train_loop, runner.val_loop)):
            loop.dataloader.worker_init_fn = partial(
                _keep_from_strangers, loop.dataloader.worker_init_fn)

    def after_train(self, runner):
        super().after_train(runner)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def _on_sigterm(self, *_):
        self.terminated = True
        if is_main_process():
            print('SIGTERM: finishing the iteration, then writing a checkpoint', flush=True)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        # The processes must stop after the same iteration: one would wait for the other in vain.
        terminated = torch.tensor(float(self.terminated))
        if is_distributed():
            all_reduce(terminated, 'max')
        # Not amid the iterations whose gradients are accumulated: a checkpoint has none.
        if not terminated or not runner.optim_wrapper.should_update():
            return
        done = runner.iter + 1
        if self.saved_iter != done:
            self._save(runner, self.interrupted, dict(epoch=runner.epoch, iter=done))
        self._exit(runner)

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        # A checkpoint in here would hold the weights of EMAHook in the wrong place.
        if self.terminated and self.saved_iter == runner.iter:
            self._exit(runner)

    def _exit(self, runner):
        if is_main_process():
            runner.logger.warning(
                f'SIGTERM: stopped after iteration {self.saved_iter}; --resume goes on from there')
        raise SystemExit(128 + signal.SIGTERM)

    def _save(self, runner, path, meta):
        folder, name = os.path.split(path)
        runner.save_checkpoint(
            folder, name, save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler, meta=meta, by_epoch=self.by_epoch,
            backend_args=self.backend_args)
        self.saved_iter = meta['iter']
        if is_main_process():
            AtomicBackend().put_text(path, os.path.join(runner.work_dir, 'last_checkpoint'))

    def _save_checkpoint_with_step(self, runner, step, meta):
        def path(number):
            return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(number))

        outdated = [self.interrupted]
        if self.max_keep_ckpts > 0:
            kept = [number for number in self.keep_ckpt_ids if number != step] + [step]
            outdated += map(path, kept[:-self.max_keep_ckpts])
            self.keep_ckpt_ids = deque(kept[-self.max_keep_ckpts:], self.max_keep_ckpts)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._save(runner, self.last_ckpt, meta)
        self._remove(outdated)

    def _save_best_checkpoint(self, runner, metrics):
        # MMEngine deletes the best checkpoint that it knows of before it writes a better one.
        previous, self.best_ckpt_path = getattr(self, 'best_ckpt_path', None), None
        super()._save_best_checkpoint(runner, metrics)
        if self.best_ckpt_path is None:
            self.best_ckpt_path = previous
        elif previous not in (None, self.best_ckpt_path):
            self._remove([previous])

    def _remove(self, paths):
        for path in paths if is_main_process() else ():
            if self.file_backend.isfile(path):
                self.file_backend.remove(path)


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


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Stop where the loss is NaN or infinite, before the step that would spoil the weights.

    The weights before it are saved as ``last_good.pth``.

    Args:
        enabled (bool): False: train on regardless.

    Raises:
        TrainingStopped: Tells the iteration, the terms of the loss and the images.
    """

    def __init__(self, enabled=True):
        self.enabled = enabled

    def before_train(self, runner):
        self.model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if self.enabled:
            self.model.parse_losses = partial(self._parse_losses, runner, self.model.parse_losses)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.batch = data_batch
        # The forward pass may already carry a NaN into the running statistics.
        self.buffers = [buffer.clone() for buffer in self.model.buffers()]

    def _parse_losses(self, runner, parse_losses, losses):
        loss, terms = parse_losses(losses)
        finite = loss.detach().isfinite().float()
        everywhere = finite.clone()
        if is_distributed():
            all_reduce(everywhere, 'min')
        if everywhere:
            return loss, terms
        for buffer, kept in zip(self.model.buffers(), self.buffers, strict=True):
            buffer.copy_(kept)
        path = os.path.join(runner.work_dir, 'last_good.pth')
        runner.save_checkpoint(runner.work_dir, 'last_good.pth', by_epoch=False,
                               meta=dict(epoch=runner.epoch, iter=runner.iter),
                               backend_args=dict(backend='atomic'))
        own = '' if finite else '; '.join((
            ', '.join(f'{name}={value.item():.4g}' for name, value in terms.items()),
            f'images: {", ".join(image_names(self.batch))}'))
        if not is_main_process():
            all_gather_object(own)
            raise SystemExit(1)
        raise TrainingStopped(
            f'the loss of iteration {runner.iter + 1} is not finite: '
            f'{"; ".join(filter(None, all_gather_object(own)))}. The weights before it: {path}. To '
            'train on regardless: --cfg-options default_hooks.invalid_loss.enabled=False')


def image_names(batch):
    """The paths, or else the numbers in the data set, of the images of a batch."""
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    return [str(sample.metainfo.get('img_path', sample.metainfo.get('sample_idx', '?')))
            for sample in samples or ()]
