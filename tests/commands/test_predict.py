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
    output = call_tool(
        'predict',
        config,
        path,
        photo,
        '--out-dir',
        'out',
        '--ann-file',
        annotations,
        '--cfg-options',
        *SMALL,
        threshold,
    )
    assert '1 images' in output
    with Image.open('out/vis/00.png') as drawn, Image.open(photo) as image:
        assert drawn.size == image.size
        width, height = image.size
    with open('out/predictions.json') as file:
        results = json.load(file)
    assert {
        (r['image_id'], r['category_id'], r['file_name'], r['category_name']) for r in results
    } == {(0, 1, '00.png', 'coin')}
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
            images=[dict(file_name='00.png', segmentation='pred/00.png')],
        )
    call_tool('predict', 'fpn_convmlp_s_coins', path, coins / 'val', '--out-dir', 'fused', '--fuse')
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


@pytest.mark.parametrize(
    'toolbox, inferencer, model, config',
    [
        ('mmdet', 'DetInferencer', 'retinanet', 'retinanet_convmlp_s_fpn_1x_coco'),
        ('mmseg', 'MMSegInferencer', 'sem_fpn', 'fpn_convmlp_s_512x512_40k_ade20k'),
    ],
)
def test_inferencers_know_the_classes(
    toolbox, inferencer, model, config, tmp_path, pytestconfig, restore_loaders
):
    apis = pytest.importorskip(f'{toolbox}.apis')
    enable_safe_loading()
    classes = tuple(f'class {i}' for i in range(80 if toolbox == 'mmdet' else 150))
    path = saved(tmp_path / 'x.pth', files.downstream(model, classes=classes))
    model = getattr(apis, inferencer)(
        str(pytestconfig.rootpath / f'configs/{config}.py'), str(path), device='cpu'
    ).model
    assert model.dataset_meta['classes'] == classes
    weights = files.downstream(
        model='retinanet' if toolbox == 'mmdet' else 'sem_fpn', classes=classes
    )['state_dict']
    assert all(v.equal(weights[name]) for name, v in model.state_dict().items())


def test_class_names_of_the_config_where_the_file_has_none(call_tool, pytestconfig):
    pytest.importorskip('mmseg')
    from mmengine.config import Config

    from convmlp_backbone.predictors import CheckpointPredictor

    path = saved('x.pth', files.downstream('sem_fpn', classes=('a', 'b'))['state_dict'])
    cfg = Config.fromfile(pytestconfig.rootpath / 'configs/fpn_convmlp_s_coins.py')
    fit_model_to_cpu(cfg.model)
    assert list(CheckpointPredictor(cfg, path, 'cpu').classes) == ['background', 'coin']


@pytest.mark.parametrize(
    'images, words',
    [(['empty'], ['no images in empty']), (['nowhere.png'], ['no image or folder nowhere.png'])],
)
def test_wrong_images(images, words, call_tool, tmp_path):
    (tmp_path / 'empty').mkdir()
    for name in ('empty/notes.txt', 'empty/Makefile'):
        (tmp_path / name).write_text('')
    error = call_tool(
        'predict', 'retinanet_convmlp_s_fpn_coins', 'x.pth', *images, '--out-dir', 'out'
    )
    assert all(word in error for word in words)


def test_file_that_is_no_image_is_named_and_left_out(coins, call_tool, tmp_path):
    """And two of the same name do not get into each other's way."""
    pytest.importorskip('mmseg')
    path = saved('x.pth', files.downstream('sem_fpn', classes=('a', 'b')))
    (tmp_path / 'broken.jpg').write_text('no image')
    error = call_tool(
        'predict',
        'fpn_convmlp_s_coins',
        path,
        'broken.jpg',
        coins / 'val/00.png',
        coins / 'train/00.png',
        '--out-dir',
        'out',
        '--batch',
        2,
    )
    assert 'left out 1' in error and 'broken.jpg' in error
    for name, folder in (('00', 'val'), ('00_2', 'train')):
        with (
            Image.open(tmp_path / f'out/pred/{name}.png') as found,
            Image.open(coins / folder / '00.png') as image,
        ):
            assert found.size == image.size


