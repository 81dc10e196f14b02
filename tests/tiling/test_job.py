import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from tiny_models import CLASSES, tiny_config, tiny_model

from convmlp_backbone import memory as machine
from convmlp_backbone.errors import UserError
from convmlp_backbone.files import held
from convmlp_backbone.tiling import job as module
from convmlp_backbone.tiling import memory
from convmlp_backbone.tiling.job import scale_of
from convmlp_backbone.tiling.results import mask_in_image, polygons

tifffile = pytest.importorskip('tifffile')
OUT = Path('out')  # of the folder that a test runs in
LIMITS = dict(score_thr=0.3, max_per_img=50)


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """Writes a small model and an image; returns the arguments of `predict`."""
    monkeypatch.chdir(tmp_path)

    def write(kind, shape=(150, 500), scale=None, **options):
        changes = dict(retinanet=LIMITS, maskrcnn=dict(rcnn=LIMITS)).get(kind)
        cfg = tiny_config(kind, ROOT, **(dict(test_cfg=changes) if changes else {}))
        pytest.importorskip(cfg.default_scope)
        cfg.test_dataloader.dataset.pipeline[1] = dict(type='Resize', scale_factor=scale or 1.0)
        cfg.dump('config.json')
        weights = tiny_model(cfg).state_dict()
        torch.save(dict(state_dict=weights, meta=dict(dataset_meta=dict(classes=CLASSES))), 'x.pth')
        small = np.random.default_rng(0).integers(0, 256, (10, 38, 3), np.uint8)
        picture = Image.fromarray(small).resize(shape[::-1], Image.Resampling.BICUBIC)
        tifffile.imwrite('photo.tif', np.asarray(picture), photometric='rgb', **options)
        return 'predict', 'config.json', 'x.pth', 'photo.tif', '--no-check', '--out-dir', 'out'

    return write


@pytest.mark.parametrize(
    'scale, layout', [(None, dict(tile=(64, 64), compression='zlib')), (1.3, {})]
)
def test_a_map_is_that_of_the_ordinary_command(scale, layout, setup, call_tool):
    args = setup('segmentor', scale=scale, **layout)
    call_tool(*args[:-1], 'whole')
    output = call_tool(*args, '--tile', 128)
    assert '1 images' in output and not (OUT / '.tiles').exists()
    with Image.open('whole/pred/photo.png') as whole, Image.open(OUT / 'pred/photo.tif') as tiled:
        assert (np.asarray(whole) == np.asarray(tiled)).all()
        assert tiled.getpalette()[:9] == [255, 0, 0, 0, 255, 0, 0, 0, 255]
    assert json.loads((OUT / 'predictions.json').read_text()) == dict(
        classes=list(CLASSES), images=[dict(file_name='photo.tif', segmentation='pred/photo.tif')]
    )


@pytest.mark.parametrize('kind', ['retinanet', 'maskrcnn'])
def test_objects(kind, setup, call_tool):
    from pycocotools import mask as coco

    output = call_tool(*setup(kind), '--tile', 128)
    results = json.loads((OUT / 'predictions.json').read_text())
    features = json.loads((OUT / 'geojson/photo.geojson').read_text())['features']
    assert len(results) == len(features) > 10 and f'{len(results)} objects' in output
    assert [r['score'] for r in results] == sorted((r['score'] for r in results), reverse=True)
    for result, feature in zip(results, features, strict=True):
        assert result['category_name'] == feature['properties']['classification']['name']
        assert feature['geometry']['type'] in ('Polygon', 'MultiPolygon')
        if kind == 'maskrcnn':
            assert result['segmentation']['size'] == [150, 500]
            x, y, w, h = coco.toBbox(result['segmentation'])
            left, top, width, height = result['bbox']
            if w and h:
                assert left - 2 <= x and x + w <= left + width + 2
                assert top - 2 <= y and y + h <= top + height + 2


@pytest.mark.parametrize('shape', [(1, 500), (1, 1)])
@pytest.mark.parametrize('kind', ['segmentor', 'retinanet', 'maskrcnn'])
def test_images_smaller_than_a_tile(kind, shape, setup, call_tool):
    output = call_tool(*setup(kind, shape), '--tile', 100)
    assert 'error' not in output and ('objects' in output or '1 images' in output)


