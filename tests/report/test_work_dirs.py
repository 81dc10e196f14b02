"""What a training left: whole, interrupted, moved, or nearly nothing."""

import json
import math

import pytest

pytest.importorskip('hotcoco')

from convmlp_backbone.errors import UserError  # noqa: E402
from convmlp_backbone.report.training_sections import curves, metric_names  # noqa: E402
from convmlp_backbone.report.work_dir import open_work_dir, run_name  # noqa: E402
from convmlp_backbone.training_log import read_run  # noqa: E402


def training(folder, time, steps, loss=1.0, end='', config=True):
    inside = folder / time / 'vis_data'
    inside.mkdir(parents=True)
    records = []
    for step in steps:
        records.append(dict(lr=0.1, loss=loss, epoch=step // 10, iter=step, step=step))
        if step % 10 == 0:
            records.append({'coco/bbox_mAP': loss / 10, 'time': 1.0, 'step': step // 10})
    (inside / 'scalars.json').write_text('\n'.join(map(json.dumps, records)) + end)
    if config:
        (inside / 'config.py').write_text(f'loss = {loss}\n')


@pytest.mark.parametrize(
    'runs, steps, losses',
    [
        ([range(2, 42, 2)], 20, {1}),
        ([range(2, 32, 2), range(22, 42, 2)], 20, {1, 2}),  # resumed at 20, after it reached 30
        ([range(2, 32, 2), range(2, 12, 2)], 5, {2}),  # started anew
        ([range(2, 32, 2), []], 15, {1}),  # the second ended before it logged
    ],
)
def test_interrupted_and_resumed(runs, steps, losses, tmp_path):
    for number, part in enumerate(runs, 1):
        training(tmp_path, f'2026010{number}_000000', part, loss=number)
    train, val = read_run(tmp_path)
    assert [record['step'] for record in train] == sorted({r['step'] for r in train})
    assert len(train) == steps and {record['loss'] for record in train} == losses
    assert [record['step'] for record in val] == sorted({r['step'] for r in val})


@pytest.mark.parametrize(
    'end', ['\n{"loss": 3, "st', '\nnull', '\n[1]', '\n{"loss": 3}', '\n\0\0\0', '\n{"step": "x"}']
)
def test_what_a_killed_process_left(end, tmp_path):
    training(tmp_path, '20260101_000000', range(1, 5), end=end)
    assert len(read_run(tmp_path)[0]) == 4


def test_losses_that_are_not_finite(tmp_path):
    training(tmp_path, '20260101_000000', range(1, 50), loss=math.nan)
    training(tmp_path, '20260102_000000', range(25, 60), loss=2)
    drawn = ''.join(curves([('', open_work_dir(tmp_path))]))
    assert '24 logged values are not finite' in drawn and drawn.count('<svg class="chart"') == 3


def test_without_anything(tmp_path):
    with pytest.raises(UserError, match='no folder .*expected one that convmlp train or fit wrote'):
        open_work_dir(tmp_path / 'none')
    with pytest.raises(UserError, match='has no config'):
        open_work_dir(tmp_path)
    (tmp_path / 'x.py').write_text('')
    run = open_work_dir(tmp_path)
    assert run.checkpoint is None and run.train == []
    assert 'no log of a training' in run.notes[0] and 'no checkpoint' in run.notes[1]
    assert 'There is no log' in curves([('', run)])[0]


def test_which_config_and_checkpoint(tmp_path):
    folder = tmp_path / 'work_dirs/coins/train'  # of convmlp fit
    training(folder, '20260101_000000', range(1, 9), loss=7)
    training(folder, '20260102_000000', [])  # an evaluation: not the config that trained
    (folder / 'best_a.pth').touch()
    run = open_work_dir(folder.parent)
    assert run.config.read_text() == 'loss = 7\n' and run.checkpoint == folder / 'best_a.pth'
    assert run_name(run.folder) == 'coins'


def test_versions_from_the_log(tmp_path):
    training(tmp_path, '20260101_000000', range(1, 9))
    (tmp_path / '20260101_000000/x.log').write_text(
        'System environment:\n    Python: 3.12.1 (main)\n    PyTorch: 2.9.0\n    GPU 0: A <b> GPU\n'
    )
    assert open_work_dir(tmp_path).versions == {
        'Python': '3.12.1',
        'PyTorch': '2.9.0',
        'GPU 0': 'A <b> GPU',
    }


def test_any_metric_is_drawn():
    records = [dict(step=1, time=1.0, dice=0.5, name='x'), dict(step=2, lr=0.1, dice=0.6, top=3)]
    assert metric_names(records) == ['dice', 'top']
