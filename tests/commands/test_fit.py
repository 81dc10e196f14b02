"""convmlp fit on small folders: the config it writes, a whole run, what it refuses."""

import json
import re
import sys

import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

sys.path.insert(0, str(ROOT / 'tests/fit'))
import made_folders as made  # noqa: E402

from convmlp_backbone.commands import fit  # noqa: E402
from convmlp_backbone.fit import prepare  # noqa: E402
from convmlp_backbone.fit.measure import Cost, _measure  # noqa: E402
from convmlp_cli import make_parser  # noqa: E402

TEXT = Config.pretty_text  # which call_tool replaces, and resuming reads
TINY = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 1, 1), mlp_ratio=2)


@pytest.fixture
def known_cost(monkeypatch):
    """Costs of a fast machine without a GPU, not measured."""

    def put(step=0.5, **more):
        monkeypatch.setattr(prepare, 'measure', lambda config: Cost(step, 0.1, 1e8, **more))
        monkeypatch.setattr(prepare, 'device', lambda: 'cpu')
        monkeypatch.setattr(prepare, 'free_memory', lambda: 8e9)

    put()
    return put


def tiny(config):
    """The config edited, as its user may: a tiny network, few iterations."""
    text = config.read_text()
    text = text.replace("arch='s'", f'arch={TINY}').replace('[64, 128, 256, 512]', '[8, 8, 16, 24]')
    text = text.replace('\n    head=dict(', '\n    head=dict(in_channels=24, ')
    for old, new in (
        (r'max_iters=\d+, val_interval=\d+', 'max_iters=4, val_interval=2'),
        (r'by_epoch=False, interval=\d+', 'by_epoch=False, interval=2'),
        (r'end=\d+\),\n', 'end=1),\n'),
        (
            r'T_max=\d+, by_epoch=False, begin=\d+, end=\d+',
            'T_max=3, by_epoch=False, begin=1, end=4',
        ),
        (r'num_workers=1,\n    persistent_workers=True', 'num_workers=0'),
    ):
        text, count = re.subn(old, new, text)
        assert count, old
    config.write_text(text)


TASKS = [
    (made.coco, 'boxes', 'mmdet'),
    (made.yolo_points, 'masks', 'mmdet'),
    (made.masks_255, 'semantic', 'mmseg'),
    (made.folders_flat, 'classes', 'mmpretrain'),
]


@pytest.mark.parametrize(
    'layout, task, scope', TASKS, ids=lambda value: getattr(value, '__name__', '')
)
def test_the_config(layout, task, scope, known_cost, call_tool, tmp_path):
    """It is read, builds a model of the right number of classes and data sets of all images."""
    pytest.importorskip(scope)
    known_cost(step=0.2)
    layout(tmp_path / 'pictures')
    printed = call_tool('fit', 'pictures', '--dry-run', '--weights', 'none', '--task', task)
    config = tmp_path / 'work_dirs/pictures/config.py'
    assert 'config: work_dirs/pictures/config.py' in printed
    text = config.read_text()
    assert max(map(len, text.splitlines())) <= max(100, len(str(tmp_path)) + 60)
    assert f'15 minutes: an iteration takes {0.2:.2f} s here' in text.replace('\n# ', ' ')
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    counts = {
        split: len(DATASETS.build(cfg[f'{split}_dataloader'].dataset)) for split in ('train', 'val')
    }
    assert sum(counts.values()) == (68 if task == 'classes' else 17)
    number = len(cfg.train_dataloader.dataset.metainfo.classes)
    assert number == 2
    heads = {name: value for name, value in numbers(cfg.model)}
    assert set(heads.values()) == {2}, heads
    assert cfg.train_cfg.max_iters * 0.2 == pytest.approx(870, rel=0.02)
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
    assert cfg.train_cfg.max_iters % cfg.train_cfg.val_interval == 0


def numbers(part, path=''):
    for key, value in part.items() if isinstance(part, dict) else ():
        if key == 'num_classes' and path != '.data_preprocessor':
            yield path, value
        yield from numbers(value, f'{path}.{key}')


