"""Checkpoints that are whole whatever happens, and a last one on SIGTERM."""

import itertools
import multiprocessing
import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_distributed, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..checkpoints import load
from ..errors import CheckpointError
from ..files import whole_file
from .lifetime import during_training, steps_due
from .work_dir import latest_checkpoint, lock, unlock


@register_backend('atomic', force=True)
class AtomicBackend(LocalBackend):
    """Local files that are written whole or not at all, whatever dies meanwhile."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        try:
            with whole_file(filepath) as part:
                part.write_bytes(obj)
        except OSError as error:
            raise CheckpointError(
                f'{filepath} could not be written: {error.strerror}; all earlier files are whole'
            ) from error

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        self.put(obj.encode(encoding), filepath)


class _DeferredRemoval:
    """A file backend that notes what it is to remove."""

    def __init__(self, backend):
        self.backend, self.paths = backend, []

    def remove(self, path):
        self.paths.append(path)

    rmtree = remove

    def __getattr__(self, name):
        return getattr(self.backend, name)


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
    threading.Thread(target=wait, daemon=True).start()
    if worker_init_fn is not None:
        worker_init_fn(worker_id)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's CheckpointHook that never leaves a training without a whole checkpoint.

    - A checkpoint and ``last_checkpoint`` are written whole or not at all, by one training at a
      time in a work dir.
    - What is outdated is deleted after the new one is on the disk, not before; only files that
      this training has written, in its own folder.
    - SIGTERM, which Slurm sends before it kills, lets the iteration finish, writes
      ``interrupted.pth`` and ends the program with status 143. A second one, a second or more
      later, ends it at once; sooner it is the same command, which torchrun passes on as well.
    - ``resume=True`` finds the latest checkpoint even where ``last_checkpoint`` is of no use.
    - After a validation the checkpoint before it is written again, with what came of it.

    Args:
        grace (float): Seconds without an iteration after which SIGTERM ends the program as a
            second one would.
        **kwargs: Those of :class:`mmengine.hooks.CheckpointHook`.

    Raises:
        CheckpointError: A checkpoint cannot be written, for example on a full disk.
        UserError: Another process trains in the work dir.
    """

    file_backend: Any

    def __init__(
        self,
        *args: Any,
        backend_args: dict = dict(backend='atomic'),
        grace: float = 300,
        **kwargs: Any,
    ):
        super().__init__(*args, backend_args=backend_args, **kwargs)
        self.grace = grace
        self.terminated = False
        self.alive = self.asked = 0.0  # when the last iteration ended, when SIGTERM came
        # How many iterations the last checkpoint has seen, and its path.
        self.saved: tuple[int | None, str] = None, ''
        self.written: set[str] = set()
        self.outdated: list[str] = []
        self.read_back = False
        self.previous_handler: Any = signal.SIG_DFL
        self.ended: threading.Event | None = None  # while a training lasts

    def before_run(self, runner: Runner) -> None:
        if runner._resume and runner._load_from is None:
            runner._load_from = latest_checkpoint(runner.work_dir)
            if runner._load_from is None:
                runner.logger.warning(
                    f'Nothing to resume in {runner.work_dir}: training starts anew'
                )
        during_training(runner, self._guard(runner))

    @contextmanager
    def _guard(self, runner):
        """The lock on the work dir, and SIGTERM's handler."""
        self.terminated, self.ended = False, threading.Event()
        # Elsewhere than in the main thread Python takes no handlers.
        handled = threading.current_thread() is threading.main_thread()
        if is_main_process():
            lock(runner.work_dir)
        try:
            if handled:
                self.previous_handler = signal.signal(signal.SIGTERM, self._on_sigterm)
            yield
        finally:
            self.ended.set()
            self.ended = None
            if handled:
                signal.signal(signal.SIGTERM, self.previous_handler or signal.SIG_DFL)
            if is_main_process():
                unlock(runner.work_dir)

    def _on_sigterm(self, *_):
        if self.terminated:
            if time.monotonic() - self.asked >= min(1, self.grace):
                self._end_workers()
                raise SystemExit(128 + signal.SIGTERM)
        else:
            self.terminated, self.alive = True, time.monotonic()
            self.asked = self.alive
            threading.Thread(target=self._watch, args=[self.ended], daemon=True).start()
            if is_main_process():
                print(
                    'SIGTERM: finishing the iteration, then writing a checkpoint; another one '
                    'ends at once',
                    flush=True,
                )

    def _watch(self, ended):
        """End a training whose data, or whose other processes, do not come."""
        while not ended.wait(min(1, self.grace)):
            if time.monotonic() - self.alive > self.grace:
                os.kill(os.getpid(), signal.SIGTERM)  # wakes the main thread
                if not ended.wait(10):  # it does not come back from C
                    self._end_workers()
                    os._exit(128 + signal.SIGTERM)

    @staticmethod
    def _end_workers() -> None:
        """Data workers may not come back either, and Python would wait for them."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # PyTorch's raises
        for child in multiprocessing.active_children():
            child.kill()

    def before_train(self, runner: Runner) -> None:
        info, keys = (
            runner.message_hub.runtime_info,
            ['best_ckpt', *(f'best_ckpt_{key}' for key in getattr(self, 'key_indicators', ()))],
        )
        # They are a file's: MMEngine would delete what they name.
        ids = info.pop('keep_ckpt_ids', ())
        best = {key: info.pop(key, None) for key in keys}
        super().before_train(runner)
        self.keep_ckpt_ids: deque[int] = deque()
        source = runner._resume and runner._load_from
        if source and os.path.dirname(os.path.realpath(source)) == os.path.realpath(self.out_dir):
            self.saved = runner.iter, os.path.join(self.out_dir, os.path.basename(source))
            self.written.add(self.saved[1])
            self.keep_ckpt_ids.extend(i for i in ids if type(i) is int)
            self.written.update(map(self._path, self.keep_ckpt_ids))
            for key, path in best.items():
                self._inherit_best(info, key, path)
        for loop in filter(None, (runner.train_loop, runner.val_loop)):
            loop.dataloader.worker_init_fn = partial(
                _keep_from_strangers, loop.dataloader.worker_init_fn
            )

    def _inherit_best(self, info, key, path):
        """Take up a best checkpoint that this hook may have written, wherever the folder was."""
        name = os.path.basename(path) if isinstance(path, str) else ''
        number = re.sub(r'\\{.*?\\}', r'\\d+', re.escape(self.filename_tmpl))
        if self.save_best and re.fullmatch(f'best_.+_{number}', name):
            info[key] = path = os.path.join(self.out_dir, name)
            self.written.add(path)
            if key == 'best_ckpt':
                self.best_ckpt_path = path
            else:
                self.best_ckpt_path_dict[key.removeprefix('best_ckpt_')] = path

    def _path(self, number):
        return self.file_backend.join_path(self.out_dir, self.filename_tmpl.format(number))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        self.alive = time.monotonic()
        # The processes must stop after the same iteration: one would wait for the other in vain.
        terminated = torch.tensor(float(self.terminated))
        if is_distributed():
            all_reduce(terminated, 'max')
        # Not amid the iterations whose gradients are accumulated: they would have to be saved too.
        if terminated and not steps_due(runner):
            self._interrupt(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        self.alive = time.monotonic()
        # A checkpoint in here would hold the weights of EMAHook in the wrong place.
        if self.terminated and self.saved[0] == runner.iter:
            self._exit(runner)

    def after_val(self, runner: Runner) -> None:
        """Write the checkpoint before the validation again: schedules and hooks have gone on."""
        if self.ended is None:  # no training
            return
        meta = dict(epoch=runner.epoch, iter=runner.iter)
        if self.saved[0] == runner.iter:
            self._save(runner, self.saved[1], meta)
        self._remove(self.outdated)
        self.outdated = []
        terminated = torch.tensor(float(self.terminated))
        if is_distributed():
            all_reduce(terminated, 'max')
        if terminated:
            self._interrupt(runner, meta)

    def _interrupt(self, runner, meta):
        if self.saved[0] != meta['iter']:
            self._save(runner, os.path.join(self.out_dir, 'interrupted.pth'), meta)
        self._exit(runner)

    def _exit(self, runner):
        if is_main_process():
            runner.logger.warning(
                f'SIGTERM: stopped after iteration {self.saved[0]}; --resume goes on from there'
            )
        raise SystemExit(128 + signal.SIGTERM)

    def _save(self, runner, path, meta):
        folder, name = os.path.split(path)
        runner.call_hook('before_save_everywhere')
        runner.save_checkpoint(
            folder,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
        )
        self.saved = meta['iter'], path
        self.written.add(path)
        if is_main_process():
            AtomicBackend().put_text(path, os.path.join(runner.work_dir, 'last_checkpoint'))
            if not (self.read_back or self.terminated):  # then there is no time for it
                self._read_back(runner, path)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Leave out functions of schedulers: they are the config's, and no file may hold code."""
        states = checkpoint.get('param_schedulers') or []
        if isinstance(states, dict):  # of several optimizers
            states = itertools.chain.from_iterable(states.values())
        for state in states:
            for key in [key for key, value in state.items() if callable(value)]:
                del state[key]

    def _read_back(self, runner, path):
        """Tell, at the first checkpoint, whether it can be resumed from; not after days."""
        self.read_back = True
        try:
            load(path)
        except CheckpointError as error:
            runner.logger.warning(f'This training cannot be resumed as it is: {error}')

    def _save_checkpoint_with_step(self, runner, step, meta):
        # Where this training went on from it, or had to stop and was not stopped.
        outdated = [path for path in self.written if path.endswith('interrupted.pth')]
        if self.max_keep_ckpts > 0:
            kept = [number for number in self.keep_ckpt_ids if number != step] + [step]
            outdated += map(self._path, kept[: -self.max_keep_ckpts])
            self.keep_ckpt_ids = deque(kept[-self.max_keep_ckpts :])
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self.last_ckpt = self._path(step)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        self._save(runner, self.last_ckpt, meta)
        self._remove(outdated)

    def _save_best_checkpoint(self, runner, metrics):
        # MMEngine deletes the best checkpoint that it knows of before it writes a better one, and
        # writes the last one again, as after_val() does.
        backend, last = self.file_backend, self.last_ckpt
        self.file_backend, self.last_ckpt = _DeferredRemoval(backend), None
        try:
            super()._save_best_checkpoint(runner, metrics)
            self.outdated += self.file_backend.paths
        finally:
            self.file_backend, self.last_ckpt = backend, last
        best = {
            getattr(self, 'best_ckpt_path', None),
            *getattr(self, 'best_ckpt_path_dict', {}).values(),
        }
        self.outdated = [path for path in self.outdated if path not in best]
        self.written |= best - {None}

    def _remove(self, paths):
        """Delete files, if they are of this training."""
        for path in paths if is_main_process() else ():
            if path in self.written and self.file_backend.isfile(path):
                self.file_backend.remove(path)
        self.written.difference_update(paths)


def _handling_hook() -> AtomicCheckpointHook | None:
    """The hook whose handler SIGTERM has."""
    hook = getattr(signal.getsignal(signal.SIGTERM), '__self__', None)
    return hook if isinstance(hook, AtomicCheckpointHook) else None


class _Fork(threading.local):
    """In a forked process, as multiprocessing.Pool makes them, SIGTERM is none of ours.

    A handler that finds out itself is not enough: one of Python's does not run in a process that
    begins to wait as the signal comes, and Pool would wait for that one for ever. Nor may the
    signal come before the handler is gone: Python forgets what came until then.
    """

    mask: set | None = None

    def before(self):
        if _handling_hook():
            self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def in_parent(self):
        if self.mask is not None:
            mask, self.mask = self.mask, None
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def in_child(self):
        if hook := _handling_hook():
            signal.signal(signal.SIGTERM, hook.previous_handler or signal.SIG_DFL)
        self.in_parent()


_fork = _Fork()
os.register_at_fork(
    before=_fork.before, after_in_parent=_fork.in_parent, after_in_child=_fork.in_child
)
