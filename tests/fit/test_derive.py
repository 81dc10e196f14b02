"""Values derived from data: right for the sizes of objects that people have."""

import numpy as np
import pytest
from PIL import Image

from convmlp_backbone import memory
from convmlp_backbone.fit import derive, measure
from convmlp_backbone.fit.found import Found
from convmlp_backbone.fit.plan import flip_directions


def spread(low, high, count=200, ratio=1.0):
    """Objects whose sizes are spread evenly, in octaves."""
    side = np.geomspace(low, high, count)
    return np.stack([side / np.sqrt(ratio), side * np.sqrt(ratio)], -1)


@pytest.mark.parametrize(
    'sizes, long_side, device, side',
    [
        ((35, 55), 250, 'cpu', 256),
        ((7, 24), 256, 'cpu', 512),
        ((3, 9), 256, 'cpu', 512),
        ((10, 40), 250, 'cpu', 352),
        ((50, 400), 640, 'cpu', 640),
        ((50, 400), 1000, 'cpu', 640),
        ((50, 400), 1000, 'cuda', 992),
        ((200, 900), 4000, 'cpu', 640),
        ((16, 40), 4000, 'cpu', 3648),
        ((200, 900), 4000, 'cuda', 1344),
        ((8, 90), 500, 'cuda', 800),
    ],
)
def test_image_scale(sizes, long_side, device, side):
    factor, why = derive.image_scale(spread(*sizes), long_side, device)
    assert round(factor * long_side) == side
    assert 'a tenth of the objects' in why


def test_overlap():
    sizes = np.array([[32.0, 32], [64, 32], [32, 16], [1, 1]])
    assert derive.overlaps(sizes, [32.0], [1.0]) == pytest.approx([1, 0.5, 0.5, 1 / 1024])
    assert derive.overlaps(sizes, [32.0], [0.5, 1]) == pytest.approx(
        [1, 1024 / 2048, 512 / 1024, 2 / 2048], rel=0.5
    )


@pytest.mark.parametrize(
    'sizes, ratio, sides, usual, scale, ratios',
    [
        ((30, 400), 1, derive.RETINA, 4, 4, derive.USUAL),
        ((14, 48), 1, derive.RETINA, 4, 2, derive.USUAL),
        ((8, 16), 1, derive.RETINA, 4, 1, derive.USUAL),
        ((300, 1600), 1, derive.RETINA, 4, 8, derive.USUAL),
        ((30, 400), 1, derive.RPN, 8, 8, derive.USUAL),
        ((14, 48), 1, derive.RPN, 8, 4, derive.USUAL),
    ],
)
def test_anchors(sizes, ratio, sides, usual, scale, ratios):
    found, forms, why = derive.anchors(spread(*sizes, ratio=ratio), sides, usual)
    assert (found, forms) == (scale, ratios)
    assert ('with the usual ones' in why) == (scale != usual)


def test_anchors_of_long_objects():
    """Lines of text: eight times as wide as high, more or less."""
    sizes = np.concatenate([spread(40, 200, ratio=ratio) for ratio in (1 / 12, 1 / 8, 1 / 5)])
    scale, ratios, why = derive.anchors(sizes, derive.RETINA, 4)
    assert max(ratios) < 0.25 and min(ratios) < 0.1
    best = derive.overlaps(sizes, [scale * side for side in derive.RETINA], ratios)
    assert (best >= 0.5).mean() > 0.95 and '0% with the usual ones' in why


@pytest.mark.parametrize(
    'sizes, image, device, side',
    [
        ((35, 55), (256, 256), 'cpu', None),
        ((14, 48), (512, 512), 'cpu', 320),
        ((14, 48), (512, 512), 'cuda', None),
        ((50, 400), (640, 480), 'cpu', None),
        ((20, 30), (3648, 3648), 'cuda', 1024),
        ((50, 80), (2000, 1500), 'cpu', 448),
    ],
)
def test_crop(sizes, image, device, side):
    assert derive.crop_size(spread(*sizes), image, device)[0] == side


@pytest.mark.parametrize(
    'seconds, step, evaluation, number, evaluations',
    [(870, 0.9, 1, 950, 10), (870, 0.9, 100, 744, 1), (20, 30, 1, 20, 3), (870, 0.9, 40, 786, 3)],
)
def test_iterations(seconds, step, evaluation, number, evaluations):
    assert derive.iterations(seconds, step, evaluation) == (number, evaluations)
    if number > 20:
        took = number * step + (evaluations + 1) * evaluation  # the best one once more at the end
        assert seconds - step * evaluations < took <= seconds


@pytest.mark.parametrize(
    'arguments, size',
    [
        (('boxes', 'cpu', 16e9, 1e9, 80), 2),
        (('boxes', 'cpu', 2e9, 1e9, 80), 1),
        (('boxes', 'cuda', 80e9, 1e9, 1000), 8),
        (('boxes', 'cuda', 8e9, 1e9, 1000), 5),
        (('classes', 'cpu', 16e9, 1e7, 1000), 16),
        (('classes', 'cpu', 16e9, 1e7, 9), 9),
    ],
)
def test_batch(arguments, size):
    assert derive.batch_size(*arguments)[0] == size


@pytest.mark.parametrize(
    'above, names, expected',
    [(0, ['coin'], 'all'), (60, ['coin'], 'horizontal'), (0, ['six', 'nine'], 'horizontal')],
)
def test_flips(above, names, expected, tmp_path):
    """Photos whose upper half is brighter, as the sky is, have an up and a down."""
    rng, images = np.random.default_rng(0), []
    for number in range(20):
        pixels = rng.normal(100, 30, (32, 32)).clip(0, 190).astype(np.uint8)
        pixels[:16] += np.uint8(above)
        Image.fromarray(pixels).save(tmp_path / f'{number}.png')
        images.append(dict(id=number, file_name=f'{number}.png'))
    found = Found(tmp_path, '', 'boxes', names, dict(train=dict(images=images, annotations=[])))
    assert flip_directions(found)[0] == expected


def test_memory_is_that_of_the_container(monkeypatch, tmp_path):
    real = measure.free_memory()
    assert 1e8 < real < 1e14
    for name, value in (('memory.max', 5e9), ('memory.current', 2e9)):
        (tmp_path / name).write_text(f'{value:.0f}\n')
    monkeypatch.setattr(memory, 'CGROUPS', tmp_path)
    (tmp_path / 'meminfo').write_text('MemTotal:  99 kB\nMemAvailable:   9000000 kB\n')
    monkeypatch.setattr(memory, 'MEMINFO', tmp_path / 'meminfo')
    assert measure.free_memory() == 3e9
    (tmp_path / 'memory.max').write_text('max\n')
    assert measure.free_memory() == 9e6 * 1024