def test_a_whole_run_that_was_interrupted(known_cost, call_tool, tmp_path, monkeypatch):
    pytest.importorskip('mmseg')
    monkeypatch.setattr(Config, 'pretty_text', TEXT)
    made.masks_colours(tmp_path / 'pictures')
    call_tool('fit', 'pictures', '--dry-run', '--weights', 'none')
    work_dir = tmp_path / 'work_dirs/pictures'
    tiny(work_dir / 'config.py')
    edited = (work_dir / 'config.py').read_text()

    class Interrupted(Exception):
        pass

    def stop(*_, **__):
        raise Interrupted

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr('mmengine.hooks.IterTimerHook._after_epoch', stop)  # of the evaluation
        call_tool('fit', 'pictures', '--weights', 'none', '--no-export', '--no-report')
    assert (work_dir / 'train/iter_2.pth').is_file()
    assert not (work_dir / 'train/iter_4.pth').exists()
    printed = call_tool('fit', 'pictures', '--weights', 'none', '--no-export', '--no-report')
    assert 'is there: going on with it' in printed and re.search(
        r'best_mIoU_iter_\d.pth: aAcc .*, mIoU \d', printed.splitlines()[-1]
    )
    last = torch.load(work_dir / 'train/iter_4.pth', weights_only=False)
    assert last['meta']['iter'] == 4
    assert (work_dir / 'config.py').read_text() == edited
    best = json.loads((work_dir / 'fit.json').read_text())['best']
    assert best in printed.splitlines()[-1]
    assert 'is trained; to start again: rm -r' in call_tool(
        'fit', 'pictures', '--weights', 'none', '--no-export', '--no-report'
    )
    error = call_tool('fit', 'pictures', '--minutes', '5', '--weights', 'none')
    assert 'is of another fit (minutes 15)' in error


