"""What is found in tiles is what is found in the whole image."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT
from tiny_models import tiny_config, tiny_model

from convmlp_backbone.errors import UserError
from convmlp_backbone.tiling.dense import ALL, TiledDenseDetector, cells_seen
from convmlp_backbone.tiling.detectors import TiledDetector, merged
from convmlp_backbone.tiling.grid import tiles
from convmlp_backbone.tiling.job import tiled
from convmlp_backbone.tiling.reading import Pixels
from convmlp_backbone.tiling.resizing import Resized


def predictor_of(kind, **changes):
    """What of a CheckpointPredictor is asked for."""
    cfg = tiny_config(kind, ROOT, **changes)
    toolbox = pytest.importorskip(f'{cfg.default_scope}.structures')
    sample = dict(mmdet='DetDataSample', mmseg='SegDataSample').get(cfg.default_scope, 'DataSample')
    return SimpleNamespace(
        model=tiny_model(cfg),
        scope=cfg.default_scope,
        channels=3,
        own_files=False,
        steps=[],
        sample=getattr(toolbox, sample),
    )


def photo(height, width):
    cv2 = pytest.importorskip('cv2')
    small = np.random.default_rng(0).integers(0, 256, (height // 16, width // 16, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)


def whole_and_tiled(predictor, image, shape, size, halo=None):
    """The toolbox's own result, and the network, its tiles' and their places."""
    import cv2

    network, original = tiled(predictor, halo), image.shape[:2]
    pixels = Pixels(image) if shape == original else Resized(Pixels(image), shape)
    inputs = cv2.resize(image, shape[::-1])[..., ::-1].transpose(2, 0, 1)
    sample = predictor.sample(
        metainfo=dict(
            img_shape=shape,
            ori_shape=original,
            scale_factor=(shape[1] / original[1], shape[0] / original[0]),
        )
    )
    with torch.no_grad():
        (whole,) = predictor.model.test_step(
            dict(inputs=[torch.from_numpy(inputs.copy())], data_samples=[sample])
        )
    grid = list(tiles(shape, size, network.halo, network.step))
    found = [network(pixels.window(*tile.window), tile, shape, original) for tile in grid]
    return whole, network, found, [tile.core.scaled(shape, original) for tile in grid]


@pytest.mark.parametrize('shape', [(203, 1100), (230, 1207), (101, 550), (500, 1600)])
def test_classes_are_those_of_the_whole_image(shape):
    """Pixel for pixel, and so for images that are resized."""
    image = photo(203, 1100)
    whole, network, found, places = whole_and_tiled(predictor_of('segmentor'), image, shape, 128)
    assert not network.warnings and network.halo < 500
    classes = np.full(image.shape[:2], 255, np.uint8)
    for tile, place in zip(found, places, strict=True):
        classes[place.top : place.bottom, place.left : place.right] = tile['classes']
    expected = whole.pred_sem_seg.data[0].numpy()
    assert (classes == expected).all()
    assert np.bincount(expected.flat).min() > 1000  # of the three classes


def test_classes_with_too_small_a_halo_are_others():
    image = photo(96, 1100)
    predictor = predictor_of('segmentor')
    whole, network, found, places = whole_and_tiled(predictor, image, image.shape[:2], 128, halo=0)
    assert 'sees' in network.warnings[0] and '--halo 0' in network.warnings[0]
    expected = whole.pred_sem_seg.data[0].numpy()
    wrong = [
        (tile['classes'] != expected[place.top : place.bottom, place.left : place.right]).sum()
        for tile, place in zip(found, places, strict=True)
    ]
    assert sum(wrong) > 0


NO_LIMITS = dict(nms_pre=100_000, max_per_img=100_000, score_thr=0.3)


@pytest.mark.parametrize('shape', [(230, 1900), (299, 2470)])
def test_boxes_are_those_of_the_whole_image(shape):
    """Of any size, as suppression is of the whole image."""
    predictor = predictor_of('retinanet', test_cfg=NO_LIMITS)
    image = photo(230, 1900)
    whole, network, found, _ = whole_and_tiled(predictor, image, shape, 256)
    assert type(network) is TiledDenseDetector and not network.warnings
    objects, expected = merged(network, found), whole.pred_instances.numpy()
    assert len(expected.bboxes) > 300
    assert len(objects['boxes']) == len(expected.bboxes)
    assert abs(objects['scores'] - expected.scores).max() < 1e-5

    def in_order(boxes, labels):
        return boxes[np.lexsort((*boxes.round(1).T, labels))]

    assert np.allclose(
        in_order(objects['boxes'], objects['labels']),
        in_order(expected.bboxes, expected.labels),
        atol=1e-2,
    )


def test_masks_are_those_of_the_whole_image():
    """But for few boxes, since suppression of proposals sees a window."""
    from pycocotools import mask as coco

    limits = dict(nms_pre=100_000, max_per_img=100_000)
    predictor = predictor_of(
        'maskrcnn',
        test_cfg=dict(
            rpn=dict(limits, nms=dict(iou_threshold=0.3)),
            rcnn=dict(score_thr=0.3, max_per_img=5000),
        ),
    )
    image = photo(160, 1200)
    whole, network, found, _ = whole_and_tiled(predictor, image, image.shape[:2], 256)
    assert type(network) is TiledDetector and not network.warnings
    objects, expected = merged(network, found), whole.pred_instances.numpy()
    apart = abs(objects['boxes'][:, None] - expected.bboxes[None]).max(2)
    apart += 1000 * (objects['labels'][:, None] != expected.labels[None])
    nearest, same = apart.argmin(1), apart.min(1) < 1e-2
    assert len(expected.bboxes) > 200
    assert (~same).sum() <= 0.02 * len(same) and (apart.min(0) >= 1e-2).mean() <= 0.02
    for (tile, row), index in list(zip(objects['places'], nearest, strict=True))[:200]:
        if apart[:, index].min() >= 1e-2:
            continue
        own = found[tile]
        top, left, height, width = own['cutouts'][row]
        end = own['lengths'][: row + 1].sum()
        code = own['codes'][end - own['lengths'][row] : end].tobytes()
        pixels = np.zeros(image.shape[:2], bool)
        pixels[top : top + height, left : left + width] = coco.decode(
            dict(size=[height, width], counts=code)
        )
        # Boxes that differ in the last digit can move a pixel across the threshold.
        assert (pixels != expected.masks[index]).sum() <= 2


@pytest.mark.parametrize(
    'changes, cells',
    [
        ({}, 2),
        (dict(bbox_head=dict(stacked_convs=3)), 4),
        (dict(bbox_head=dict(norm_cfg=dict(type='GN', num_groups=2))), ALL),
    ],
)
def test_how_far_a_head_sees(changes, cells):
    assert cells_seen(predictor_of('retinanet', **changes).model, 3) == cells


def test_heads_that_read_their_anchors_or_have_other_suppression():
    predictor = predictor_of('retinanet')
    forward = predictor.model.bbox_head.forward
    predictor.model.bbox_head.forward = lambda maps: (
        predictor.model.bbox_head.prior_generator.grid_priors,
        forward(maps),
    )[1]
    assert type(tiled(predictor)) is TiledDetector
    soft = predictor_of('retinanet', test_cfg=dict(nms=dict(type='soft_nms')))
    assert cells_seen(soft.model, 3) is None


def test_limits_grow_with_windows():
    predictor = predictor_of('maskrcnn', test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50)))
    network = tiled(predictor)
    for _ in range(2):
        network.fit(3 * 512 * 512)
        cfg = predictor.model.test_cfg
        assert (cfg.rpn.nms_pre, cfg.rpn.max_per_img, cfg.rcnn.max_per_img) == (600, 150, 300)
    network.fit(100)
    assert predictor.model.rpn_head.test_cfg.nms_pre == 200


@pytest.mark.parametrize(
    'kind, changes, words',
    [
        ('segmentor', dict(decode_head=dict(align_corners=True)), 'align_corners=True'),
        ('segmentor', dict(decode_head=dict(norm_cfg=dict(type='GN', num_groups=2))), 'GroupNorm'),
        ('segmentor', dict(data_preprocessor=dict(test_cfg=dict(size_divisor=8))), 'divisor=8'),
    ],
)
def test_what_is_not_exact_is_told(kind, changes, words):
    network = tiled(predictor_of(kind, **changes))
    assert any(words in line for line in network.warnings) and network.halo


@pytest.mark.parametrize(
    'kind, changes, words',
    [
        ('classifier', {}, 'classifier'),
        ('segmentor', dict(test_cfg=dict(mode='slide', crop_size=(9, 9), stride=(9, 9))), 'slide'),
        (
            'segmentor',
            dict(data_preprocessor=dict(test_cfg=dict(_delete_=True, size=(64, 64)))),
            'size_divisor',
        ),
    ],
)
def test_what_cannot_be_tiled_is_told_in_one_line(kind, changes, words):
    predictor = predictor_of(kind, **changes)
    with pytest.raises(UserError, match=words):
        tiled(predictor)