def test_images_of_all_kinds(coins, call_tool, tmp_path, monkeypatch):
    """Two of one name, formats that take no colours, no ending, and one that cannot be drawn."""
    pytest.importorskip('mmseg')
    from mmseg.visualization import SegLocalVisualizer

    path = saved('x.pth', files.downstream('sem_fpn', classes=('a', 'b')))
    with Image.open(coins / 'val/00.png') as photo:
        photo = photo.convert('RGB').resize((64, 64))
    for folder in ('cam1', 'cam2'):
        (tmp_path / 'photos' / folder).mkdir(parents=True)
        photo.save(tmp_path / 'photos' / folder / '0.png')
    photo.save(tmp_path / 'photos/cam1/a.jfif', 'JPEG')
    photo.convert('L').save(tmp_path / 'photos/cam1/b.pgm')
    photo.save(tmp_path / 'photos/cam1/c', 'PNG')
    photo.save(tmp_path / 'photos/cam1/0.jpg')
    (tmp_path / 'photos/cam2/notes').write_text('no image')
    draw, calls = SegLocalVisualizer.add_datasample, []

    def fail_for_one(self, *args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise ValueError('no room')
        return draw(self, *args, **kwargs)

    monkeypatch.setattr(SegLocalVisualizer, 'add_datasample', fail_for_one)
    output = call_tool(
        'predict',
        'fpn_convmlp_s_coins',
        path,
        'photos',
        '--recursive',
        '--out-dir',
        'out',
        '--device',
        'cpu',
    )
    assert '1 pictures could not be drawn: cam1/0_2.png (ValueError: no room)' in output
    results = {
        part['file_name']: part['segmentation']
        for part in json.loads((tmp_path / 'out/predictions.json').read_text())['images']
    }
    assert results == {
        'cam1/0.jpg': 'pred/cam1/0.png',
        'cam1/0_2.png': 'pred/cam1/0_2.png',
        'cam1/a.jfif': 'pred/cam1/a.png',
        'cam1/b.pgm': 'pred/cam1/b.png',
        'cam1/c.png': 'pred/cam1/c.png',
        'cam2/0.png': 'pred/cam2/0.png',
    }
    drawn = {
        str(path.relative_to(tmp_path / 'out/vis')) for path in (tmp_path / 'out/vis').rglob('*.*')
    }
    assert drawn == {'cam1/0.jpg', 'cam1/a.jfif.png', 'cam1/b.pgm.png', 'cam1/c.png', 'cam2/0.png'}
    for name in results.values():
        with Image.open(tmp_path / 'out' / name) as index:
            assert index.size == (64, 64)


@pytest.mark.parametrize(
    'told, paths, ids',
    [
        (['cam1/0.png', 'cam2/0.png'], ['d/cam1/0.png', 'd/cam2/0.png'], [1, 2]),
        (['0.png', '1.png'], ['d/1.png', 'd/2.png'], [2, None]),
        (['val\\0.png', 'val\\1.png'], ['d/val/1.png', 'd/0.png'], [2, 1]),
        (['a/0.png', 'b/0.png'], ['d/0.png'], [None]),
        (['0.png'], ['a/0.png', 'b/0.png'], 'apart'),
    ],
)
def test_ids_of_images(told, paths, ids, tmp_path):
    from pathlib import Path

    from convmlp_backbone.checks.image_ids import read_ids
    from convmlp_backbone.errors import UserError

    (tmp_path / 'x.json').write_text(
        json.dumps(
            dict(
                images=[dict(id=i, file_name=name) for i, name in enumerate(told, 1)],
                annotations=[dict(id=1, image_id=1, category_id=7)],
                categories=[
                    dict(id=7, name='coin'),
                    dict(id=0, name='coin'),
                    dict(id=3, name='stamp'),
                ],
            )
        )
    )
    paths = [Path(path) for path in paths]
    if ids == 'apart':
        with pytest.raises(UserError, match='apart'):
            read_ids(tmp_path / 'x.json', ['coin'], paths)
        return
    found, categories = read_ids(tmp_path / 'x.json', ['stamp', 'coin'], paths)
    assert [found.get(path) for path in paths] == ids and categories == [3, 7]
    with pytest.raises(UserError, match='did you mean coin for Coin'):
        read_ids(tmp_path / 'x.json', ['Coin'], paths)
