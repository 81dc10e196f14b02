"""The truth as prediction scores 1.0, by each toolbox's evaluator; and what makes it less."""

import numpy as np
import pytest
import shapes
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from convmlp_backbone.checks.datasets import scope_of
from convmlp_backbone.checks.selftest import score_problems, self_test
from convmlp_backbone.checks.statistics import (
    anchor_sizes,
    histogram,
    object_lines,
    size_problems,
)

NAMES = ('retinanet_convmlp_s_fpn_coins', 'maskrcnn_convmlp_s_fpn_coins', 'fpn_convmlp_s_coins')


def score(cfg):
    with scope_of(cfg):
        dataset = DATASETS.build(cfg.val_dataloader.dataset)
    return self_test(cfg, 'val', dataset)


@pytest.mark.parametrize(
    'name, scores',
    zip(
        NAMES,
        (['coco/bbox_mAP'], ['coco/bbox_mAP', 'coco/segm_mAP'], ['mIoU', 'aAcc']),
        strict=True,
    ),
)
def test_truth_scores_one(name, scores, tmp_path):
    pytest.importorskip('mmseg' if name.startswith('fpn') else 'mmdet')
    found, problems = score(shapes.config(ROOT / f'configs/{name}.py', shapes.make(tmp_path)))
    for metric in scores:
        assert found[metric] == (100 if metric in ('mIoU', 'aAcc') else 1)
    assert [p.severity for p in problems] == ['note']


def test_classifier(shared_data):
    pytest.importorskip('mmpretrain')
    cfg = Config.fromfile(ROOT / 'configs/convmlp_s_clothing.py')
    cfg.val_dataloader.dataset.data_root = str(shared_data / 'clothing')
    scores, problems = score(cfg)
    assert scores == {'accuracy/top1': 100} and problems[0].severity == 'note'


# What training leaves out and evaluation counts.
LEFT_OUT = dict(
    ignored=lambda a: a.update(ignore=1),
    thin=lambda a: a['bbox'].__setitem__(2, 0.5),
    zero=lambda a: a.update(id=0),
)


@pytest.mark.parametrize('name', LEFT_OUT)
def test_what_scores_less_is_told(name, tmp_path):
    pytest.importorskip('mmdet')
    data = shapes.make(tmp_path)
    shapes.change_coco(data, 'val', lambda c: LEFT_OUT[name](c['annotations'][0]))
    scores, (problem, *_) = score(shapes.config(ROOT / f'configs/{NAMES[0]}.py', data))
    assert scores['coco/bbox_mAP'] < 0.99 and problem.severity == 'error'
    assert 'instead of 1.0' in problem.text


def test_masks_of_another_size_are_told(tmp_path):
    pytest.importorskip('mmseg')
    data = shapes.make(tmp_path)
    cfg = shapes.config(ROOT / f'configs/{NAMES[2]}.py', data)
    cfg.val_evaluator.type = 'NoSuchMetric'
    assert 'fails with the truth' in score(cfg)[1][0].text


@pytest.mark.parametrize(
    'scores, crowd, severity',
    [
        ({'coco/bbox_mAP': 1.0, 'coco/bbox_mAP_s': -1}, 0, 'note'),
        ({'mIoU': 100.0}, 0, 'note'),
        ({'coco/bbox_mAP': 0.97}, 20, 'error'),
        ({'coco/bbox_mAP': 0.97}, 120, 'warning'),
        ({'mIoU': float('nan')}, 0, 'error'),
        ({'accuracy/top1': 33.3}, 0, 'error'),
    ],
)
def test_scores(scores, crowd, severity):
    assert score_problems(scores, 'val_evaluator', crowd)[0].severity == severity


# What is told of the objects


def test_anchors():
    model = Config.fromfile(ROOT / 'configs/retinanet_convmlp_s_fpn_coins.py').model
    sizes = anchor_sizes(model)
    assert len(sizes) == 15 and sizes[0] == 32 and sizes[-1] == pytest.approx(512 * 2 ** (2 / 3))
    model = Config.fromfile(ROOT / 'configs/maskrcnn_convmlp_s_fpn_coins.py').model
    assert anchor_sizes(model) == [32, 64, 128, 256, 512]
    assert anchor_sizes(dict(type='EncoderDecoder')) == []


@pytest.mark.parametrize(
    'sizes, words',
    [
        ([10, 12, 14, 40], 'smaller than half'),
        ([20, 40, 300], None),
        ([2000, 3000], 'larger than'),
        ([], None),
    ],
)
def test_sizes_beside_anchors(sizes, words):
    found = size_problems(np.array(sizes, float), [32.0, 512.0], 'train')
    assert words is None and not found or words in found[0].text


def test_histogram():
    from collections import Counter

    counts = Counter({0: 509, 2: 3})
    assert histogram(counts, ['coin', 'medal', 'stamp']) == 'coin 509, stamp 3; 1 classes have none'
    lines = object_lines(
        counts, np.array([10.0, 20, 30]), ['coin', 'medal', 'stamp'], [32.0, 512.0]
    )
    assert '12, 20, 28 pixels' in lines[1] and 'anchors: 32 to 512' in lines[1]


def test_images_can_be_of_any_size(tmp_path):
    """A mask is scored in the image's own size, whatever the pipeline makes of it."""
    pytest.importorskip('mmseg')
    data = shapes.make(tmp_path)
    for folder in ('val', 'masks/val'):
        image = Image.open(data / folder / '0.png')
        image.resize((70, 120), Image.Resampling.NEAREST).save(data / folder / '0.png')
    scores, _ = score(shapes.config(ROOT / f'configs/{NAMES[2]}.py', data))
    assert scores['mIoU'] == 100
