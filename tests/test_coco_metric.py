"""faster-coco-eval in place of pycocotools: chosen where it is there, and the same numbers."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import METRICS, init_default_scope

from convmlp_backbone import coco_metric
from convmlp_backbone.coco_metric import choose_coco_metric
from convmlp_backbone.errors import UserError

ITEMS = [f'mAP{part}' for part in ('', '_50', '_75', '_s', '_m', '_l')] + [
    *('AR@100', 'AR@300', 'AR@1000', 'AR_s@1000', 'AR_m@1000', 'AR_l@1000')
]


def config(*kinds):
    return Config(
        dict(
            default_scope='mmdet',
            val_evaluator=[dict(type=kind) for kind in kinds],
            test_evaluator=dict(type=kinds[0]),
        )
    )


@pytest.mark.parametrize(
    'there, kinds, found',
    [
        (True, ('CocoMetric', 'VOCMetric'), ('FasterCocoMetric', 'VOCMetric')),
        (True, ('FasterCocoMetric',), ('FasterCocoMetric',)),
        (True, ('mmdet.CocoMetric',), ('mmdet.CocoMetric',)),
        (False, ('CocoMetric',), ('CocoMetric',)),
        (False, ('VOCMetric',), ('VOCMetric',)),
    ],
)
def test_which(there, kinds, found, monkeypatch):
    monkeypatch.setattr(coco_metric, 'find_spec', lambda name: there or None)
    monkeypatch.setattr(coco_metric, 'known', lambda cfg: True)
    cfg = config(*kinds)
    choose_coco_metric(cfg)
    assert tuple(part.type for part in cfg.val_evaluator) == found
    assert cfg.test_evaluator.type == found[0]


def test_asked_for_and_not_there(monkeypatch):
    monkeypatch.setattr(coco_metric, 'find_spec', lambda name: None)
    with pytest.raises(UserError, match='pip install faster-coco-eval; without: --cfg-options'):
        choose_coco_metric(config('FasterCocoMetric'))


@pytest.fixture(scope='module')
def crowded(tmp_path_factory):
    """Objects of three classes and all sizes, groups among them, and predictions near to them."""
    rng = np.random.default_rng(0)
    images, annotations, predictions = [], [], []
    for number in range(1, 13):
        images.append(dict(id=number, width=160, height=160, file_name=f'{number}.png'))
        boxes, masks = [], []
        for _ in range(rng.integers(0, 14)):
            (x, y), (w, h) = rng.uniform(0, 60, 2), rng.uniform(4, 100, 2)
            polygon = [x, y, x + w, y, x + w, y + h, x + w / 2, y + h * 0.7, x, y + h]
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=number,
                    category_id=int(rng.choice([3, 1, 7])),
                    bbox=[x, y, w, h],
                    area=w * h * 0.85,
                    iscrowd=int(rng.random() < 0.1),
                    segmentation=[polygon],
                )
            )
            for _ in range(rng.integers(0, 3)):
                dx, dy, dw, dh = rng.normal(0, 3, 4)
                x1, y1 = max(x + dx, 0), max(y + dy, 0)
                boxes.append([x1, y1, x1 + max(w + dw, 2), y1 + max(h + dh, 2)])
                mask = np.zeros((160, 160), bool)
                mask[int(y1) : int(boxes[-1][3]), int(x1) : int(boxes[-1][2])] = True
                masks.append(mask)
        predictions.append(
            dict(
                img_id=number,
                ori_shape=(160, 160),
                pred_instances=dict(
                    bboxes=torch.tensor(np.array(boxes).reshape(-1, 4)),
                    labels=torch.tensor(rng.integers(0, 3, len(boxes))),
                    scores=torch.tensor(rng.random(len(boxes)).round(1)),  # some are equal
                    masks=torch.tensor(np.array(masks, bool).reshape(-1, 160, 160)),
                ),
            )
        )
    file = tmp_path_factory.mktemp('coco') / 'truth.json'
    categories = [dict(id=number, name=name) for number, name in ((3, 'c'), (1, 'a'), (7, 'b'))]
    file.write_text(json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    return file, predictions


def scores(kind, file, predictions):
    init_default_scope('mmdet')
    metric = METRICS.build(
        dict(type=kind, ann_file=str(file), metric=['bbox', 'segm'], metric_items=ITEMS)
    )
    metric.dataset_meta = dict(classes=('c', 'a', 'b'))
    metric.process({}, predictions)
    return metric.evaluate(len(predictions))


def test_the_same_twelve_numbers_of_boxes_and_masks(crowded):
    pytest.importorskip('mmdet')
    pytest.importorskip('faster_coco_eval')
    if not coco_metric.known(config('CocoMetric')):
        pytest.skip('this MMDetection has no FasterCocoMetric')
    slow, fast = (scores(kind, *crowded) for kind in ('CocoMetric', 'FasterCocoMetric'))
    assert fast == slow and len(slow) == 24
    assert len(set(slow.values())) > 10  # which are not all 0 or 1
