"""Figures of trainings."""

import json

import pytest
from PIL import Image

from convmlp_backbone.errors import UserError
from convmlp_backbone.training_log import read_run


def write_run(work_dir, time, losses, days=''):
    """What MMEngine leaves behind of one training of an epoch per loss."""
    folder = work_dir / time / 'vis_data'
    folder.mkdir(parents=True)
    records, log = [], ''
    for step, loss in enumerate(losses, 1):
        records += [
            dict(lr=0.1, loss=loss, memory=2048, epoch=step, iter=step, step=step),
            {'coco/bbox_mAP': 0.5, 'step': step},
        ]
        log += f'INFO - Epoch(train) [{step}][1/1]  lr: 1e-1  eta: {days}1:00:30  time: 1\n'
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    (work_dir / time / f'{time}.log').write_text(log)


def test_last_training_of_a_work_dir(tmp_path):
    write_run(tmp_path, '20260101_000000', [9, 8, 7])
    write_run(tmp_path, '20260102_000000', [3, 2], days='1 day, ')
    (tmp_path / '20260103_000000/vis_data').mkdir(parents=True)  # an evaluation
    (tmp_path / '20260103_000000/vis_data/scalars.json').write_text('{"mIoU": 1, "step": 0}')
    train, val = read_run(tmp_path)
    assert [record['loss'] for record in train] == [3, 2]
    assert train[0]['eta'] == (24 + 1) * 60 + 0.5 and train[0]['memory'] == 2
    assert [record['coco/bbox_mAP'] for record in val] == [0.5, 0.5]


def test_no_training(tmp_path):
    with pytest.raises(UserError, match='no log of a training'):
        read_run(tmp_path)


def test_program(call_tool, tmp_path):
    for name in ('a', 'b'):
        write_run(tmp_path / name, '20260101_000000', [3, 2])
    call_tool('plot', 'a', 'b', '--out', 'new/curves.png')
    assert Image.open(tmp_path / 'new/curves.png').width > 1000
    assert call_tool('plot', 'none').startswith('error: none has no log')
