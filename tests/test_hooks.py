"""Faults on purpose: signals, full disks, losses and gradients that are not finite."""

import copy
import errno
import io
import multiprocessing
import os
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from mmengine.hooks import Hook
from toy_training import (  # noqa: F401
    EPOCH,
    At,
    Crash,
    Noise,
    Toy,
    assert_equal,
    crash,
    terminate,
    training,
)

from convmlp_backbone.checkpoints import CheckpointError
from convmlp_backbone.errors import TrainingStopped
from convmlp_backbone.hooks import AtomicBackend, AtomicCheckpointHook

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


def fill_disk(monkeypatch, name):
    """No room for the file of that name."""
    put, fsync = AtomicBackend.put, os.fsync

    def full(_):
        raise OSError(28, 'full')

    def put_or_fail(self, obj, path):
        monkeypatch.setattr(os, 'fsync', full if name in str(path) else fsync)
        put(self, obj, path)

    monkeypatch.setattr(AtomicBackend, 'put', put_or_fail)


def test_full_disk_in_training_keeps_the_only_checkpoint(train, tmp_path, monkeypatch):
    put, fsync = AtomicBackend.put, os.fsync
    fill_disk(monkeypatch, 'epoch_2')
    with pytest.raises(CheckpointError, match='epoch_2.pth could not be written: full'):
        train('run', seed=0, checkpoint=dict(max_keep_ckpts=1))
    monkeypatch.setattr(AtomicBackend, 'put', put)
    monkeypatch.setattr(os, 'fsync', fsync)
    work = tmp_path / 'run'
    assert [path.name for path in work.glob('*.pth*')] == ['epoch_1.pth']
    assert (work / 'last_checkpoint').read_text() == str(work / 'epoch_1.pth')
    assert_equal(train('run', seed=0, resume=True), train('whole', seed=0))


BEST = dict(save_best=['score', 'other'], rule='greater', max_keep_ckpts=1)


def best(folder):
    return sorted(path.name for path in folder.glob('best_*'))


def test_full_disk_keeps_the_best_of_every_metric(train, tmp_path, monkeypatch):
    fill_disk(monkeypatch, 'best_other_epoch_2')
    with pytest.raises(CheckpointError, match='best_other_epoch_2.pth could not be written: full'):
        train('run', val=True, checkpoint=BEST)
    assert best(tmp_path / 'run') == ['best_other_epoch_1.pth', 'best_score_epoch_1.pth']


def test_best_checkpoints_are_replaced_also_after_a_move(train, tmp_path):
    train('run', val=True, checkpoint=BEST, epochs=2)
    (tmp_path / 'run').rename(tmp_path / 'moved')
    train('moved', val=True, checkpoint=BEST, resume=True)
    assert best(tmp_path / 'moved') == ['best_other_epoch_3.pth', 'best_score_epoch_1.pth']
    assert {path.name for path in (tmp_path / 'moved').glob('*.pth')} == {
        'epoch_3.pth',
        *best(tmp_path / 'moved'),
    }


def test_only_own_files_are_deleted(train, tmp_path):
    """Neither another training's, from which this one goes on, nor what a file names."""
    train('a', val=True, checkpoint=BEST, epochs=2)
    kept = sorted(os.listdir(tmp_path / 'a'))
    (tmp_path / 'b').mkdir()
    for name in ('epoch_1.pth', 'epoch_2.pth', 'interrupted.pth', 'best_other_epoch_2.pth'):
        (tmp_path / 'b' / name).write_text("another training's")
    train('b', val=True, checkpoint=BEST, resume=True, load_from=str(tmp_path / 'a/epoch_2.pth'))
    assert sorted(os.listdir(tmp_path / 'a')) == kept
    assert {
        'epoch_1.pth',
        'epoch_2.pth',
        'interrupted.pth',
        'best_other_epoch_2.pth',
        'epoch_3.pth',
    } <= set(os.listdir(tmp_path / 'b'))

    (tmp_path / 'victim').mkdir()
    (tmp_path / 'victim/file').touch()
    (tmp_path / 'a/notes.pth').touch()
    checkpoint = torch.load(tmp_path / 'a/epoch_2.pth', weights_only=False)
    info = checkpoint['message_hub']['runtime_info']
    info.update(
        best_ckpt_score=str(tmp_path / 'victim'),
        best_score_score=-99,
        best_ckpt_other=str(tmp_path / 'a/notes.pth'),
        keep_ckpt_ids=['../victim/file', '../../x', None, 2.5],
    )
    torch.save(checkpoint, tmp_path / 'a/epoch_2.pth')
    train('a', val=True, checkpoint=BEST, resume=True)
    assert (tmp_path / 'victim/file').exists() and (tmp_path / 'a/notes.pth').exists()


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