def test_interrupted_it_goes_on(setup, call_tool, monkeypatch):
    args = *setup('segmentor'), '--tile', 128, '--halo', 64
    call_tool(*args[:6], 'once', *args[7:])
    network, calls = module.tiled, []

    def counted(predictor, halo):
        found = network(predictor, halo)

        class Counted(type(found)):
            def __call__(self, *inputs):
                calls.append(inputs[1].number)
                if calls == [0, 1, 2]:
                    raise KeyboardInterrupt
                return super().__call__(*inputs)

        found.__class__ = Counted
        return found

    monkeypatch.setattr(module, 'tiled', counted)
    error = call_tool(*args)
    assert 'interrupted; 2 of 8 tiles are kept' in error and '\n' not in error
    assert not (OUT / 'pred').exists()
    calls.clear()
    call_tool(*args)
    assert calls == list(range(2, 8))
    with Image.open('out/pred/photo.tif') as found, Image.open('once/pred/photo.tif') as once:
        assert (np.asarray(found) == np.asarray(once)).all()
    assert not (OUT / '.tiles').exists()


@pytest.mark.parametrize('change', ['weights', 'image', 'options', 'none'])
def test_what_changed_is_computed_anew(change, setup, tmp_path):
    """Tiles of another model, image or tile size are thrown away."""
    setup('segmentor')
    from convmlp_backbone.commands.models import checked_config
    from convmlp_backbone.cpu import fit_model_to_cpu
    from convmlp_backbone.inputs import find
    from convmlp_backbone.predictors import CheckpointPredictor

    def run(size, stop):
        cfg = checked_config('config.json')
        fit_model_to_cpu(cfg.model)
        job = module.TiledJob(CheckpointPredictor(cfg, 'x.pth', 'cpu'), OUT, size, halo=64)
        compute, seen = job.network.__class__.__call__, []

        class Counted(type(job.network)):
            def __call__(self, *inputs):
                if len(seen) == stop:
                    raise KeyboardInterrupt
                seen.append(inputs[1].number)
                return compute(self, *inputs)

        job.network.__class__ = Counted
        try:
            list(job.run(find(['photo.tif']), []))
        except UserError as error:
            assert 'interrupted' in str(error)
        return seen

    assert run('128', 3) == [0, 1, 2]
    if change == 'weights':
        state = torch.load('x.pth')
        state['state_dict']['decode_head.conv_seg.bias'] += 1
        torch.save(state, 'x.pth')
    elif change == 'image':
        tifffile.imwrite('photo.tif', np.zeros((150, 500, 3), np.uint8), photometric='rgb')
    seen = run('160' if change == 'options' else '128', None)
    assert seen[0] == (3 if change == 'none' else 0)
    assert len([folder for folder in (OUT / '.tiles/photo.tif').iterdir()]) == 1


def test_two_runs_into_one_folder(setup, call_tool):
    args = setup('segmentor')
    with held(OUT / '.tiles/lock') as mine:
        assert mine
        error = call_tool(*args, '--tile', 128)
    assert 'another process predicts into it' in error and '--out-dir' in error
    assert '1 images' in call_tool(*args, '--tile', 128)


def test_a_full_disk_is_one_line(setup, call_tool, monkeypatch):
    import errno

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, 'No space left on device')

    args = setup('segmentor')
    monkeypatch.setattr(module.np, 'savez_compressed', full)
    error = call_tool(*args, '--tile', 128)
    assert 'No space left on device' in error and '0.npz' in error


def test_files_that_cannot_be_read_are_named_and_left_out(setup, call_tool):
    args = setup('segmentor', tile=(64, 64), compression='zlib')
    data = (Path() / 'photo.tif').read_bytes()
    (Path() / 'cut.tif').write_bytes(data[:-900])
    (Path() / 'no.tif').write_bytes(b'no image')
    error = call_tool(*args[:3], 'cut.tif', 'no.tif', *args[3:], '--tile', 128)
    assert 'left out 2' in error and 'cut.tif is cut off' in error and 'no.tif is no TIFF' in error
    assert (OUT / 'pred/photo.tif').exists() and not (OUT / 'pred/cut.tif').exists()


