"""Files of every model and format, and what the commands do with them."""

import copy
import json
import re
import shutil
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from tiny_models import ARCH, CLASSES, tiny_config, tiny_model

from convmlp_backbone import ConvMLP
from convmlp_backbone.deploy import quantisation
from convmlp_backbone.deploy.agreement import Program, agreement, open_file
from convmlp_backbone.deploy.evaluation import require_as_good
from convmlp_backbone.deploy.facts import IMAGENET, facts_of
from convmlp_backbone.deploy.files import convert, trace, unfinished, write_pt2
from convmlp_backbone.deploy.forms import difference
from convmlp_backbone.deploy.models import exportable
from convmlp_backbone.errors import UserError
from convmlp_backbone.runtime import Detections, Runtime, read_image

# Levels as few as possible: each takes seconds to export.
CHANGES = dict(
    retinanet=dict(
        neck=dict(num_outs=3),
        test_cfg=dict(score_thr=0.2),
        bbox_head=dict(anchor_generator=dict(strides=[8, 16, 32])),
    ),
    maskrcnn=dict(
        neck=dict(num_outs=4),
        test_cfg=dict(rcnn=dict(score_thr=0.3)),
        rpn_head=dict(anchor_generator=dict(strides=[4, 8, 16, 32])),
    ),
    segmentor={},
    classifier={},
)
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
    convert(exported.onnx, folder / 'x.xml', exported.facts)
    yield Runtime(folder / 'x.xml')
    write_pt2(exported.program, folder / 'x.pt2', exported.facts)
    yield Program(folder / 'x.pt2')


@pytest.mark.parametrize('kind', CHANGES)
def test_every_format_predicts_the_same(kind, exported, coins, tmp_path):
    exported = exported(kind)
    photos = [read_image(coins / f'train/0{i}.png')[:180] for i in range(4)]
    for runtime in runtimes(exported, tmp_path):
        assert runtime.facts == json.loads(json.dumps(exported.facts))
        rows = list(agreement(exported.model, runtime, photos, [(64, 64), (97, 161)], (1, 5)))
        assert len(rows) == 6
        if exported.facts['task'] in ('detection', 'instances'):
            assert max(row.found for row in rows) > 20


def test_facts(exported):
    facts = exported('maskrcnn').facts
    assert facts['task'] == 'instances' and facts['classes'] == list(CLASSES)
    assert facts['mean'] == [123.675, 116.28, 103.53] and facts['channels'] == 'rgb'
    assert facts['palette'] == [[255, 0, 0], [0, 255, 0], [0, 0, 255]] and facts['stride'] == 32
    assert facts['resize'] == [
        dict(step='resize', interpolation='cv2-bilinear', factor=[256 / 250] * 2)
    ]


def environment(folder, *packages):
    """The Python of a new environment that holds these, and what they need, of this one."""
    venv.create(folder)
    (site,) = folder.glob('lib/python*/site-packages')
    packages = list(packages)
    for name in packages:
        found = distribution(name)
        packages += [
            need
            for line in found.requires or ()
            if ';' not in line and (need := re.match(r'[\w.-]+', line)[0]) not in packages
        ]
        for top in {file.parts[0] for file in found.files} - {'..'}:
            (site / top).symlink_to(found.locate_file(top))
    return folder / 'bin/python'


