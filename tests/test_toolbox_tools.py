"""The toolboxes' own tools and inferencers work on our configs and data as they are."""

import importlib
import inspect
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from tiny_models import tiny_config

from convmlp_backbone.commands.models import build_from_config

ANALYSIS = 'tools/analysis_tools/'
CHANGES = dict(
    # What a picture of the training's settings takes is no time for a test.
    num_workers=0,
    persistent_workers=False,
)


@pytest.fixture(scope='module')
def made(tmp_path_factory, coins):
    """A folder with ``data/coins``, a small detector and a small segmentor of it."""
    folder = tmp_path_factory.mktemp('toolboxes')
    (folder / 'data').mkdir()
    (folder / 'data/coins').symlink_to(coins)
    for kind, classes in (('retinanet', ('coin',)), ('segmentor', ('background', 'coin'))):
        cfg = tiny_config(kind, ROOT, classes)
        for split in ('train', 'val', 'test'):
            cfg[f'{split}_dataloader'].update(CHANGES)
        heads = cfg.model.get('bbox_head') or cfg.model.decode_head
        heads.num_classes = len(classes)
        cfg.dump(folder / f'{kind}.py')
        torch.manual_seed(0)
        model = build_from_config(cfg)
        meta = dict(dataset_meta=dict(classes=classes, palette=[[0, 114, 178]] * len(classes)))
        torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / f'{kind}.pth')
    return folder