@pytest.mark.parametrize(
    'options, words',
    [
        (['--tile', '0'], '--tile 0: expected'),
        (['--tile', '-5'], 'expected'),
        (['--tile', '²'], '--tile ²: expected a number of pixels, or auto'),
        (['--tile', 'much'], '--tile much: expected a number of pixels, or auto'),
        (['--tile', 'auto', '--scale', 'nan'], '--scale nan'),
        (['--tile', 'auto', '--scale', '0'], '--scale 0.0'),
        (['--tile', 'auto', '--halo', '-1'], '--halo -1'),
        (['--halo', '9'], 'only with --tile'),
        (['--scale', '2'], 'only with --tile'),
    ],
)
def test_wrong_options(options, words, setup, call_tool):
    options = [f'{a}={b}' for a, b in zip(options[::2], options[1::2], strict=True)]
    assert words in call_tool(
        'predict', 'config.json', 'x.pth', 'p.tif', '--out-dir', 'o', *options
    )


def test_exported_files_are_not_tiled(call_tool):
    error = call_tool('predict', 'model.onnx', 'photo.tif', '--out-dir', 'out', '--tile', 'auto')
    assert '--tile: not for exported files' in error


RESIZE = dict(type='mmdet.Resize', scale=(1333, 800), keep_ratio=True)


@pytest.mark.parametrize(
    'steps, scale, factors, told',
    [
        ([], None, (1, 1), ''),
        ([dict(type='Resize', scale_factor=1.5)], None, (1.5, 1.5), ''),
        ([dict(type='Resize', scale_factor=(2, 3))], None, (2, 3), ''),
        ([RESIZE, dict(type='LoadAnnotations'), dict(type='PackDetInputs')], None, (1, 1), '1333'),
        ([RESIZE], 2, (2, 2), ''),
    ],
)
def test_scale(steps, scale, factors, told):
    found, line = scale_of(steps, scale)
    assert found == factors and told in line and bool(told) == bool(line)


@pytest.mark.parametrize(
    'steps',
    [
        [RESIZE, RESIZE],
        [dict(type='Pad', size=(9, 9))],
        [dict(RESIZE, backend='pillow')],
        [dict(RESIZE, interpolation='area')],
    ],
)
def test_pipelines_that_windows_cannot_have(steps):
    with pytest.raises(UserError, match='--tile can'):
        scale_of(steps, None)


# Memory


def test_what_is_free(tmp_path):
    (tmp_path / 'meminfo').write_text('MemTotal: 9 kB\nMemAvailable:  5 kB\n')
    assert machine.free_of_machine(tmp_path / 'meminfo') == 5120
    assert machine.free_of_machine(tmp_path / 'nowhere') == float('inf')
    for path, limit in (('', 'max'), ('a', '1000'), ('a/b', 'max')):
        folder = tmp_path / 'cgroup' / path
        folder.mkdir(exist_ok=True)
        (folder / 'memory.max').write_text(limit)
        (folder / 'memory.current').write_text('700')
        (folder / 'memory.stat').write_text('anon 600\ninactive_file 100\n')
    (tmp_path / 'own').write_text('0::/a/b\n')
    assert machine.free_of_group(tmp_path / 'cgroup', tmp_path / 'own') == 400
    (tmp_path / 'own').write_text('0::/\n')
    assert machine.free_of_group(tmp_path / 'cgroup', tmp_path / 'own') == float('inf')
    first = tmp_path / 'cgroup/memory/d'
    first.mkdir(parents=True)
    (first / 'memory.limit_in_bytes').write_text('900')
    (first / 'memory.usage_in_bytes').write_text('800')
    (first / 'memory.stat').write_text('total_inactive_file 50\n')
    (tmp_path / 'own').write_text('5:cpu,memory:/d\n4:cpuset:/a\n')
    assert machine.free_of_group(tmp_path / 'cgroup', tmp_path / 'own') == 150


def test_need_grows_with_the_image():
    def run(height, width):
        torch.ones(height * width, 100).sum()

    need = memory.measure(run)
    if need is None:
        pytest.skip('this system does not tell the peak')
    assert 350 < need.per_pixel < 900
    assert need.pixels(need.of(1e6)) == pytest.approx(1e6)


