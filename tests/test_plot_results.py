"""Figures of published results and of trainings."""
import json

import plot_results as tool
import pytest
from any_model import build_model
from common import UserError
from get_flops import count
from PIL import Image


def write_run(work_dir, time, losses, days=''):
    """What MMEngine leaves behind of one training of an epoch per loss."""
    folder = work_dir / time / 'vis_data'
    folder.mkdir(parents=True)
    records, log = [], ''
    for step, loss in enumerate(losses, 1):
        records += [dict(lr=0.1, loss=loss, memory=2048, epoch=step, iter=step, step=step),
                    {'coco/bbox_mAP': 0.5, 'step': step}]
        log += f'INFO - Epoch(train) [{step}][1/1]  lr: 1e-1  eta: {days}1:00:30  time: 1\n'
    (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, records)))
    (work_dir / time / f'{time}.log').write_text(log)


def test_last_training_of_a_work_dir(tmp_path):
    write_run(tmp_path, '20260101_000000', [9, 8, 7])
    write_run(tmp_path, '20260102_000000', [3, 2], days='1 day, ')
    (tmp_path / '20260103_000000/vis_data').mkdir(parents=True)  # an evaluation
    (tmp_path / '20260103_000000/vis_data/scalars.json').write_text('{"mIoU": 1, "step": 0}')
    train, val = tool.read_run(tmp_path)
    assert [record['loss'] for record in train] == [3, 2]
    assert train[0]['eta'] == (24 + 1) * 60 + 0.5 and train[0]['memory'] == 2
    assert [record['coco/bbox_mAP'] for record in val] == [0.5, 0.5]


def test_no_training(tmp_path):
    with pytest.raises(UserError, match='no log of a training'):
        tool.read_run(tmp_path)


def test_every_point_has_a_source():
    results, sources = tool.read_published()
    assert {len([r for r in task if r['family'] == 'ConvMLP']) for task in results.values()} == {3}
    for task in results.values():
        for result in task:
            assert result['source'] == 'paper' or sources[result['source']].startswith('https://')
            assert 30 < result['score'] < 90
    families = {result['family'] for result in results['classification']}
    assert len(families) == len(tool.COLORS) == len(tool.MARKERS)


@pytest.mark.parametrize('model', ['resnet18', 'deit_tiny_patch16_224', 'resmlp_12_224',
                                   'mixer_b16_224', 'tf_efficientnet_b3', 'gmlp_s16_224'])
def test_costs_are_counted(model):
    pytest.importorskip('timm')
    result, = (r for r in tool.read_published()[0]['classification'] if r['model'] == model)
    assert count(*build_model(model))[''] == (result['parameters'], result['macs'])


def test_program(call_tool, tmp_path):
    for name in ('a', 'b'):
        write_run(tmp_path / name, '20260101_000000', [3, 2])
    call_tool('plot_results.py', 'curves', 'a', 'b', '--out', 'new/curves.png')
    call_tool('plot_results.py', 'published', '--out-dir', 'figures')
    for file in ('new/curves.png', 'figures/imagenet.png', 'figures/downstream.png'):
        assert Image.open(tmp_path / file).width > 1000
    assert call_tool('plot_results.py', 'curves', 'none').startswith('error: none has no log')
