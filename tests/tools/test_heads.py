"""docs/heads.md says what tools/dev/heads.py finds: here for a few heads, make torture for all."""

import logging
from importlib.util import find_spec

import heads
import pytest
from mmengine.logging import MMLogger

PAGE = heads.PAGE.read_text()
ROWS = heads.rows_of(PAGE)
ALL = [(scope, group, name) for (scope, group), names in heads.HEADS.items() for name in names]
FEW = """
    faster-rcnn_r50-caffe-dc5_1x_coco retinanet_r50_fpn_1x_coco yolox_tiny_8xb8-300e_coco
    ssd300_coco detr_r50_8xb2-150e_coco yolact_r50_1xb8-55e_coco
    mask2former_r50_8xb2-lsj-50e_coco-panoptic
    soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco
    deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024 ocrnet_hr18_4xb2-40k_cityscapes-512x1024
    segformer_mit-b0_8xb2-160k_ade20k-512x512 resnet50_8xb32_in1k
    mocov2_resnet50_8xb32-coslr-200e_in1k simclr_resnet50_8xb32-coslr-200e_in1k
    Detr DeepLabV3Plus MaskRCNN Trainer""".split()


def cells(line):
    return [cell.strip() for cell in line.split('|')[2:-2]]


def check(scope, group, name, columns):
    """What the page promises holds; with more operators or packages, more may."""
    if find_spec(scope) is None:
        pytest.skip(f'{scope} is not here')
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        found = heads.try_head(scope, name, columns)
    finally:
        logger.setLevel(level)
    promised = dict(zip(('builds', *heads.CELLS), cells(ROWS[group, name]), strict=True))
    for column in ('builds', *columns):
        if promised[column] == 'yes':
            assert found[column] == (True, ''), column


@pytest.mark.parametrize('scope, group, name', [head for head in ALL if head[2] in FEW])
def test_few_heads(scope, group, name):
    check(scope, group, name, [column for column in heads.CELLS if column != 'exports'])


@pytest.mark.torture
@pytest.mark.parametrize('scope, group, name', ALL)
def test_all_heads(scope, group, name):
    check(scope, group, name, list(heads.CELLS))


def test_page_lists_the_heads_of_the_program():
    """If this fails: python tools/dev/heads.py."""
    assert set(ROWS) == {(group, name) for _, group, name in ALL}
    assert heads.with_rows(PAGE, ROWS) == PAGE
    assert {cell for line in ROWS.values() for cell in cells(line)} <= {'yes', 'no', '–'}
    assert set(FEW) <= {name for *_, name in ALL}


@pytest.mark.parametrize(
    'scope, least', [('mmdet', 30), ('mmseg', 12), ('mmpretrain', 10), ('torchvision', 4)]
)
def test_page_promises_that_many_heads(scope, least):
    lines = [ROWS[group, name] for s, group, name in ALL if s == scope]
    assert sum(cells(line)[:5] in (['yes'] * 5, ['yes'] * 4 + ['–']) for line in lines) >= least