def test_auto_takes_what_fits(setup, call_tool, monkeypatch):
    args = setup('segmentor')
    sizes, tiles = [], module.tiles

    def noted(shape, size, *rest):
        sizes.append(size)
        return tiles(shape, size, *rest)

    monkeypatch.setattr(module, 'tiles', noted)
    need = memory.Need(0, 1000)
    monkeypatch.setattr(module, 'measure', lambda *args: need)
    for room, size in ((need.of(1e6), 512), (need.of(164 * 164), 96)):
        monkeypatch.setattr(module, 'available', lambda device='cpu', room=room: room)
        assert '1 images' in call_tool(*args, '--tile', 'auto', '--halo', 32)
        assert sizes.pop() == size
    monkeypatch.setattr(module, 'available', lambda device='cpu': need.of(100))
    assert 'too little for a tile' in call_tool(*args, '--tile', 'auto', '--halo', 32)


def test_auto_goes_on_with_the_size_it_began_with(setup, call_tool, monkeypatch):
    """As long as that fits without the spare."""
    args, need = (*setup('segmentor'), '--tile', 'auto', '--halo', 32), memory.Need(0, 1000)
    monkeypatch.setattr(module, 'measure', lambda *args: need)

    def run(room, stop=None):
        begun, save = [], np.savez_compressed

        def saved(file, **found):
            if len(begun) == stop:
                raise KeyboardInterrupt
            begun.append(found['classes'].shape)
            save(file, **found)

        monkeypatch.setattr(module.np, 'savez_compressed', saved)
        monkeypatch.setattr(module, 'available', lambda device='cpu': room)
        call_tool(*args)
        monkeypatch.setattr(module.np, 'savez_compressed', save)
        return begun

    assert run(need.of(164 * 164), 2) == [(96, 96)] * 2
    assert run(need.of(170 * 150), 1) == [(96, 96)]
    assert run(need.of(1e5), 1) == [(96, 96)]
    assert run(need.of(130 * 130), 1) == [(64, 64)]


@pytest.mark.parametrize('kind', ['segmentor', 'retinanet', 'maskrcnn'])
def test_tiles_are_computed_in_the_precision_asked_for(kind, setup, call_tool, monkeypatch):
    args, seen = setup(kind), set()
    call = torch.nn.Conv2d.__call__

    def noted(self, *inputs):
        output = call(self, *inputs)
        seen.add(output.dtype)
        return output

    monkeypatch.setattr(torch.nn.Conv2d, '__call__', noted)
    build = module.tiled
    monkeypatch.setattr(module, 'tiled', lambda *args: (build(*args), seen.clear())[0])
    for precision, dtype in (('f32', torch.float32), ('bf16', torch.bfloat16)):
        output = call_tool(*args, '--tile', 512, '--precision', precision)
        assert '1 images' in output or 'objects' in output
        assert seen == {dtype}


@pytest.mark.parametrize('options', [['--tile', 512], []])
def test_what_would_not_fit_is_told_before(options, setup, call_tool, monkeypatch):
    monkeypatch.setattr(memory, 'available', lambda device='cpu': 1e6)
    monkeypatch.setattr(memory, 'DOUBT', 1e6)
    monkeypatch.setattr(memory, 'SIZES', ((64, 64), (64, 128), (128, 128)))
    error = call_tool(*setup('segmentor'), *options)
    assert '0.0 GiB are free' in error and '--tile auto' in error


# Results


@pytest.mark.parametrize('seed', range(5))
def test_masks_in_an_image_are_those_of_their_cutouts(seed):
    from pycocotools import mask as coco

    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 40, 2)
    pixels = rng.uniform(0, 1, (height, width)) < (0.5, 1.1, 0.9, 0, 0.99)[seed]
    top, left = rng.integers(0, 20, 2)
    whole = np.zeros((top + height + seed % 2, left + width), np.uint8)
    whole[top : top + height, left : left + width] = pixels
    found = mask_in_image(pixels, int(top), int(left), whole.shape)
    expected = coco.encode(np.asfortranarray(whole))
    assert found['counts'] == expected['counts'].decode()


def test_outlines_have_holes():
    pixels = np.zeros((20, 30), bool)
    pixels[2:12, 3:13] = True
    pixels[5:9, 6:10] = False
    pixels[15:18, 20:28] = True
    found = sorted(polygons(pixels, 100, 200), key=len)
    assert [len(rings) for rings in found] == [1, 2]
    assert found[0][0][0] == found[0][0][-1]
    xs, ys = zip(*found[0][0], strict=True)
    assert (min(xs), max(xs), min(ys), max(ys)) == (220.5, 227.5, 115.5, 117.5)
