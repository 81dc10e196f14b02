"""Resumed trainings that equal uninterrupted ones."""

import copy
from collections import Counter
from typing import Any

from mmengine.dist import all_gather, broadcast_object_list, get_dist_info
from mmengine.hooks import (
    CheckpointHook,
    DistSamplerSeedHook,
    EarlyStoppingHook,
    Hook,
    IterTimerHook,
    LoggerHook,
    ParamSchedulerHook,
    RuntimeInfoHook,
)
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import BaseLoop, Runner
from torch import Tensor, nn

from ..checkpoints import mismatches
from ..errors import TrainingStopped
from .lifetime import steps_due
from .order import Endless, Order, is_exact, random_seed, seed_all, untouched_batch_sampler
from .settings import WAY_OUT, adopt, plain, settings

STATE = 'training_state'  # the entry of a checkpoint
# They count nothing that the training depends on, or MMEngine keeps it itself.
STATELESS = (
    CheckpointHook,
    DistSamplerSeedHook,
    IterTimerHook,
    LoggerHook,
    ParamSchedulerHook,
    RuntimeInfoHook,
)


@HOOKS.register_module()
class ReproducibleResumeHook(Hook):
    """A training resumed from any checkpoint equals the uninterrupted one, bit by bit.

    To that end, all random numbers, of the model and of every sample, depend on nothing but the
    seed in the checkpoint and the place in the training, neither on the data workers nor on their
    number; an epoch of which a part is done goes on where it was; and checkpoints hold what
    MMEngine's do not: accumulated gradients, what modules and hooks count, and whether the
    validation that is due has been.

    Where the config is another than the checkpoint's, one line tells what of both holds.

    Raises:
        TrainingStopped: The checkpoint cannot be resumed with this config.
    """

    priority = 'LOWEST'

    def before_run(self, runner: Runner) -> None:
        self.state: dict[str, Any] = {}
        self.place: dict[str, Any] = {}  # where the training goes on
        self.gradients: dict[str, list[Tensor]] = {}
        self.validated: int | None = None
        if isinstance(getattr(runner, '_train_loop', None), BaseLoop):
            self.settings = settings(runner)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Make the checkpoint agree with the config, before MMEngine takes up what is in it."""
        if not runner._resume:
            return
        weights = {name.removeprefix('module.'): v for name, v in checkpoint['state_dict'].items()}
        if wrong := mismatches(_unwrapped(runner), weights):
            raise TrainingStopped(
                f'the checkpoint is of another network: {"; ".join(wrong[:3])}'
                f'{" ..." if len(wrong) > 3 else ""}: {WAY_OUT}'
            )
        meta, info = checkpoint['meta'], checkpoint['message_hub']['runtime_info']
        state = checkpoint.get(STATE)
        self.state = state = state if isinstance(state, dict) else dict(validated=meta['iter'])
        state['pending'] = state['validated'] != meta['iter']
        length, count = _epoch_length(runner), meta['iter']
        news = self._move(runner, state.get('place'), meta)
        news += adopt(
            runner,
            self.settings,
            checkpoint,
            state.get('settings', {}),
            dict(
                iters=runner.max_iters,
                epochs=runner.max_epochs,
                epoch=length,
                old_iters=info.get('max_iters'),
                old_epochs=info.get('max_epochs'),
            ),
            meta['iter'],
            meta['epoch'],
            meta['iter'] != count,
        )
        seed = runner._randomness_cfg.get('seed')
        if seed not in (None, meta.get('seed')):
            news.append(f"randomness.seed stays {meta.get('seed')}, the checkpoint's")
        if news:
            runner.logger.warning(
                f'The checkpoint was made with another config. The config holds: {"; ".join(news)}'
            )

    def _move(self, runner, place, meta):
        """Find where the training goes on; returns what is to be told if not exactly there.

        Args:
            runner (Runner): Its data loader is what counts now.
            place (dict | None): Of the checkpoint; None if MMEngine alone has written it.
            meta (dict): Of the checkpoint; ``iter`` becomes what this data loader would count.
        """
        batches, length = runner.train_dataloader.batch_sampler, _epoch_length(runner)
        here = dict(
            batch_size=batches.batch_size,
            processes=get_dist_info()[1],
            samples=len(runner.train_dataloader.dataset),
        )
        if place is None or place['iter'] != meta['iter']:
            # The sampler may never end.
            per_epoch = len(batches) if length or not hasattr(batches.sampler, 'indices') else 0
            epoch = meta['epoch'] if length else meta['iter'] // per_epoch if per_epoch else 0
            done = meta['iter'] - epoch * per_epoch
            fits = not per_epoch or 0 <= done <= per_epoch
            self.place = dict(here, epoch=epoch, start=0, done=done if fits else 0)
            return (
                []
                if fits
                else [
                    'the batch size or the data set is another: epoch '
                    f'{epoch + 1} starts at its beginning'
                ]
            )
        changed = [f'{key} {place[key]} -> {here[key]}' for key in here if place[key] != here[key]]
        self.place = {**place, **here}
        if not changed:
            return []
        seen = place['start']
        if place['done']:
            seen += place['done'] * place['batch_size'] * place['processes']
        if place['samples'] != here['samples']:
            seen = 0
        self.place.update(start=seen, done=0)
        if length:
            meta['iter'] = meta['epoch'] * length
            if seen:
                meta['iter'] += seen // (here['batch_size'] * here['processes'])
        if self.state.pop('gradients', None):
            changed.append('gradients accumulated since the last step left out')
        where = f'epoch {place["epoch"] + 1}'
        if place['done'] and not seen:
            return [*changed, f'{where} starts at its beginning']
        samples = (
            'the same samples in the same order'
            if is_exact(batches)
            else ('as many samples done, some may come twice or not at all')
        )
        return [*changed, f'from sample {seen + 1} of {where} on, {samples}']

    def before_train(self, runner: Runner) -> None:
        seed, (self.rank, processes) = [runner.seed], get_dist_info()
        broadcast_object_list(seed)  # the first process's, as its checkpoint has it
        self.seed = seed[0]
        loop, loader = runner.train_loop, runner.train_dataloader
        if not self.place:
            self._move(runner, None, dict(epoch=runner.epoch, iter=runner.iter))
        if not _epoch_length(runner):
            batches = untouched_batch_sampler(loader, runner._train_dataloader, self.seed)
            if type(loader.sampler) is type(batches.sampler):
                object.__setattr__(loader, 'sampler', batches.sampler)
            object.__setattr__(loader, 'batch_sampler', batches)
            loader._iterator = None  # persistent workers would go on with the old one
        # MMEngine draws the sampler's seed before it has read the checkpoint.
        for sampler in self._samplers(loader):
            if hasattr(sampler, 'seed'):
                sampler.seed = self.seed
        self.order = Order(loader, self.seed)
        self._begin(runner)
        if not _epoch_length(runner):
            loop.dataloader_iterator = Endless(
                loader,
                lambda: self._next_epoch(runner),
                idle=0 if hasattr(loop.dataloader_iterator, 'skip_iter') else runner.iter,
            )
        self._restore(runner, processes)
        if self.state.get('pending') and _validation_due(runner, self.place['done']):
            runner.logger.info('The checkpoint was written before its validation: that first')
            runner.val_loop.run()

    def _restore(self, runner, processes):
        """Take up what MMEngine leaves behind."""
        gradients = self.state.pop('gradients', {})
        if any(len(parts) != processes for parts in gradients.values()):
            gradients = {}
        for name, parameter in _unwrapped(runner).named_parameters():
            if name in gradients:
                parameter.grad = gradients[name][self.rank].to(parameter)
        self.pristine = {}
        for name, owner in _counting(runner):
            self.pristine[name] = known = _counts(owner)
            for key, value in self.state.get('counts', {}).get(name, {}).items():
                if key in known:
                    setattr(owner, key, value)
        self.validated = self.state.get('validated')
        if self.state.get('stopped') and any(
            isinstance(hook, EarlyStoppingHook) for hook in runner.hooks
        ):
            runner.train_loop.stop_training = True
            runner.logger.warning(
                'EarlyStoppingHook has ended this training; to go on, leave the '
                'hook out of the config'
            )

    def _samplers(self, loader):
        return loader.sampler, getattr(loader.batch_sampler, 'sampler', None)

    def _begin(self, runner):
        self.first = runner.iter - self.place['done']  # the first iteration of the epoch
        self.order.at(*(self.place[key] for key in ('epoch', 'start', 'done')))

    def _next_epoch(self, runner):
        """Of the data, in a training that counts iterations."""
        self.place.update(epoch=self.place['epoch'] + 1, start=0, done=0)
        self._begin(runner)
        self._set_epoch(runner)

    def _set_epoch(self, runner):
        for sampler in self._samplers(runner.train_dataloader):
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(self.place['epoch'])

    def before_train_epoch(self, runner: Runner) -> None:
        if not _epoch_length(runner):
            self._set_epoch(runner)  # MMEngine has set the first one
            return
        if self.place['epoch'] != runner.epoch:
            self.place.update(epoch=runner.epoch, start=0, done=0)
        self._begin(runner)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        seed_all(random_seed(self.seed, runner.iter, 0, self.rank))

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        self.validated = runner.iter

    # Save

    def before_save_everywhere(self, runner: Runner) -> None:
        """Gather the gradients that wait for the next step; in all processes."""
        self.gradients = {}
        for name, parameter in _unwrapped(runner).named_parameters() if steps_due(runner) else ():
            if parameter.grad is not None:
                self.gradients[name] = [part.cpu() for part in all_gather(parameter.grad)]

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not hasattr(self, 'pristine'):
            return
        meta, place = checkpoint['meta'], self.place
        if _epoch_length(runner) and meta['epoch'] != place['epoch']:
            place = dict(place, epoch=meta['epoch'], start=0, done=0)
        else:
            place = dict(place, done=meta['iter'] - self.first)
        place['iter'] = meta['iter']
        counts = {}
        for name, owner in _counting(runner):
            old = self.pristine.get(name, {})
            new = {k: v for k, v in _counts(owner).items() if k in old and v != old[k]}
            if new:
                counts[name] = new
        checkpoint[STATE] = dict(
            place=place,
            settings=self.settings,
            counts=counts,
            validated=self.validated,
            gradients=self.gradients,
            stopped=bool(getattr(runner.train_loop, 'stop_training', 0)),
        )
        self.gradients = {}


def _unwrapped(runner):
    return runner.model.module if is_model_wrapper(runner.model) else runner.model


def _epoch_length(runner):
    """The iterations of an epoch; 0 where MMEngine counts iterations only."""
    loop = runner.train_loop
    return 0 if hasattr(loop, 'dataloader_iterator') else len(loop.dataloader.batch_sampler)


def _validation_due(runner, amid_epoch):
    """Whether MMEngine would validate before the next iteration."""
    loop, now = runner.train_loop, runner.epoch if _epoch_length(runner) else runner.iter
    if runner.val_loop is None or not now or _epoch_length(runner) and amid_epoch:
        return False
    if hasattr(loop, '_decide_current_val_interval'):
        loop._decide_current_val_interval()
    end = loop.max_epochs if _epoch_length(runner) else loop.max_iters
    return now >= loop.val_begin and (now % loop.val_interval == 0 or now == end)


def _counting(runner):
    """Everything, by a name of its own, that may count outside of the model's state_dict."""
    for name, module in _unwrapped(runner).named_modules():
        yield f'model.{name}', module
    number: Counter[str] = Counter()
    for hook in runner.hooks:
        if not isinstance(hook, (*STATELESS, ReproducibleResumeHook)):
            kind = type(hook).__name__
            yield f'{kind}.{number[kind]}', hook
            number[kind] += 1


def _counts(owner):
    """Plain attributes; of a hook only numbers, since its flags tell what it has done to others."""
    values = copy.deepcopy(plain(vars(owner)))
    if isinstance(owner, nn.Module):
        return {k: v for k, v in values.items() if k != 'training'}
    return {k: v for k, v in values.items() if type(v) in (int, float)}