@pytest.mark.parametrize(
    'out, command',
    [
        ('model.onnx', ['export', 'config.py', 'model.onnx', '--checkpoint', 'best.pth']),
        ('report.html', ['report', 'work_dirs/x']),
    ],
)
def test_what_fails_afterwards_costs_nothing_else(out, command, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(
        fit.subprocess,
        'run',
        lambda command, env: asked.append(command) or type('Done', (), dict(returncode=1)),
    )
    fit.afterwards(command, tmp_path / out)
    assert asked[0][-len(command) - 1 :] == ['convmlp_backbone', *command]
    printed = capsys.readouterr().out
    assert (
        printed
        == f'there is no {tmp_path / out}, the rest is. Again: convmlp {" ".join(command)}\n'
    )
    make_parser(command[0]).parse_args(command)
    (tmp_path / out).touch()
    fit.afterwards(command, tmp_path / out)
    assert len(asked) == 1


def test_the_last_checkpoint_where_none_has_a_score(tmp_path):
    (tmp_path / 'last_checkpoint').write_text('/elsewhere/iter_4.pth')
    assert fit.best_checkpoint(tmp_path) == tmp_path / 'iter_4.pth'
    (tmp_path / 'best_mIoU_iter_2.pth').touch()
    assert fit.best_checkpoint(tmp_path) == tmp_path / 'best_mIoU_iter_2.pth'


def test_what_is_measured(call_tool, known_cost, tmp_path):
    """Real iterations of a tiny network."""
    pytest.importorskip('mmseg')
    made.masks(tmp_path / 'pictures')
    call_tool('fit', 'pictures', '--dry-run', '--weights', 'none')
    config = tmp_path / 'work_dirs/pictures/config.py'
    tiny(config)
    cost = _measure(config)
    assert 0 < cost.step < 20 and 0 < cost.val_image < 20 and cost.memory < 1e10
    assert cost.busy > 0.1


@pytest.mark.parametrize(
    'step, minutes, task', [(0.5, 15, 'masks'), (5, 15, 'boxes'), (5, 90, 'masks')]
)
def test_masks_only_where_they_can_be_learned(step, minutes, task, known_cost, call_tool, tmp_path):
    pytest.importorskip('mmdet')
    known_cost(step=step)
    made.roboflow(tmp_path / 'pictures')
    printed = call_tool('fit', 'pictures', '--dry-run', '--weights', 'none', '--minutes', minutes)
    text = (tmp_path / 'work_dirs/pictures/config.py').read_text()
    assert text.split('"""')[1].split('\n')[0].endswith(f'{task}.')
    assert ('--task masks --minutes 5' in printed) == (task == 'boxes')


def test_the_faster_precision_is_taken(known_cost, call_tool, tmp_path, monkeypatch):
    pytest.importorskip('mmseg')
    monkeypatch.setattr('convmlp_backbone.amp.bf16_unit', lambda: 'AMX')
    made.masks(tmp_path / 'pictures')
    for mixed, wrapper in ((0.3, 'CPUAmpOptimWrapper'), (0.6, 'OptimWrapper')):
        known_cost(mixed=mixed)
        call_tool('fit', 'pictures', '--dry-run', '--weights', 'none', '--work-dir', wrapper)
        cfg = Config.fromfile(tmp_path / wrapper / 'config.py')
        assert cfg.optim_wrapper.type == wrapper
        assert cfg.train_cfg.max_iters == pytest.approx(870 / min(mixed, 0.5), rel=0.02)


def test_a_large_validation_set_is_sampled(known_cost, call_tool, tmp_path, monkeypatch):
    pytest.importorskip('mmdet')
    made.cvat(tmp_path / 'pictures')
    monkeypatch.setattr('convmlp_backbone.fit.split.SHARE', 0.9)
    monkeypatch.setattr('convmlp_backbone.fit.derive.LEAST', 2)
    monkeypatch.setattr(prepare, 'measure', lambda config: Cost(0.5, 30.0, 1e8))
    printed = call_tool('fit', 'pictures', '--dry-run', '--weights', 'none')
    assert 'val 4: 4 of the 15 validation images' in printed and '8 minutes' in printed
    cfg = Config.fromfile(tmp_path / 'work_dirs/pictures/config.py')
    init_default_scope('mmdet')
    assert len(DATASETS.build(cfg.val_dataloader.dataset)) == 4
    assert cfg.train_cfg.max_iters * 0.5 + 4 * 30 <= 870


def test_spoiled_data_are_refused(known_cost, call_tool, tmp_path, capsys):
    made.yolo(tmp_path / 'pictures')
    for path in (tmp_path / 'pictures/images/train').glob('*[02468].png'):
        path.unlink()
    error = call_tool('fit', 'pictures', '--dry-run', '--weights', 'none')
    assert error.startswith('error: training would be in vain: 6 of 17 label files have no image')
    assert not (tmp_path / 'work_dirs').exists()


@pytest.mark.parametrize(
    'arguments, expected',
    [
        (['nowhere'], 'no folder'),
        (['pictures', '--minutes', '0'], '--minutes 0: expected more'),
        (['pictures', '--minutes', 'nan'], '--minutes nan: expected more'),
        (['pictures', '--weights', 'no.pth'], 'no such checkpoint file: no.pth'),
        (['pictures', '--task', 'classes'], 'no labels for --task classes'),
        (['pictures', '--classes', 'cat'], '--classes cat: the folder has square, disc'),
    ],
)
def test_errors_are_one_line(arguments, expected, known_cost, call_tool, tmp_path):
    pytest.importorskip('mmdet')
    made.coco(tmp_path / 'pictures')
    error = call_tool('fit', *arguments, '--dry-run')
    assert error.startswith('error: ') and expected in error and '\n' not in error


def test_own_weights(known_cost, call_tool, tmp_path):
    """A whole model is loaded as one, a backbone or classifier into the backbone."""
    pytest.importorskip('mmdet')
    made.coco(tmp_path / 'pictures')
    from convmlp_backbone import ConvMLP

    model = MODELS.build(dict(type='ConvMLP', arch='s'))
    assert isinstance(model, ConvMLP)
    torch.save(model.state_dict(), tmp_path / 'backbone.pth')
    torch.save(
        dict(state_dict={f'backbone.{k}': v for k, v in model.state_dict().items()}),
        tmp_path / 'whole.pth',
    )
    for name in ('backbone', 'whole'):
        call_tool(
            'fit',
            'pictures',
            '--task',
            'boxes',
            '--dry-run',
            '--work-dir',
            name,
            '--weights',
            tmp_path / f'{name}.pth',
        )
        cfg = Config.fromfile(tmp_path / name / 'config.py')
        path = str(tmp_path / f'{name}.pth')
        assert (cfg.get('load_from') == path) == (name == 'whole')
        assert ((cfg.model.backbone.get('init_cfg') or {}).get('checkpoint') == path) == (
            name == 'backbone'
        )
        assert cfg.optim_wrapper.optimizer.lr == 1e-4
