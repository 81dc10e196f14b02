"""Checkpoints that are whole whatever happens, and a last one on SIGTERM."""
import os
import signal
from collections import deque
from functools import partial
from threading import Thread

import torch
from mmengine.dist import all_reduce, is_distributed, is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.registry import HOOKS

from ..errors import CheckpointError
from ..files import whole_file


@register_backend('atomic', force=True)
class AtomicBackend(LocalBackend):
    """Local files that are written whole or not at all, whatever dies meanwhile."""

    def put(self, obj, filepath):
        try:
            with whole_file(filepath) as part:
                part.write_bytes(obj)
        except OSError as error:
            raise CheckpointError(
                f'{filepath} could not be written: {error.strerror}; all earlier files are whole'
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