@pytest.mark.parametrize('backend', ['onnxruntime', 'openvino'])
def test_runtime_needs_no_toolbox(backend, exported, coins, tmp_path):
    """In an environment of three packages: as part of the package, and alone in a folder."""
    exported = exported('classifier')
    python = environment(tmp_path / 'venv', 'numpy', 'pillow', backend)
    shutil.copy(ROOT / 'convmlp_backbone/runtime.py', tmp_path)
    scores = Runtime(exported.onnx)(coins / 'val/00.png')
    for module, path in (('runtime', tmp_path), ('convmlp_backbone.runtime', ROOT)):
        done = subprocess.run(
            [python, '-m', module, exported.onnx, coins / 'val/00.png'],
            cwd=path,
            text=True,
            capture_output=True,
            env={'PATH': ''},
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found['label'] == scores.argmax()
        assert found['score'] == pytest.approx(scores.max(), 1e-4)
    code = 'from convmlp_backbone import ConvMLP'
    done = subprocess.run([python, '-c', code], cwd=ROOT, text=True, capture_output=True)
    assert 'convmlp_backbone.ConvMLP needs mmengine, which is not installed' in done.stderr


def test_test_and_predict_take_a_file(exported, coins, call_tool, tmp_path, restore_loaders):
    """The metrics, the JSON and the pictures of the checkpoint."""
    exported = exported('retinanet')
    for name, classes in (('one.json', ('coin',)), ('tiny.json', CLASSES)):
        for split in ('train', 'val', 'test'):
            exported.cfg[f'{split}_dataloader'].dataset.metainfo = dict(classes=classes)
        exported.cfg.model.bbox_head.num_classes = len(classes)
        exported.cfg.dump(name)
    torch.save(
        dict(
            state_dict=exported.model.state_dict(),
            meta=dict(dataset_meta=dict(classes=CLASSES, palette=exported.facts['palette'])),
        ),
        'x.pth',
    )
    results = []
    for arguments in (['tiny.json', 'x.pth'], [exported.onnx]):
        out = Path(f'out{len(results)}')
        call_tool('predict', *arguments, coins / 'train', '--out-dir', out, '--batch', 3)
        results.append(
            (
                json.loads((out / 'predictions.json').read_text()),
                [read_image(path) for path in sorted((out / 'vis').iterdir())],
            )
        )
    (theirs, pictures), (ours, drawn) = results
    assert len(theirs) == len(ours) > 32 and len(drawn) == len(pictures) == 32
    for a, b in zip(theirs, ours, strict=True):
        assert a['file_name'] == b['file_name'] and a['category_name'] == b['category_name']
        assert a['score'] == pytest.approx(b['score'], abs=1e-4)
        assert a['bbox'] == pytest.approx(b['bbox'], abs=1e-2)
    assert sum((a != b).mean() < 1e-3 for a, b in zip(pictures, drawn, strict=True)) >= 30
    assert 'knows 3 classes' in call_tool('test', 'one.json', exported.onnx, '--data-root', coins)


@pytest.fixture
def coins_segmentor(exported, coins, tmp_path, monkeypatch, restore_loaders):
    """Arguments of a tiny segmentor with its data."""
    monkeypatch.chdir(tmp_path)
    exported = exported('segmentor')
    torch.save(exported.model.state_dict(), 'x.pth')
    for split in ('train', 'val', 'test'):
        exported.cfg[f'{split}_dataloader'].dataset.metainfo = dict(
            classes=CLASSES, palette=exported.facts['palette']
        )
    exported.cfg.dump('tiny.json')
    return 'tiny.json', '--checkpoint', 'x.pth', '--data-root', coins


def test_same_metrics(coins_segmentor, exported, call_tool):
    config, *_, root = coins_segmentor
    found = [
        json.loads(call_tool('test', config, file, '--data-root', root, '--json'))
        for file in ('x.pth', exported('segmentor').onnx)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-4) and 'mIoU' in found[0]
    for file in ('x.pth', exported('segmentor').onnx):
        out = call_tool('test', config, file, '--data-root', root, '--precision', 'auto')
        assert '--precision auto: ' in out


def test_int8(coins_segmentor, call_tool, tmp_path):
    pytest.importorskip('nncf')
    config, *rest = coins_segmentor
    images = next(folder for folder in (rest[-1]).rglob('val') if list(folder.glob('*.png')))
    rest += ['--precision', 'int8', '--calibrate', images]
    out = call_tool('export', config, 'x.xml', *rest, '--max-drop', '1')
    assert all(re.search(rf'^{form}: mIoU 0\.', out, re.M) for form in ('f32', 'bf16', 'int8'))
    runtime = Runtime('x.xml')
    assert runtime.precision == 'int8' and runtime.facts['task'] == 'segmentation'
    for size in ((64, 64), (97, 161)):  # other than those calibrated on
        images = np.random.default_rng(0).integers(0, 256, (2, *size, 3), dtype=np.uint8)
        assert runtime.run(images)['labels'].shape == (2, *size)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['x.pt2', '--precision', 'bf16'], 'x.pt2 runs in f32 only'),
        (['x.onnx', '--calibrate', '.'], 'only with --precision int8'),
        (['x.onnx', '--max-drop', 'nan'], '--max-drop nan: expected a number from 0 to 1'),
        (['x.onnx', '--precision', 'int8'], 'pip install "convmlp-backbone[int8]"'),
        (['file/x.onnx'], 'file: Not a directory'),
    ],
)
def test_what_is_refused_at_once(arguments, words, call_tool, tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setattr(quantisation, 'find_spec', lambda name: None)
    assert words in call_tool('export', 'retinanet_convmlp_s_fpn_coins', *arguments)


def test_benchmark(coins_segmentor, call_tool, tmp_path):
    config, *rest = coins_segmentor
    arguments = [config, *rest, '--turns', '2', '--shape', '64', '96', '--metric', '--json']
    found = json.loads(call_tool('benchmark', *arguments))
    assert [row['form'] for row in found['rows']] == [
        'PyTorch eager',
        'PyTorch eager bf16',
        'PyTorch fused',
        'PyTorch fused bf16',
        'ONNX Runtime f32',
        'OpenVINO f32',
        'OpenVINO bf16',
    ]
    first, bf16, *_, last = found['rows']
    assert 'tiny.json, 1 x 64 x 96; ' in found['machine'] and 'torch 2.' in found['machine']
    assert first['speed'] == 1 and first['difference'] == '0.00% of pixels' != bf16['difference']
    assert 0 < first['mIoU'] <= 1 and last['mIoU'] == pytest.approx(first['mIoU'], abs=0.02)
    assert {path.name for path in (tmp_path / 'work_dirs/benchmark').iterdir()} == {
        'benchmark.md',
        'benchmark.json',
        'benchmark.png',
        'photo.jpg',
    }
    assert 'expected 1 or more' in call_tool('benchmark', config, '--turns', '0')
    assert 'is a backbone' in call_tool('benchmark', 's', '--metric')


def test_differences_in_words():
    boxes = np.float32([[0, 0, 10, 10], [20, 20, 40, 40], [50, 50, 60, 60]])
    theirs = [Detections(boxes, np.float32([0.9, 0.5, 0.1]), np.array([0, 1, 1]), None)]
    ours = [Detections(boxes[:2] + np.float32(1), np.float32([0.8, 0.5]), np.array([0, 0]), None)]
    assert difference(theirs, theirs, 'detection') == 'scores 0.0e+00, boxes 0.0e+00 px'
    words = difference(ours, theirs, 'detection')
    assert words == 'scores 1.0e-01, boxes 1.0e+00 px, 1 of 2 lost'
    none = [Detections(*(part[2:] for part in theirs[0][:3]), None)]
    assert difference(theirs, none, 'detection') == 'no objects'


def test_as_good():
    metrics = dict(f32=dict(mAP=0.5, top1=0.9), bf16=dict(mAP=0.5, top1=0.9), int8=dict(mAP=0.496))
    metrics['int8']['top1'] = 0.95
    require_as_good(metrics, 0.005)
    metrics['int8']['mAP'] = float('nan')
    with pytest.raises(UserError, match='mAP drops by nan'):
        require_as_good(metrics, 0.005)
    metrics['int8']['mAP'] = 0.4
    words = r'mAP drops by 0.1000, more .* 0.005 allows: f32 0.5000, bf16 0.5000, int8 0.4000'
    with pytest.raises(UserError, match=words):
        require_as_good(metrics, 0.005)


def test_a_backbone(tmp_path):
    model = ConvMLP(ARCH).eval()
    module = exportable(copy.deepcopy(model), IMAGENET, normalised=True)
    photos = list(np.random.default_rng(0).integers(0, 256, (2, 33, 50, 3), dtype=np.uint8))
    program, facts = trace(module), facts_of({}, module)
    for name, smallest in (('x.onnx', 1), ('x.pt2', 33)):
        with pytest.raises(ZeroDivisionError):
            with unfinished(program, tmp_path / name, facts):
                raise ZeroDivisionError
        assert not list(tmp_path.glob(f'*{name[1:]}'))
        with unfinished(program, tmp_path / name, facts) as part:
            sizes = [(smallest, smallest), (97, 161)]
            assert len(list(agreement(model, open_file(part), photos, sizes))) == 9
        assert (tmp_path / name).is_file()
    assert facts['outputs'] == ['F1', 'F2', 'F3', 'F4'] and facts['stride'] == 32


def test_the_command(call_tool, tmp_path, coins, restore_loaders):
    pytest.importorskip('mmpretrain')
    tiny_config('classifier', ROOT).dump('tiny.json')
    torch.save(tiny_model(tiny_config('classifier', ROOT)).state_dict(), 'x.pth')
    arguments = ['tiny.json', '--checkpoint', 'x.pth', '--images', coins / 'val']
    out = call_tool('export', *arguments[:1], 'x.xml', *arguments[1:], '--precision', 'bf16')
    assert '5 x 97 x 161: scores differ by' in out and 'classification, any batch' in out
    assert re.search(r'in bfloat16, 1 x \d+ x \d+: scores differ by \d', out)
    assert Runtime('x.xml').precision == 'bf16'
    assert Runtime('x.xml').facts['resize'][0]['scale'] == [64, 64]
    assert 'x.xml exists already' in call_tool('export', 'tiny.json', 'x.xml')
    assert 'ends in .onnx' in call_tool('export', 'tiny.json', 'x.engine')
    assert sorted(path.name for path in tmp_path.glob('*x.*')) == ['x.bin', 'x.pth', 'x.xml']
