"""What a resumed training equals: the uninterrupted one, wherever and however it was stopped."""

import os
import shutil
import signal
import time
from contextlib import contextmanager, suppress
from functools import partial, partialmethod
from itertools import islice

import mmengine.dataset.sampler as sampler_module
import mmengine.optim.optimizer.amp_optimizer_wrapper as amp
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import Runner
from torch.utils.data import DataLoader
from toy_training import (  # noqa: F401
    EPOCH,
    At,
    Crash,
    Noise,
    Scores,
    Toy,
    assert_equal,
    crash,
    in_processes,
    terminate,
    training,
)

from convmlp_backbone.errors import UserError
from convmlp_backbone.hooks import order as order_module

ITER = dict(iter_based=True)
PLATEAU = dict(type='ReduceOnPlateauLR', monitor='score', rule='greater', patience=0, factor=0.5)
STOP = dict(type='EarlyStoppingHook', monitor='score', rule='greater', patience=2)


# Stopped anywhere


@pytest.mark.parametrize('iteration', [EPOCH - 1, EPOCH, EPOCH + 2])
@pytest.mark.parametrize(
    'loop', [dict(), ITER, dict(ITER, sampler='InfiniteSampler'), dict(workers=2)], ids=str
)
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


def amp_on_cpu(monkeypatch):
    """MMEngine's mixed precision with its loss scaler, of which a CPU has one too."""
    monkeypatch.setattr(amp, 'is_cuda_available', lambda: True)
    monkeypatch.setattr(amp, 'GradScaler', partial(torch.amp.GradScaler, device='cpu'))


# Small, so that the scale grows within the run.
AMP = dict(type='AmpOptimWrapper', loss_scale=dict(growth_interval=4), dtype='bfloat16')
CPU_AMP = dict(type='CPUAmpOptimWrapper')  # of --amp without a GPU
CASES = {
    'accumulation': dict(accumulative_counts=4),
    'accumulation, iterations': dict(ITER, accumulative_counts=4),
    'plateau': dict(val=True, param_scheduler=PLATEAU, epochs=5),
    'plateau, iterations': dict(ITER, val=True, param_scheduler=PLATEAU, epochs=5),
    'early stop': dict(val=True, hooks=[STOP], epochs=6),
    'best': dict(
        val=True, checkpoint=dict(save_best=['score', 'other'], rule='greater', max_keep_ckpts=1)
    ),
    'amp': dict(optim_wrapper=AMP, accumulative_counts=4),
    'amp on a processor': dict(optim_wrapper=CPU_AMP),
    'amp on a processor, accumulation, ema': dict(
        ITER,
        optim_wrapper=CPU_AMP,
        accumulative_counts=4,
        hooks=[dict(type='EMAHook', momentum=0.1)],
        val=True,
    ),
    'ema': dict(hooks=[dict(type='EMAHook', momentum=0.1)], val=True),
    'ema with buffers': dict(
        ITER,
        hooks=[
            dict(
                type='EMAHook',
                ema_type='MomentumAnnealingEMA',
                momentum=0.1,
                update_buffers=True,
                begin_iter=4,
            )
        ],
    ),
    'cosine': dict(
        param_scheduler=dict(
            type='CosineAnnealingLR', T_max=3, by_epoch=True, convert_to_iter_based=True
        )
    ),
    'one cycle': dict(
        param_scheduler=[
            dict(type='OneCycleLR', eta_max=0.1, total_steps=3 * EPOCH, by_epoch=False),
            dict(type='CosineAnnealingParamScheduler', param_name='weight_decay', T_max=3),
        ]
    ),
    'groups': dict(
        optim_wrapper=dict(paramwise_cfg=dict(norm_decay_mult=0)),
        param_scheduler=dict(type='MultiStepLR', milestones=[1, 2]),
    ),
    'aspect ratio': dict(batch_sampler='mmdet.AspectRatioBatchSampler'),
    'aspect ratio, iterations': dict(ITER, batch_sampler='mmdet.AspectRatioBatchSampler'),
    'aspect ratio, endless': dict(
        ITER, batch_sampler='mmdet.AspectRatioBatchSampler', sampler='InfiniteSampler'
    ),
}


