"""Faults on purpose: kills, full disks, losses that are not finite; what a resumed run equals."""
import errno
import os
import random
import signal
import time
from types import SimpleNamespace

import mmengine.runner.loops
import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch import nn

from convmlp_backbone.checkpoints import CheckpointError, enable_safe_loading
from convmlp_backbone.errors import TrainingStopped
from convmlp_backbone.hooks import AtomicBackend

EPOCH = 6  # iterations


class Noise(torch.utils.data.Dataset):
    """Samples with random numbers from all the sources that augmentations use."""

    metainfo = dict(classes=('noise',))

    def __len__(self):
        return 2 * EPOCH

    def __getitem__(self, index):
        return dict(inputs=torch.rand(4) + np.random.rand() + random.random() + index,
                    data_samples=BaseDataElement(metainfo=dict(img_path=f'{index}.jpg')))


class Toy(BaseModel):
    """Batch norm and dropout: what has statistics and draws random numbers of its own."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 1))

    def forward(self, inputs, data_samples, mode):
        return dict(loss_a=self.layers(torch.stack(inputs)).square().mean(),
                    loss_b=self.layers[0].weight.square().mean())


class At(Hook):
    """Calls ``action(runner)`` before the iteration of that number, counted from 0."""

    priority = 'HIGHEST'

    def __init__(self, iteration, action):
        self.iteration, self.action = iteration, action

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            self.action(runner)


def terminate(runner):
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def train(tmp_path, restore_loaders, monkeypatch):
    """Train the toy in a folder of that name; returns its weights."""
    enable_safe_loading()
    # MMEngine sleeps two seconds wherever a data loader starts again.
    monkeypatch.setattr(mmengine.runner.loops, 'time', SimpleNamespace(sleep=lambda _: None))

    def run(name, iter_based=False, sampler='DefaultSampler', workers=0, epochs=3, seed=None,
            hooks=(), checkpoint={}, invalid_loss={},
            accumulative_counts=1, **kwargs):
        torch.manual_seed(0)
        loop = (dict(type='IterBasedTrainLoop', max_iters=epochs * EPOCH) if iter_based
                else dict(type='EpochBasedTrainLoop', max_epochs=epochs))
        runner = Runner(
            Toy(), str(tmp_path / name), train_cfg=loop, experiment_name=f'{name}{time.time()}',
            train_dataloader=dict(
                dataset=Noise(), batch_size=2, num_workers=workers, persistent_workers=workers > 0,
                sampler=dict(type=sampler, shuffle=True), collate_fn=dict(type='pseudo_collate')),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.01),
                               accumulative_counts=accumulative_counts),
            param_scheduler=dict(type='LinearLR', begin=0, end=9, by_epoch=False),
            default_hooks=dict(
                checkpoint=dict(type='AtomicCheckpointHook', by_epoch=not iter_based,
                                interval=EPOCH if iter_based else 1, **checkpoint),
                resume=dict(type='ReproducibleResumeHook'),
                invalid_loss=dict(type='InvalidLossHook', **invalid_loss)),
            custom_hooks=list(hooks), randomness=dict(seed=seed), log_level='ERROR', **kwargs)
        runner.train()
        return {name: value.clone() for name, value in runner.model.state_dict().items()}
    return run


def assert_equal(a, b):
    assert a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


# Resume

@pytest.mark.parametrize('iteration', [EPOCH - 1, EPOCH, EPOCH + 2])
@pytest.mark.parametrize('loop', [dict(), dict(iter_based=True),
                                  dict(iter_based=True, sampler='InfiniteSampler'),
                                  dict(workers=2)], ids=str)
def test_sigterm_and_resume_equal_the_uninterrupted_run(iteration, loop, train, tmp_path):
    expected = train('whole', seed=3, **loop)
    with pytest.raises(SystemExit) as stop:
        train('killed', seed=3, hooks=[At(iteration, terminate)], **loop)
    assert stop.value.code == 128 + signal.SIGTERM
    last = (tmp_path / 'killed/last_checkpoint').read_text()
    if not (loop.get('iter_based') and iteration == EPOCH - 1):  # there a checkpoint is due anyway
        assert last == str(tmp_path / 'killed/interrupted.pth')
    # Another seed, and so another order at first: the checkpoint's is taken.
    assert_equal(train('killed', resume=True, **loop), expected)
    assert not (tmp_path / 'killed/interrupted.pth').exists()


def test_resume_from_an_epoch_with_other_workers_equals_the_uninterrupted_run(train, tmp_path):
    expected = train('run', workers=1)
    assert_equal(train('run', workers=0, resume=True,
                       load_from=str(tmp_path / 'run/epoch_1.pth')), expected)


def test_checkpoint_of_another_batch_size_starts_its_epoch_anew(train, tmp_path):
    with pytest.raises(SystemExit):
        train('run', hooks=[At(2 * EPOCH - 1, terminate)])
    checkpoint = torch.load(tmp_path / 'run/interrupted.pth', weights_only=False)
    checkpoint['meta']['iter'] += EPOCH
    torch.save(checkpoint, tmp_path / 'run/interrupted.pth')
    train('run', resume=True)
    assert torch.load(tmp_path / 'run/epoch_3.pth', weights_only=False)['meta']['iter'] == 5 * EPOCH


def test_accumulated_gradients_are_used_before_the_stop(train, tmp_path):
    with pytest.raises(SystemExit):
        train('run', hooks=[At(6, terminate)], accumulative_counts=3)
    meta = torch.load(tmp_path / 'run/interrupted.pth', weights_only=False)['meta']
    assert meta['iter'] == 9


# Writing

@pytest.mark.parametrize('fault', [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_failed_write_leaves_the_old_file_and_nothing_else(fault, tmp_path, monkeypatch):
    path = tmp_path / 'x.pth'
    AtomicBackend().put(b'old', path)

    def fail(*_):
        raise OSError(fault, os.strerror(fault))
    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(CheckpointError, match=os.strerror(fault)) as error:
        AtomicBackend().put(b'new', path)
    assert 'x.pth' in str(error.value) and '\n' not in str(error.value)
    assert path.read_bytes() == b'old' and os.listdir(tmp_path) == ['x.pth']


def test_full_disk_in_training_keeps_the_only_checkpoint(train, tmp_path, monkeypatch):
    put, fsync = AtomicBackend.put, os.fsync

    def put_first(self, obj, path):
        if 'epoch_2' in str(path):
            monkeypatch.setattr(os, 'fsync', lambda _: (_ for _ in ()).throw(OSError(28, 'full')))
        put(self, obj, path)
    monkeypatch.setattr(AtomicBackend, 'put', put_first)
    with pytest.raises(CheckpointError, match='epoch_2.pth could not be written: full'):
        train('run', seed=0, checkpoint=dict(max_keep_ckpts=1))
    monkeypatch.setattr(AtomicBackend, 'put', put)
    monkeypatch.setattr(os, 'fsync', fsync)
    work = tmp_path / 'run'
    assert [path.name for path in work.glob('*.pth*')] == ['epoch_1.pth']
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_1.pth')
    assert_equal(train('run', seed=0, resume=True), train('whole', seed=0))


def test_outdated_checkpoints_are_removed(train, tmp_path):
    train('run', epochs=4, checkpoint=dict(max_keep_ckpts=2))
    names = sorted(path.name for path in (tmp_path / 'run').glob('*.pth'))
    assert names == ['epoch_3.pth', 'epoch_4.pth']


# Loss

def poison(runner):
    """Make the next batch's first image NaN."""
    original = runner.model.forward

    def forward(inputs, **kwargs):
        runner.model.forward = original
        return original([inputs[0] * float('nan'), *inputs[1:]], **kwargs)
    runner.model.forward = forward


def test_loss_that_is_not_finite_stops_before_the_step(train, tmp_path):
    with pytest.raises(TrainingStopped) as error:
        train('nan', seed=0, hooks=[At(8, poison)])
    message = str(error.value)
    assert 'iteration 9' in message and 'loss_a=nan' in message and 'loss_b=0.' in message
    assert message.count('.jpg') == 2 and 'invalid_loss.enabled=False' in message
    good = torch.load(tmp_path / 'nan/last_good.pth', weights_only=False)
    assert good['meta']['iter'] == 8
    assert all(value.isfinite().all() for value in good['state_dict'].values())
    resumed = train('nan', resume=True, load_from=str(tmp_path / 'nan/last_good.pth'))
    assert_equal(resumed, train('whole', seed=0))


def test_opt_out_of_the_stop(train):
    weights = train('nan', hooks=[At(8, poison)], invalid_loss=dict(enabled=False))
    assert weights['layers.0.weight'].isnan().all()
