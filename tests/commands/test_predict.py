import json

import checkpoint_files as files
import numpy as np
import pytest
from checkpoint_files import saved
from conftest import ROOT
from PIL import Image

from convmlp_backbone.checkpoints import enable_safe_loading
from convmlp_backbone.cpu import fit_model_to_cpu

SMALL = ['test_dataloader.dataset.pipeline.1.scale_factor=0.5']


@pytest.mark.parametrize('model', ['retinanet', 'maskrcnn'])
def test_detector(model, coins, call_tool, tmp_path):
    pytest.importorskip('mmdet')
    from pycocotools.coco import COCO
    path = saved('x.pth', files.downstream(model, classes=('coin',)))
    config = f'{model}_convmlp_s_fpn_coins'
    photo, annotations = coins / 'val/00.png', coins / 'annotations/instances_val.json'
    threshold = 'model.test_cfg.' + ('rcnn.' if model == 'maskrcnn' else '') + 'score_thr=0'
    output = call_tool('predict', config, path, photo, '--out-dir', 'out',
                       '--ann-file', annotations, '--cfg-options', *SMALL, threshold)
    assert '1 images' in output
    with Image.open('out/vis/00.png') as drawn, Image.open(photo) as image:
        assert drawn.size == image.size
        width, height = image.size
    with open('out/predictions.json') as file:
        results = json.load(file)
    assert {(r['image_id'], r['category_id'], r['file_name'], r['category_name'])
            for r in results} == {(0, 1, '00.png', 'coin')}
    for x, y, w, h in (r['bbox'] for r in results):
        assert x >= 0 and y >= 0 and w >= 0 and h >= 0
        assert x + w <= width + 0.1 and y + h <= height + 0.1
    loaded = COCO(annotations).loadRes('out/predictions.json')
    if model == 'maskrcnn':
        assert loaded.annToMask(loaded.anns[1]).shape == (height, width)
    else:
        assert all('segmentation' not in r for r in results)


def test_segmentor(coins, call_tool, tmp_path):
    pytest.importorskip('mmseg')
    path = saved('x.pth', files.downstream('sem_fpn', classes=('table', 'drachma')))
    output = call_tool('predict', 'fpn_convmlp_s_coins', path, coins / 'val', '--out-dir', 'out')
    assert '1 images' in output
    with Image.open('out/vis/00.png') as drawn, Image.open('out/pred/00.png') as index:
        assert drawn.size == index.size
        assert set(np.unique(index)) <= {0, 1}
    with open('out/predictions.json') as file:
        assert json.load(file) == dict(
            classes=['table', 'drachma'],  # the file's, not the config's
            images=[dict(file_name='00.png', segmentation='pred/00.png')])
    call_tool('predict', 'fpn_convmlp_s_coins', path, coins / 'val', '--out-dir', 'fused',
              '--fuse')
    with Image.open('out/pred/00.png') as plain, Image.open('fused/pred/00.png') as fused:
        assert (np.asarray(plain) == np.asarray(fused)).mean() > 0.999


def test_classifier(call_tool, tmp_path):
    """The published file, whose names are not MMPretrain's, and which has no class names."""
    pytest.importorskip('mmpretrain')
    timm = pytest.importorskip('timm')
    import torch
    path, photo = saved('x.pth', files.imagenet()), ROOT / 'docs/demo.png'
    assert '1 images' in call_tool('predict', 'convmlp_s_imagenet', path, photo, '--out-dir', 'out')
    with Image.open('out/vis/demo.png') as drawn, Image.open(photo) as image:
        assert drawn.size == image.size
        side = 248 / min(image.size)
        image = image.convert('RGB').resize([int(n * side + 0.5) for n in image.size], 3)
    left, top = (round((n - 224) / 2) for n in image.size)
    pixels = torch.tensor(np.asarray(image.crop((left, top, left + 224, top + 224)))) / 255
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    model = timm.create_model('convmlp_s').eval()
    model.load_state_dict(files.imagenet(), strict=False)
    with torch.no_grad():
        scores = model(((pixels - mean) / std).permute(2, 0, 1)[None]).softmax(1)[0]
    (found,) = json.loads((tmp_path / 'out/predictions.json').read_text())
    assert found['file_name'] == 'demo.png' and len(found['predictions']) == 5
    first = found['predictions'][0]
    assert first['category_id'] == scores.argmax() and not first['category_name'].isdigit()
    assert first['score'] == pytest.approx(float(scores.max()), rel=0.02)


@pytest.mark.parametrize('toolbox, inferencer, model, config', [
    ('mmdet', 'DetInferencer', 'retinanet', 'retinanet_convmlp_s_fpn_1x_coco'),
    ('mmseg', 'MMSegInferencer', 'sem_fpn', 'fpn_convmlp_s_512x512_40k_ade20k')])
def test_inferencers_know_the_classes(
        toolbox, inferencer, model, config, tmp_path, pytestconfig, restore_loaders):
    apis = pytest.importorskip(f'{toolbox}.apis')
    enable_safe_loading()
    classes = tuple(f'class {i}' for i in range(80 if toolbox == 'mmdet' else 150))
    path = saved(tmp_path / 'x.pth', files.downstream(model, classes=classes))
    model = getattr(apis, inferencer)(
        str(pytestconfig.rootpath / f'configs/{config}.py'), str(path), device='cpu').model
    assert model.dataset_meta['classes'] == classes
    weights = files.downstream(model='retinanet' if toolbox == 'mmdet' else 'sem_fpn',
                               classes=classes)['state_dict']
    assert all(v.equal(weights[name]) for name, v in model.state_dict().items())


def test_class_names_of_the_config_where_the_file_has_none(call_tool, pytestconfig):
    pytest.importorskip('mmseg')
    from mmengine.config import Config

    from convmlp_backbone.predictors import CheckpointPredictor
    path = saved('x.pth', files.downstream('sem_fpn', classes=('a', 'b'))['state_dict'])
    cfg = Config.fromfile(pytestconfig.rootpath / 'configs/fpn_convmlp_s_coins.py')
    fit_model_to_cpu(cfg.model)
    assert list(CheckpointPredictor(cfg, path, 'cpu').classes) == ['background', 'coin']


@pytest.mark.parametrize('images, words', [
    (['empty'], ['no images in empty']),
    (['nowhere.png'], ['no image or folder nowhere.png'])])
def test_wrong_images(images, words, call_tool, tmp_path):
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'empty/notes.txt').write_text('')
    error = call_tool('predict', 'retinanet_convmlp_s_fpn_coins', 'x.pth', *images,
                      '--out-dir', 'out')
    assert all(word in error for word in words)


def test_file_that_is_no_image_is_named_and_left_out(coins, call_tool, tmp_path):
    """And two of the same name do not get into each other's way."""
    pytest.importorskip('mmseg')
    path = saved('x.pth', files.downstream('sem_fpn', classes=('a', 'b')))
    (tmp_path / 'broken.jpg').write_text('no image')
    error = call_tool('predict', 'fpn_convmlp_s_coins', path, 'broken.jpg', coins / 'val/00.png',
                      coins / 'train/00.png', '--out-dir', 'out', '--batch', 2)
    assert 'left out 1' in error and 'broken.jpg' in error
    for name, folder in (('00', 'val'), ('00_2', 'train')):
        with Image.open(tmp_path / f'out/pred/{name}.png') as found, \
                Image.open(coins / folder / '00.png') as image:
            assert found.size == image.size