@pytest.mark.parametrize('stop', [crash, terminate], ids=lambda stop: stop.__name__)
@pytest.mark.parametrize('case', CASES)
def test_everything_goes_on_as_it_was(case, stop, train, monkeypatch):
    if 'aspect' in case:
        pytest.importorskip('mmdet.datasets.samplers')
    amp_on_cpu(monkeypatch)
    options = dict(CASES[case])
    hooks = options.pop('hooks', [])
    expected = train('whole', seed=1, hooks=hooks, **options)
    end, lr = train.runner.iter, train.runner.optim_wrapper.get_lr()
    for iteration in (EPOCH + 1, 2 * EPOCH):
        with pytest.raises((Crash, SystemExit)):
            train(
                'killed',
                seed=1,
                hooks=[*hooks, At(iteration, stop)],
                resume=iteration > EPOCH + 1,
                **options,
            )
    assert_equal(train('killed', hooks=hooks, resume=True, **options), expected)
    assert (train.runner.iter, train.runner.optim_wrapper.get_lr()) == (end, lr)


@contextmanager
def killed_at(point):
    """Crash at the call of that number of any hook, or of a file's taking its place; yields the
    list of all."""
    points = []

    def counted(function, *args, **kwargs):
        points.append(function)
        if len(points) == point:
            raise Crash
        return function(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in ((Runner, 'call_hook'), (os, 'replace'), (os, 'remove')):
            patch.setattr(
                owner,
                name,
                partialmethod(partial(counted, getattr(owner, name)))
                if owner is Runner
                else partial(counted, getattr(owner, name)),
            )
        yield points


@pytest.mark.adversary
@settings(
    max_examples=max(4, settings.default.max_examples // 15),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_killed_anywhere(data, train, tmp_path, monkeypatch):
    amp_on_cpu(monkeypatch)
    case = data.draw(st.sampled_from([name for name in CASES if 'aspect' not in name]))
    options = dict(CASES[case])
    hooks = options.pop('hooks', [])
    folder = tmp_path / str(time.time())
    with killed_at(None) as points:
        expected = train(folder / 'whole', seed=1, hooks=hooks, **options)
    for point in data.draw(st.lists(st.integers(1, len(points)), min_size=1, max_size=3)):
        with killed_at(point), suppress(Crash):
            train(folder / 'killed', seed=1, hooks=hooks, resume=True, **options)
    weights = train(folder / 'killed', seed=1, hooks=hooks, resume=True, **options)
    assert_equal(weights, expected)
    whole, killed = (
        sorted(path.name for path in (folder / name).glob('*.pth')) for name in ('whole', 'killed')
    )
    assert set(whole) <= set(killed)
    shutil.rmtree(folder)


@pytest.mark.parametrize('loop', [dict(), ITER], ids=str)
def test_killed_in_validation_validates_first(loop, train, monkeypatch):
    options = dict(
        val=True,
        param_scheduler=PLATEAU,
        epochs=4,
        hooks=[STOP],
        checkpoint=dict(save_best='score', rule='greater'),
        **loop,
    )
    Scores.calls = 0
    expected = train('whole', seed=1, **options)
    best, calls = train.runner.message_hub.get_info('best_score'), Scores.calls
    with monkeypatch.context() as patch:

        def compute(self, results):
            if train.runner.iter == 3 * EPOCH:
                raise Crash
            return original(self, results)

        original = Scores.compute_metrics
        patch.setattr(Scores, 'compute_metrics', compute)
        with pytest.raises(Crash):
            train('killed', seed=1, **options)
    Scores.calls = 0
    assert_equal(train('killed', resume=True, **options), expected)
    assert train.runner.message_hub.get_info('best_score') == best
    assert Scores.calls == calls - 2


def test_early_stop_stays_stopped(train):
    options = dict(val=True, epochs=6)
    train('run', hooks=[STOP], **options)
    end = train.runner.iter
    assert end < 6 * EPOCH
    train('run', hooks=[STOP], resume=True, **options)
    assert train.runner.iter == end
    train('run', resume=True, **options)
    assert train.runner.iter == 6 * EPOCH


def test_resume_from_an_epoch_with_other_workers_equals_the_uninterrupted_run(train, tmp_path):
    expected = train('run', workers=1)
    assert_equal(
        train('run', workers=0, resume=True, load_from=str(tmp_path / 'run/epoch_1.pth')), expected
    )


def test_accumulated_gradients_are_used_before_the_stop(train, tmp_path):
    with pytest.raises(SystemExit):
        train('run', hooks=[At(6, terminate)], accumulative_counts=3)
    meta = torch.load(tmp_path / 'run/interrupted.pth', weights_only=False)['meta']
    assert meta['iter'] == 9


# Another config


def order(train, name, *args, **kwargs):
    """All indices in the order of training; several processes are told of by their number."""
    model = Toy()
    train(name, *args, model=model, **kwargs)
    return [index for batch in model.seen for index in batch]


@pytest.mark.parametrize('loop', [dict(), ITER, dict(ITER, sampler='InfiniteSampler')], ids=str)
@pytest.mark.parametrize('batch_size', [3, 4, 6])
def test_other_batch_size_goes_on_with_the_same_samples(loop, batch_size, train, caplog):
    expected = order(train, 'whole', seed=1, **loop)
    model = Toy()
    with pytest.raises(SystemExit):
        train('killed', seed=1, hooks=[At(EPOCH + 2, terminate)], model=model, **loop)
    seen = [index for batch in model.seen for index in batch]
    assert len(seen) == 2 * (EPOCH + 3)
    seen += order(train, 'killed', resume=True, batch_size=batch_size, **loop)
    n = min(len(seen), len(expected))
    assert seen[:n] == expected[:n] and n > 4 * EPOCH
    if not loop:
        assert len(seen) == len(expected)


class Sized(Noise):
    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


@given(st.data())
def test_other_number_of_processes_goes_on_with_the_same_samples(data):
    """Whatever the sizes: in the order of all processes, from where it was."""
    draw = data.draw
    samples, epoch = draw(st.integers(1, 60)), draw(st.integers(0, 3))
    old, new = (
        dict(batch_size=draw(st.integers(1, 7)), processes=draw(st.integers(1, 5)))
        for _ in range(2)
    )
    done = draw(st.integers(0, samples // (old['batch_size'] * old['processes'])))
    seen = done * old['batch_size'] * old['processes']
    kind = draw(st.sampled_from([DefaultSampler, InfiniteSampler]))

    def consumed(batch_size, processes, start=0, done=0):
        """What all processes see, with the seeds, from there to the end of the epoch."""
        columns = []
        for rank in range(processes):
            with pytest.MonkeyPatch.context() as patch:
                for module in (order_module, sampler_module):
                    patch.setattr(module, 'get_dist_info', lambda: (rank, processes))  # noqa: B023
                dataset = Sized(samples)
                loader = DataLoader(dataset, batch_size, sampler=kind(dataset, seed=3))
                order = order_module.Order(loader, seed=5)
                order.at(epoch, start, done)
                batches = islice(order, 2 * samples // processes // batch_size + 1)
                columns.append([pair for batch in batches for pair in batch])
        return [pair for row in zip(*columns, strict=True) for pair in row]

    whole = consumed(1, 1)
    before, after = consumed(**old)[:seen], consumed(**new, start=seen)
    assert before == whole[:seen]
    after_all = after
    after = after[seen % new['processes'] :]  # so many come twice
    length = min(len(after), len(whole) - seen)
    assert after[:length] == whole[seen:][:length]
    assert length >= min(samples - seen, 1)
    # Stopped again: the place is one of these batches.
    again = consumed(**new, start=seen, done=1)
    rest = after_all[new['batch_size'] * new['processes'] :]
    assert again[: len(rest)] == rest[: len(again)]


@pytest.mark.parametrize('optim_wrapper', [{}, CPU_AMP], ids=['float32', 'amp'])
def test_two_processes_and_then_one(optim_wrapper, train, tmp_path):
    """Accumulated gradients differ in every process."""
    options = dict(seed=1, batch_size=1, accumulative_counts=4, optim_wrapper=optim_wrapper)

    def run(name, **more):
        model = Toy()
        model.layers[1] = torch.nn.Identity()  # in a batch of one
        return train(name, model=model, **{**options, **more}), list(model.seen)

    whole = in_processes(2, lambda: run('whole'), tmp_path / '1')
    in_processes(2, lambda: run('killed', hooks=[At(EPOCH + 1, crash)]), tmp_path / '2')
    shutil.copytree(tmp_path / 'killed', tmp_path / 'one')
    resumed = in_processes(2, lambda: run('killed', resume=True), tmp_path / '3')
    for (expected, _), (weights, _) in zip(whole, resumed, strict=True):
        assert_equal(weights, expected)
    _, one = run('one', resume=True, batch_size=2)
    both = [[*a, *b] for a, b in zip(*(seen for _, seen in whole), strict=True)]
    assert one == both[EPOCH:]


def test_other_batch_size_after_an_epoch_and_again(train, tmp_path):
    expected = order(train, 'whole', seed=1)
    train('run', seed=1, epochs=1)
    model = Toy()
    with pytest.raises(SystemExit):
        train('run', resume=True, batch_size=3, hooks=[At(5, terminate)], model=model)
    seen = expected[: 2 * EPOCH] + sum(model.seen, [])
    assert train.runner.iter == 5 and len(seen) == 18  # 12 of 2, 6 of 3
    seen += order(train, 'run', resume=True, batch_size=3)
    assert seen == expected


def test_other_data_set_starts_its_epoch_anew(train, tmp_path):
    class Less(Noise):
        def __len__(self):
            return EPOCH

    with pytest.raises(SystemExit):
        train('run', hooks=[At(EPOCH + 2, terminate)])
    model = Toy()
    train('run', resume=True, dataset=Less(), model=model)
    assert len(model.seen) == EPOCH


def told(train, tmp_path, name='run'):
    """The one line about the config."""
    text = (tmp_path / name / train.runner.timestamp / f'{train.runner.timestamp}.log').read_text()
    (line,) = (line for line in text.splitlines() if 'The config holds' in line)
    return line


COSINE = dict(type='CosineAnnealingLR', by_epoch=True)


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(optimizer=dict(lr=0.1)), 'lr 0.01 -> 0.1'),
        (dict(param_scheduler=dict(COSINE, T_max=6), epochs=6), 'T_max 3 -> 6'),
        (dict(batch_size=4), 'batch_size 2 -> 4'),
        (dict(optimizer=dict(weight_decay=0.5)), 'weight_decay 0.01 -> 0.5'),
        (dict(seed=7), 'randomness.seed stays 1'),
    ],
    ids=str,
)
def test_what_the_config_says_otherwise_holds_and_is_told(changes, words, train, tmp_path):
    options = dict(seed=1, param_scheduler=dict(COSINE, T_max=3), log_level='WARNING')
    train('run', epochs=2, **options)
    options.update(changes)
    train('fresh', **dict(options, epochs=options.get('epochs', 3)))
    expected = train.runner.optim_wrapper.get_lr()
    train('run', resume=True, **options)
    assert words in told(train, tmp_path)
    assert train.runner.optim_wrapper.get_lr() == expected


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(epochs=6), 'param_scheduler'),
        (dict(optimizer=dict(type='SGD')), 'SGD'),
        (dict(frozen=True), 'parameters'),
        (dict(wide=True), 'network'),
    ],
    ids=str,
)
def test_what_cannot_be_resumed_is_one_line(changes, words, train, tmp_path):
    options = dict(param_scheduler=dict(COSINE, T_max=3))
    train('run', **options)
    model = Toy()
    if changes.pop('wide', None):
        model.layers[3] = torch.nn.Linear(4, 2)
    if changes.pop('frozen', None):
        options['optim_wrapper'] = dict(paramwise_cfg=dict(norm_decay_mult=0))
    before = sorted(os.listdir(tmp_path / 'run'))
    with pytest.raises(UserError, match=words) as error:
        train('run', resume=True, model=model, **options, **changes)
    assert '\n' not in str(error.value) and '--cfg-options' in str(error.value)
    assert {name for name in os.listdir(tmp_path / 'run') if 'pth' in name} <= set(before)
