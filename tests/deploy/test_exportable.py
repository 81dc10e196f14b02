"""The modules that are exported, against the toolboxes' own predictions."""

import copy
import re

import numpy as np
import pytest
import torch
from tiny_models import CLASSES, tiny_config, tiny_model

from convmlp_backbone.deploy.agreement import agreement, differ
from convmlp_backbone.deploy.facts import facts_of, resize_steps
from convmlp_backbone.deploy.models import exportable
from convmlp_backbone.errors import UserError
from convmlp_backbone.runtime import Detections, Runtime

NEEDS = dict(retinanet='mmdet', maskrcnn='mmdet', segmentor='mmseg', classifier='mmpretrain')
RCNN = dict(score_thr=0.3)


class Unwritten(Runtime):
    """A module as if it were a file."""

    def __init__(self, module, cfg):
        self.file, self.facts = 'none', facts_of(cfg, module)

        def run(inputs):
            with torch.no_grad():
                found = module(*map(torch.from_numpy, inputs))
            return [x.numpy() for x in (found if isinstance(found, tuple) else [found])]

        self._run = run


def photos(number=4):
    """Images with structure of all scales."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (number, 15, 20, 3), dtype=np.uint8)
    return list(
        coarse.repeat(6, 1).repeat(6, 2) // 2
        + random.integers(0, 128, (number, 90, 120, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize(
    'kind, changes',
    [
        ('retinanet', dict(test_cfg=dict(score_thr=0.05))),
        ('retinanet', dict(test_cfg=dict(score_thr=0.2, max_per_img=7))),
        ('retinanet', dict(test_cfg=dict(score_thr=0.999999))),  # nothing
        ('retinanet', dict(test_cfg=dict(nms=dict(iou_threshold=0.2, class_agnostic=True)))),
        ('retinanet', dict(test_cfg=dict(min_bbox_size=20, nms_pre=1000))),
        ('retinanet', dict(classes=CLASSES[:1], bbox_head=dict(num_classes=1))),
        ('maskrcnn', dict(test_cfg=dict(rcnn=RCNN))),
        ('maskrcnn', dict(test_cfg=dict(rcnn=dict(score_thr=0.999999)))),
        ('maskrcnn', dict(test_cfg=dict(rcnn=dict(score_thr=0.05, max_per_img=300)))),
        (
            'maskrcnn',
            dict(
                test_cfg=dict(rcnn=RCNN),
                roi_head=dict(
                    bbox_head=dict(reg_class_agnostic=True), mask_head=dict(class_agnostic=True)
                ),
            ),
        ),
        ('maskrcnn', dict(test_cfg=dict(rcnn=RCNN), roi_head=dict(mask_head=None))),
        ('segmentor', {}),
        ('segmentor', dict(decode_head=dict(align_corners=True))),
        ('segmentor', dict(data_preprocessor=dict(bgr_to_rgb=False))),
        ('classifier', {}),
        (
            'classifier',
            dict(
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='MultiLabelLinearClsHead'),
            ),
        ),
        ('classifier', dict(neck=None, head=dict(type='CSRAClsHead', num_heads=1, lam=0.1))),
    ],
)
def test_same_predictions(kind, changes, pytestconfig, normalised=False):
    pytest.importorskip(NEEDS[kind])
    cfg = tiny_config(kind, pytestconfig.rootpath, **changes)
    model = tiny_model(cfg)
    module = exportable(copy.deepcopy(model), cfg.model.data_preprocessor, normalised)
    rows = list(
        agreement(model, Unwritten(module, cfg), photos(), sizes=[(64, 65)], batches=(1, 3))
    )
    assert len(rows) == 4
    if 'counts' in module.outputs:
        strict = 0.999 < (module.cfg.get('rcnn') or module.cfg).get('score_thr', 0)
        assert bool(sum(row.found for row in rows)) != strict


@pytest.mark.parametrize('kind', NEEDS)
@pytest.mark.parametrize('rgb', [True, False])
def test_normalised_outside(kind, rgb, pytestconfig):
    changes = {} if kind == 'classifier' else dict(data_preprocessor=dict(bgr_to_rgb=rgb))
    test_same_predictions(kind, changes, pytestconfig, normalised=True)


def test_predictions_that_differ(pytestconfig):
    pytest.importorskip('mmpretrain')
    cfg = tiny_config('classifier', pytestconfig.rootpath)
    model = tiny_model(cfg)
    runtime = Unwritten(exportable(copy.deepcopy(model), cfg.data_preprocessor), cfg)
    wrong = runtime._run
    runtime._run = lambda inputs: [scores + np.float32(1e-3) for scores in wrong(inputs)]
    with pytest.raises(UserError, match='not written: scores differ by 1.0e-03'):
        list(agreement(model, runtime, photos()))


@pytest.mark.parametrize(
    'kind, changes, words',
    [
        (
            'retinanet',
            dict(test_cfg=dict(nms=dict(type='soft_nms'))),
            "test_cfg.nms.type='soft_nms'",
        ),
        ('retinanet', dict(test_cfg=dict(nms_pre=-1)), 'test_cfg.nms_pre=-1'),
        (
            'maskrcnn',
            dict(test_cfg=dict(rcnn=dict(max_per_img=-1))),
            'test_cfg.rcnn.max_per_img=-1',
        ),
        (
            'segmentor',
            dict(test_cfg=dict(mode='slide', stride=(8, 8), crop_size=(16, 16))),
            "test_cfg.mode='slide'",
        ),
        ('segmentor', dict(backbone=None), 'no ConvMLP'),
    ],
)
def test_what_cannot_be_exported(kind, changes, words, pytestconfig):
    pytest.importorskip(NEEDS[kind])
    cfg = tiny_config(
        kind, pytestconfig.rootpath, **{key: value for key, value in changes.items() if value}
    )
    model = tiny_model(cfg)
    if 'backbone' in changes:
        model.backbone = torch.nn.Identity()
    with pytest.raises(UserError, match=re.escape(words)):
        exportable(model, cfg.model.data_preprocessor)


def test_pipelines_that_cannot_be_carried():
    for step in (
        dict(type='mmdet.Resize', scale=(9, 9), interpolation='bicubic'),
        dict(type='Pad', size_divisor=32),
    ):
        cfg = dict(test_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=[step])))
        with pytest.raises(UserError, match='cannot carry|can carry'):
            resize_steps(cfg)


def test_differences_between_detections():
    boxes = np.float32([[0, 0, 9, 9], [5, 5, 20, 20], [5, 5, 20, 20.005]])
    theirs = Detections(boxes, np.float32([0.9, 0.5, 0.5]), np.array([0, 1, 1]), None)
    swapped = Detections(boxes[[0, 2, 1]], *theirs[1:])
    assert differ(swapped, theirs) == dict(boxes=0, scores=0)
    moved = differ(theirs._replace(boxes=boxes + np.float32([[0.5], [0], [0]])), theirs)
    assert moved['boxes'] == 0.5
    assert differ(Detections(*(part[:2] for part in theirs[:3]), None), theirs) == dict(number=1)
    assert differ(theirs._replace(labels=np.array([1, 1, 1])), theirs) == dict(labels=np.inf)
    nothing = Detections(boxes[:0], boxes[:0, 0], np.array([], int), None)
    assert differ(nothing, nothing) == dict(boxes=0, scores=0)