PRECISIONS = dict(argvalues=[{}, dict(type='CPUAmpOptimWrapper')], ids=['float32', 'amp'])


@pytest.mark.parametrize('wrapper', **PRECISIONS)
def test_loss_that_is_not_finite_stops_before_the_step(wrapper, train, tmp_path):
    train = partial(train, optim_wrapper=wrapper)
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


class NaNGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * float('nan')


def poison_gradient(runner):
    """Let the next batch have a finite loss with a gradient that is not."""
    original = runner.model.forward

    def forward(inputs, **kwargs):
        runner.model.forward = original
        return {name: NaNGradient.apply(loss) for name, loss in original(inputs, **kwargs).items()}

    runner.model.forward = forward


def finite(path):
    weights = torch.load(path, weights_only=False)['state_dict']
    return all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize('iteration', [2 * EPOCH - 1, 2 * EPOCH - 3])
@pytest.mark.parametrize('hooks', [(), [dict(type='EMAHook')]], ids=['', 'ema'])
@pytest.mark.parametrize('wrapper', **PRECISIONS)
def test_gradient_that_is_not_finite_spoils_no_checkpoint(
    wrapper, iteration, hooks, train, tmp_path
):
    train = partial(train, optim_wrapper=wrapper)
    with pytest.raises(TrainingStopped, match='not finite') as error:
        train(
            'run',
            seed=0,
            hooks=[*hooks, At(iteration, poison_gradient)],
            checkpoint=dict(max_keep_ckpts=1),
        )
    assert '\n' not in str(error.value) and 'invalid_loss.enabled=False' in str(error.value)
    names = {path.name for path in (tmp_path / 'run').glob('*.pth')}
    assert names == {'epoch_1.pth'} and finite(tmp_path / 'run/epoch_1.pth')
    assert_equal(train('run', hooks=hooks, resume=True), train('whole', seed=0, hooks=hooks))


def test_buffers_may_be_infinite(train):
    model = Toy()
    model.register_buffer('mask', torch.tensor([0, -torch.inf]))
    train('run', model=model, epochs=1)


def test_the_check_of_the_weights_is_cheap():
    """Once for every checkpoint, and then a part of what writing it takes."""
    from convmlp_backbone.hooks.invalid_loss import _spoilt

    model = torch.nn.Sequential(*(torch.nn.Linear(1000, 1000) for _ in range(20)))
    runner = type('Runner', (), dict(model=model))
    began = time.perf_counter()
    assert not _spoilt(runner, dict(state_dict=model.state_dict()))
    checked = time.perf_counter() - began
    began = time.perf_counter()
    torch.save(model.state_dict(), io.BytesIO())
    assert checked < 5 * (time.perf_counter() - began)


class Odd:
    """What no checkpoint may hold."""


