"""Files of every model and format, and what the commands do with them."""
import copy
import json

import pytest
from conftest import ROOT
from tiny_models import CLASSES, tiny_config, tiny_model

from convmlp_backbone.deploy.agreement import Program, agreement
from convmlp_backbone.deploy.facts import facts_of
from convmlp_backbone.deploy.files import convert, trace, unfinished, write_pt2
from convmlp_backbone.deploy.models import exportable
from convmlp_backbone.runtime import Runtime, read_image

# Levels as few as possible: each takes seconds to export.
CHANGES = dict(
    retinanet=dict(neck=dict(num_outs=3), test_cfg=dict(score_thr=0.2), bbox_head=dict(
        anchor_generator=dict(strides=[8, 16, 32]))),
    maskrcnn=dict(neck=dict(num_outs=4), test_cfg=dict(rcnn=dict(score_thr=0.3)), rpn_head=dict(
        anchor_generator=dict(strides=[4, 8, 16, 32]))),
    segmentor={}, classifier={})
TOOLBOX = dict(retinanet='mmdet', maskrcnn='mmdet', segmentor='mmseg', classifier='mmpretrain')


class Exported:
    """A tiny model and its files."""

    def __init__(self, kind, folder):
        self.cfg = tiny_config(kind, ROOT, **CHANGES[kind])
        self.model = tiny_model(self.cfg)
        module = exportable(copy.deepcopy(self.model), self.cfg.model.data_preprocessor)
        self.facts = facts_of(self.cfg, module)
        self.program = trace(module)
        self.onnx = folder / f'{kind}.onnx'
        with unfinished(self.program, self.onnx, self.facts):
            pass


@pytest.fixture(scope='session')
def exported(tmp_path_factory):
    made = {}

    def export(kind):
        pytest.importorskip(TOOLBOX[kind])
        if kind not in made:
            made[kind] = Exported(kind, tmp_path_factory.mktemp(kind))
        return made[kind]
    return export


def runtimes(exported, folder):
    """Every way to run it."""
    yield Runtime(exported.onnx)
    yield Runtime(exported.onnx, 'openvino')
    convert(exported.onnx, folder / 'x.xml', exported.facts)
    yield Runtime(folder / 'x.xml')
    write_pt2(exported.program, folder / 'x.pt2', exported.facts)
    yield Program(folder / 'x.pt2')


@pytest.mark.parametrize('kind', CHANGES)
def test_every_format_predicts_the_same(kind, exported, coins, tmp_path):
    exported = exported(kind)
    photos = [read_image(coins / f'train/0{i}.png') for i in range(4)]
    for runtime in runtimes(exported, tmp_path):
        assert runtime.facts == json.loads(json.dumps(exported.facts))
        rows = list(agreement(exported.model, runtime, photos))
        assert len(rows) >= 13
        if exported.facts['task'] in ('detection', 'instances'):
            assert sum(row.found > 0 for row in rows) > 10


def test_facts(exported):
    facts = exported('maskrcnn').facts
    assert facts['task'] == 'instances' and facts['classes'] == list(CLASSES)
    assert facts['mean'] == [123.675, 116.28, 103.53] and facts['channels'] == 'rgb'
    assert facts['palette'] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]] and facts['stride'] == 32
    assert facts['resize'] == [dict(step='resize', interpolation='cv2-bilinear',
                                    factor=[256 / 250] * 2)]