@pytest.fixture(scope='module')
def classifier(made):
    """A small classifier of MMPretrain in the same folder, and photos of three classes."""
    pytest.importorskip('mmpretrain')
    random = np.random.default_rng(0)
    for split in ('train', 'val'):
        for name in 'abc':
            (made / 'photos' / split / name).mkdir(parents=True)
            for i in range(2):
                pixels = random.integers(0, 256, (70, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(made / 'photos' / split / name / f'{name}{i}.png')
    cfg = tiny_config('classifier', ROOT, tuple('abc'))
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(CHANGES)
        cfg[f'{split}_dataloader'].dataset.data_root = 'photos'
    cfg.dump(made / 'classifier.py')
    torch.manual_seed(0)
    torch.save(dict(state_dict=build_from_config(cfg).state_dict()), made / 'classifier.pth')
    return made / 'photos/val/a/a0.png'


@pytest.fixture
def tool(made, monkeypatch):
    """Run a tool that a toolbox carries, in the folder ``made``, in this process."""
    monkeypatch.chdir(made)
    plt = pytest.importorskip('matplotlib.pyplot')
    monkeypatch.setattr(plt, 'show', lambda *args, **kwargs: None)

    def run(package, name, *args):
        DefaultScope._instance_dict.clear()
        root = Path(importlib.import_module(package).__file__).parent / '.mim'
        if not (root / name).exists():
            pytest.skip(f'{package} has no {name} here')
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        return runpy.run_path(str(root / name), run_name='__main__')

    return run


def test_tools_of_detection(tool, call_tool, made, monkeypatch):
    monkeypatch.chdir(made)
    call_tool('test', 'retinanet.py', 'retinanet.pth', '--out', 'retinanet.pkl', '--no-check')
    tool('mmdet', ANALYSIS + 'confusion_matrix.py', 'retinanet.py', 'retinanet.pkl', 'matrix')
    assert list(Path('matrix').iterdir())
    tool('mmdet', ANALYSIS + 'analyze_results.py', 'retinanet.py', 'retinanet.pkl', 'analysis')
    assert list(Path('analysis').rglob('*.png'))
    tool('mmdet', ANALYSIS + 'eval_metric.py', 'retinanet.py', 'retinanet.pkl')


def test_browse_and_count(tool):
    arguments = ['--output-dir', 'browsed', '--not-show', '--show-interval', '0']
    few = ['--cfg-options', 'train_dataloader.dataset.indices=2']
    for package, kind in (('mmdet', 'retinanet'), ('mmseg', 'segmentor')):
        tool(package, ANALYSIS + 'browse_dataset.py', f'{kind}.py', *arguments, *few)
    assert list(Path('browsed').rglob('*.png'))
    tool('mmdet', ANALYSIS + 'get_flops.py', 'retinanet.py', '--num-images', 1)
    tool('mmseg', ANALYSIS + 'get_flops.py', 'segmentor.py', '--shape', 64, 96)


def test_tools_of_segmentation(tool):
    from mmseg.datasets import BaseSegDataset
    from mmseg.registry import DATASETS

    # The tool asks the class of the data set for the names, and no config can give it those.
    @DATASETS.register_module(force=True)
    class CoinsAsAClass(BaseSegDataset):
        METAINFO = dict(classes=('background', 'coin'), palette=[[230, 159, 0], [0, 114, 178]])

    tool('mmseg', 'tools/test.py', 'segmentor.py', 'segmentor.pth', '--out', 'predicted')
    tool(
        'mmseg',
        ANALYSIS + 'confusion_matrix.py',
        'segmentor.py',
        'predicted',
        'matrix_seg',
        '--cfg-options',
        'test_dataloader.dataset.type=CoinsAsAClass',
    )
    assert list(Path('matrix_seg').iterdir())


def test_errors_of_the_coins_are_analysed(tool):
    truth = json.loads(Path('data/coins/annotations/instances_val.json').read_text())
    found = [
        dict(image_id=a['image_id'], category_id=1, bbox=a['bbox'], score=0.9)
        for a in truth['annotations']
    ]
    Path('found.json').write_text(json.dumps(found))
    ann = 'data/coins/annotations/instances_val.json'
    tool('mmdet', ANALYSIS + 'coco_error_analysis.py', 'found.json', 'errors', '--ann', ann)
    assert list(Path('errors').rglob('*.png'))


def test_tools_of_classification(classifier, tool, monkeypatch):
    from matplotlib import _tight_bbox

    config, file = 'classifier.py', 'classifier.pth'
    if 'renderer' in inspect.signature(adjust := _tight_bbox.adjust_bbox).parameters:
        # MMPretrain calls it as before matplotlib 3.11, see docs/faq.md.
        monkeypatch.setattr(
            _tight_bbox, 'adjust_bbox', lambda fig, box: adjust(fig, box, fig._get_renderer())
        )
    tool('mmpretrain', 'tools/test.py', config, file, '--out', 'found.pkl')
    metric = ['--metric', 'type=Accuracy', 'topk=1,2']
    tool('mmpretrain', ANALYSIS + 'eval_metric.py', 'found.pkl', *metric)
    tool('mmpretrain', ANALYSIS + 'analyze_results.py', config, 'found.pkl', '--out-dir', 'judged')
    for result in ('found.pkl', file):
        show = ['--show-path', f'matrix_of_{result}.png']
        tool('mmpretrain', ANALYSIS + 'confusion_matrix.py', config, result, *show)
        assert Path(show[1]).exists()
    assert list(Path('judged').rglob('*.png'))
    tool('mmpretrain', ANALYSIS + 'get_flops.py', config, '--shape', 64, 96)
    pictures = 'tools/visualization/'
    tool('mmpretrain', pictures + 'browse_dataset.py', config, '--not-show', '--output-dir', 'seen')
    assert list(Path('seen').iterdir())
    curve = ['--not-show', '--save-path', 'rates.png', '--dataset-size', 32]
    tool('mmpretrain', pictures + 'vis_scheduler.py', config, *curve)
    assert Path('rates.png').exists()


@pytest.mark.parametrize('package', ['mmpretrain', 'mmseg'])
def test_class_activation_maps(package, tool, made, request):
    cam = pytest.importorskip('pytorch_grad_cam')
    if package == 'mmpretrain':
        photo = request.getfixturevalue('classifier')
        layer = ['--target-layers', 'backbone.stages.2', '--save-path', 'cam.png']
        name = 'tools/visualization/vis_cam.py'
        tool('mmpretrain', name, photo, 'classifier.py', 'classifier.pth', *layer)
    elif 'use_cuda' in inspect.signature(cam.GradCAM).parameters:
        photo = next(Path('data/coins').rglob('*.png'))
        layer = ['--target-layers', 'backbone.stages[2]', '--cam-file', 'cam.png']
        few = ['--category-index', 1, '--device', 'cpu']
        name = ANALYSIS + 'visualization_cam.py'
        tool('mmseg', name, photo, 'segmentor.py', 'segmentor.pth', *layer, *few)
    else:
        pytest.skip('MMSegmentation needs grad-cam < 1.5')
    assert Path('cam.png').exists()
    Path('cam.png').unlink()


@pytest.mark.parametrize('package, kind', [('mmdet', 'retinanet'), ('mmseg', 'segmentor')])
def test_time_augmentation(package, kind, tool):
    tool(package, 'tools/test.py', f'{kind}.py', f'{kind}.pth', '--tta', '--work-dir', 'tta')


def test_inferencers(made, monkeypatch):
    monkeypatch.chdir(made)
    from mmdet.apis import DetInferencer
    from mmseg.apis import MMSegInferencer

    image = np.zeros((75, 93, 3), np.uint8)
    DefaultScope._instance_dict.clear()
    detector = DetInferencer('retinanet.py', 'retinanet.pth', device='cpu', show_progress=False)
    assert 'bboxes' in detector(image)['predictions'][0]
    DefaultScope._instance_dict.clear()
    segmentor = MMSegInferencer('segmentor.py', 'segmentor.pth', device='cpu')
    assert segmentor(image)['predictions'].shape == (75, 93)


@pytest.mark.parametrize('name', ['fpn_convmlp_s_coins', 'fpn_convmlp_s_512x512_40k_ade20k'])
def test_what_the_cam_tool_reads(name):
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    for key in ('mean', 'std', 'size'):
        assert cfg.data_preprocessor[key] == cfg.model.data_preprocessor[key]