@pytest.mark.parametrize('value, told', [(Odd(), True), ([1, 'a', 2.0], False)])
def test_a_checkpoint_that_cannot_be_resumed_is_told_at_once(value, told, train):
    """Not after days, by the run that is to go on."""

    class Keeps(Hook):
        def before_train(self, runner):
            runner.message_hub.update_info('odd', value)

    train('run', hooks=[Keeps()], log_level='WARNING')
    log = (next(Path(train.runner.log_dir).glob('*.log'))).read_text()
    assert log.count('cannot be resumed as it is') == told


# What is not felt outside


def test_model_can_be_copied_and_saved_in_training(train, tmp_path):
    def copies(runner):
        torch.save(runner.model, tmp_path / 'model.pth')
        for model in (
            copy.deepcopy(runner.model),
            torch.load(tmp_path / 'model.pth', weights_only=False),
        ):
            terms = model.parse_losses(dict(loss=torch.tensor(float('nan'))))[1]  # does not stop
            assert terms['loss'].isnan()
        runner.optim_wrapper.state_dict()

    train('run', hooks=[At(3, copies)], epochs=1)
    assert (tmp_path / 'model.pth').stat().st_size < 100_000  # without the runner
    assert 'parse_losses' not in vars(Toy)


@pytest.mark.parametrize('end', [lambda runner: None, crash], ids=['', 'error'])
def test_handler_is_the_previous_one_afterwards(end, train):
    def previous(*_):
        raise AssertionError

    original = signal.signal(signal.SIGTERM, previous)
    try:
        train('run', hooks=[At(3, end)], epochs=1)
    except Crash:
        assert end is crash
    finally:
        assert signal.signal(signal.SIGTERM, original) is previous


def test_training_in_a_thread(train, tmp_path):
    thread = threading.Thread(target=lambda: train('run', epochs=1))
    thread.start()
    thread.join()
    assert (tmp_path / 'run/epoch_1.pth').exists()


def test_forked_processes_end_by_sigterm(train):
    def fork(runner):
        for _ in range(10):
            pool = multiprocessing.get_context('fork').Pool(2)
            pool.map(abs, range(4))
            pool.terminate()
            pool.join()

    train('run', hooks=[At(3, fork)], epochs=1)


def test_a_forked_process_ends_by_a_sigterm_that_comes_at_once(train):
    """Python forgets a signal that comes before a forked process is set up."""

    def fork(runner):
        for _ in range(20):
            child = os.fork()
            if not child:
                time.sleep(5)
                os._exit(0)
            os.kill(child, signal.SIGTERM)
            assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())

    train('run', hooks=[At(2, fork)])


def test_sigterm_that_comes_twice(train, tmp_path):
    """From Slurm and from torchrun, which passes on its own."""

    def both(runner):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)

    with pytest.raises(SystemExit):
        train('run', hooks=[At(3, both)], epochs=1)
    meta = torch.load(tmp_path / 'run/interrupted.pth', weights_only=False)['meta']
    assert meta['iter'] == 4


class Stuck(Noise):
    """Whose data never come from the eighth on."""

    def __getitem__(self, index):
        if torch.initial_seed() and os.path.exists('stuck'):
            time.sleep(1000)
        return super().__getitem__(index)


class TerminateWhileWaiting(Hook):
    def __init__(self, signals):
        self.signals = signals

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 2:
            open('stuck', 'w').close()

            def send():
                for _ in range(self.signals):
                    time.sleep(1.2)
                    os.kill(os.getpid(), signal.SIGTERM)

            threading.Thread(target=send, daemon=True).start()


@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('signals, grace', [(2, 300), (1, 1)])
def test_data_that_never_come_do_not_keep_the_job(
    workers, signals, grace, train, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    began = time.monotonic()
    with pytest.raises(SystemExit) as stop:
        train(
            'run',
            hooks=[TerminateWhileWaiting(signals)],
            dataset=Stuck(),
            workers=workers,
            checkpoint=dict(grace=grace),
        )
    assert stop.value.code == 128 + signal.SIGTERM and time.monotonic() - began < 30
    assert AtomicCheckpointHook().terminated is False
