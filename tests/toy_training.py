"""A training of a second, with all that a long one has; for the tests of the hooks."""

import os
import random
import signal
import time
import traceback
from types import SimpleNamespace

import mmengine.runner.loops
import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from convmlp_backbone.checkpoints import enable_safe_loading

EPOCH = 6  # iterations


class Noise(torch.utils.data.Dataset):
    """Samples with random numbers from all the sources that augmentations use."""

    metainfo = dict(classes=('noise',))

    def __len__(self):
        return 2 * EPOCH

    def __getitem__(self, index):
        return dict(
            inputs=torch.rand(4) + np.random.rand() + random.random() + index,
            data_samples=BaseDataElement(metainfo=dict(img_path=f'{index}.jpg')),
        )

    def get_data_info(self, index):
        return dict(width=1 + index % 3, height=2)


class Log(list):
    """No plain list, which a checkpoint would hold."""


class Toy(BaseModel):
    """Batch norm and dropout: what has statistics and draws random numbers of its own.

    As YOLOX's, its data preprocessor keeps a size from one iteration to the next.
    """

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1)
        )
        self.seen = Log()
        self.resize = nn.Module()
        self.resize.size = None

    def forward(self, inputs, data_samples, mode):
        if mode != 'loss':
            return data_samples
        self.seen.append([int(sample.img_path[:-4]) for sample in data_samples])
        inputs = torch.stack(inputs) * (self.resize.size or (1, 1))[0]
        done = MessageHub.get_current_instance().get_info('iter')
        if done % 4 == 0:
            self.resize.size = (random.Random(done).random(), 1)  # the same in all processes
        return dict(
            loss_a=self.layers(inputs).square().mean(), loss_b=self.layers[0].weight.square().mean()
        )


class Scores(BaseMetric):
    """A score that first rises, then falls, by the number of iterations."""

    calls = 0

    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        Scores.calls += 1
        done = MessageHub.get_current_instance().get_info('iter') + 1
        return dict(score=-abs(done - EPOCH), other=float(done))


class At(Hook):
    """Calls ``action(runner)`` before the iteration of that number, counted from 0."""

    priority = 'HIGHEST'

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            self.action(runner)


class Crash(BaseException):
    """As sudden as SIGKILL."""


def crash(runner):
    raise Crash


def terminate(runner):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(name='train')
def training(tmp_path, restore_loaders, monkeypatch):
    """Train the toy in a folder of that name; returns its weights."""
    enable_safe_loading()
    # MMEngine sleeps two seconds wherever a data loader starts again.
    monkeypatch.setattr(mmengine.runner.loops, 'time', SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(os, 'fsync', lambda _: None)  # no power is lost here

    def run(
        name,
        iter_based=False,
        sampler='DefaultSampler',
        workers=0,
        epochs=3,
        seed=None,
        hooks=(),
        checkpoint={},
        invalid_loss={},
        accumulative_counts=1,
        batch_size=2,
        batch_sampler=None,
        optimizer={},
        optim_wrapper={},
        model=None,
        val=False,
        param_scheduler=dict(type='LinearLR', begin=0, end=9, by_epoch=False),
        log_level='ERROR',
        dataset=None,
        **kwargs,
    ):
        torch.manual_seed(0)
        length = epochs * EPOCH if iter_based else epochs
        loop = (
            dict(type='IterBasedTrainLoop', max_iters=length, val_interval=EPOCH)
            if iter_based
            else dict(type='EpochBasedTrainLoop', max_epochs=length)
        )
        loader = dict(
            dataset=dataset or Noise(),
            batch_size=batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            sampler=dict(type=sampler, shuffle=True),
            collate_fn=dict(type='pseudo_collate'),
        )
        if val:
            kwargs.update(
                val_cfg=dict(),
                val_evaluator=Evaluator(Scores()),
                val_dataloader=dict(loader, sampler=dict(type='DefaultSampler', shuffle=False)),
            )
        if batch_sampler:
            loader['batch_sampler'] = dict(type=batch_sampler)
        model = model or Toy()
        if dist.is_initialized():
            kwargs.update(
                launcher='pytorch',
                cfg=dict(
                    model_wrapper_cfg=dict(
                        type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
                    )
                ),
            )
        runner = Runner(
            model,
            str(tmp_path / name),
            train_cfg=loop,
            experiment_name=f'{name}{time.time()}',
            train_dataloader=loader,
            optim_wrapper=dict(
                optimizer=dict(dict(type='AdamW', lr=0.01, weight_decay=0.01), **optimizer),
                accumulative_counts=accumulative_counts,
                **optim_wrapper,
            ),
            param_scheduler=param_scheduler,
            default_hooks=dict(
                checkpoint=dict(
                    dict(
                        type='AtomicCheckpointHook',
                        by_epoch=not iter_based,
                        interval=EPOCH if iter_based else 1,
                    ),
                    **checkpoint,
                ),
                resume=dict(type='ReproducibleResumeHook'),
                invalid_loss=dict(type='InvalidLossHook', **invalid_loss),
            ),
            custom_hooks=list(hooks),
            randomness=dict(seed=seed),
            log_level=log_level,
            **kwargs,
        )
        run.runner = runner
        runner.train()
        return {
            name.removeprefix('module.'): value.clone()
            for name, value in runner.model.state_dict().items()
        }

    return run


def assert_equal(a, b):
    assert a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def in_processes(number, function, folder):
    """Call ``function`` in that many processes of a distributed job; returns what each returned.

    They are forked, so that they need not import anything. A process that raises is a None.
    """
    folder.mkdir()
    pids = []
    for rank in range(number):
        pid = os.fork()
        if not pid:
            try:
                os.environ['LOCAL_RANK'] = str(rank)  # MMEngine asks, also where there is no GPU
                dist.init_process_group(
                    'gloo',
                    store=dist.FileStore(str(folder / 'store'), number),
                    rank=rank,
                    world_size=number,
                )
                torch.save(function(), folder / f'{rank}.pth')
            except (Crash, SystemExit):
                pass
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        pids.append(pid)
    for pid in pids:
        os.waitpid(pid, 0)
    return [
        torch.load(path, weights_only=False) if path.exists() else None
        for path in (folder / f'{rank}.pth' for rank in range(number))
    ]
