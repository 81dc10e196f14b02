import json

import checkpoint_files as files
import numpy as np
import pytest
from checkpoint_files import saved
from PIL import Image

from convmlp_backbone.checkpoints import enable_safe_loading

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

    from convmlp_backbone.commands.predict import build_inferencer
    path = saved('x.pth', files.downstream('sem_fpn', classes=('a', 'b'))['state_dict'])
    cfg = Config.fromfile(pytestconfig.rootpath / 'configs/fpn_convmlp_s_coins.py')
    names = build_inferencer(cfg, path)[0].model.dataset_meta
    assert list(names['classes']) == ['background', 'coin']


@pytest.mark.parametrize('images, words', [
    (['empty'], ['no images in empty']),
    (['nowhere.png'], ['no image or folder nowhere.png'])])
def test_wrong_images(images, words, call_tool, tmp_path):
    (tmp_path / 'empty').mkdir()
    for name in ('empty/notes.txt', 'empty/Makefile'):
        (tmp_path / name).write_text('')
    error = call_tool('predict', 'retinanet_convmlp_s_fpn_coins', 'x.pth', *images,
                      '--out-dir', 'out')
    assert all(word in error for word in words)


def test_file_that_is_no_image_is_named_and_left_out(coins, call_tool, tmp_path):
    pytest.importorskip('mmseg')
    path = saved('x.pth', files.downstream('sem_fpn', classes=('a', 'b')))
    (tmp_path / 'broken.jpg').write_text('no image')
    error = call_tool('predict', 'fpn_convmlp_s_coins', path, 'broken.jpg', coins / 'val/00.png',
                      '--out-dir', 'out')
    assert 'left out 1' in error and 'broken.jpg' in error
    assert (tmp_path / 'out/pred/00.png').is_file()


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
    draw = SegLocalVisualizer.add_datasample

    def fail_for_one(self, name, *args, **kwargs):
        if name == 'b.pgm':
            raise ValueError('no room')
        return draw(self, name, *args, **kwargs)
    monkeypatch.setattr(SegLocalVisualizer, 'add_datasample', fail_for_one)
    output = call_tool('predict', 'fpn_convmlp_s_coins', path, 'photos/cam1', 'photos/cam2',
                       '--out-dir', 'out', '--device', 'cpu')
    assert '1 pictures could not be drawn: cam1/b.pgm (ValueError: no room)' in output
    results = {part['file_name']: part['segmentation'] for part in json.loads(
        (tmp_path / 'out/predictions.json').read_text())['images']}
    assert results == {
        'cam1/0.jpg': 'pred/cam1/0.jpg.png', 'cam1/0.png': 'pred/cam1/0.png.png',
        'cam1/a.jfif': 'pred/cam1/a.png', 'cam1/b.pgm': 'pred/cam1/b.png',
        'cam1/c': 'pred/cam1/c.png', 'cam2/0.png': 'pred/cam2/0.png'}
    drawn = {str(path.relative_to(tmp_path / 'out/vis'))
             for path in (tmp_path / 'out/vis').rglob('*.*')}
    assert drawn == {'cam1/0.jpg', 'cam1/0.png', 'cam1/a.jfif.png', 'cam1/c.png', 'cam2/0.png'}
    for name in results.values():
        with Image.open(tmp_path / 'out' / name) as index:
            assert index.size == (64, 64)


@pytest.mark.parametrize('told, paths, ids', [
    (['cam1/0.png', 'cam2/0.png'], ['d/cam1/0.png', 'd/cam2/0.png'], [1, 2]),
    (['0.png', '1.png'], ['d/1.png', 'd/2.png'], [2, None]),
    (['val\\0.png', 'val\\1.png'], ['d/val/1.png', 'd/0.png'], [2, 1]),
    (['a/0.png', 'b/0.png'], ['d/0.png'], [None]), (['0.png'], ['a/0.png', 'b/0.png'], 'apart')])
def test_ids_of_images(told, paths, ids, tmp_path):
    from pathlib import Path

    from convmlp_backbone.checks.image_ids import read_ids
    from convmlp_backbone.errors import UserError
    (tmp_path / 'x.json').write_text(json.dumps(dict(
        images=[dict(id=i, file_name=name) for i, name in enumerate(told, 1)],
        annotations=[dict(id=1, image_id=1, category_id=7)],
        categories=[dict(id=7, name='coin'), dict(id=0, name='coin'), dict(id=3, name='stamp')])))
    paths = [Path(path) for path in paths]
    if ids == 'apart':
        with pytest.raises(UserError, match='apart'):
            read_ids(tmp_path / 'x.json', ['coin'], paths)
        return
    found, categories = read_ids(tmp_path / 'x.json', ['stamp', 'coin'], paths)
    assert [found.get(path) for path in paths] == ids and categories == [3, 7]
    with pytest.raises(UserError, match='did you mean coin for Coin'):
        read_ids(tmp_path / 'x.json', ['Coin'], paths)
