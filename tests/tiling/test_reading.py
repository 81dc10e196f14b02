from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from convmlp_backbone.errors import UserError
from convmlp_backbone.inputs import Source
from convmlp_backbone.runtime import read_image
from convmlp_backbone.tiling import reading
from convmlp_backbone.tiling.reading import Pixels, TiffPixels, images_of
from convmlp_backbone.tiling.resizing import Resized, resized_classes, taps

tifffile = pytest.importorskip('tifffile')
SHAPE = 150, 203
WINDOWS = [(0, 0, 150, 203), (0, 0, 1, 1), (31, 64, 97, 203), (149, 100, 150, 140)]
LAYOUTS = dict(
    plain={},
    strips=dict(rowsperstrip=16, compression='zlib'),
    tiled=dict(tile=(64, 32), compression='zlib'),
    predictor=dict(tile=(64, 64), compression='zlib', predictor=True),
    big=dict(tile=(64, 64), bigtiff=True),
    motorola=dict(byteorder='>'),
)


def pixels(channels, dtype='uint8'):
    array = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*SHAPE, channels), dtype)
    return array.squeeze(2) if channels == 1 else array


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize(
    'channels, dtype', [(3, 'uint8'), (1, 'uint8'), (1, 'uint16'), (4, 'uint8')]
)
@pytest.mark.parametrize('wanted', [1, 3, 4])
def test_windows_are_those_of_the_image(layout, channels, dtype, wanted, tmp_path):
    path = tmp_path / 'x.tif'
    options = dict(photometric='minisblack' if channels == 1 else 'rgb')
    tifffile.imwrite(path, pixels(channels, dtype), **options, **LAYOUTS[layout])
    whole = read_image(path, wanted)
    found = TiffPixels(path, lambda image: read_image(image, wanted))
    assert found.shape == SHAPE
    for top, left, bottom, right in WINDOWS:
        assert (found.window(top, left, bottom, right) == whole[top:bottom, left:right]).all()


def test_colours_of_16_bits(tmp_path):
    """Which Pillow does not read at all."""
    path = tmp_path / 'x.tif'
    tifffile.imwrite(path, pixels(3, 'uint16'), photometric='rgb')
    found = TiffPixels(path, read_image).window(3, 4, 50, 60)
    assert (found == pixels(3, 'uint16')[3:50, 4:60] >> 8).all()


@pytest.mark.parametrize('layout', ['plain', 'strips', 'tiled'])
def test_a_file_that_is_cut_off(layout, tmp_path):
    path = tmp_path / 'x.tif'
    tifffile.imwrite(path, pixels(3), photometric='rgb', **LAYOUTS[layout])
    # The directory stands in front, so the file opens.
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match='cut off|no TIFF'):
        TiffPixels(path, read_image)


def test_a_tile_that_is_damaged(tmp_path):
    path = tmp_path / 'x.tif'
    tifffile.imwrite(path, pixels(3), photometric='rgb', **LAYOUTS['tiled'])
    with tifffile.TiffFile(path) as file:
        start = file.pages[0].dataoffsets[5]
    data = bytearray(path.read_bytes())
    data[start : start + 40] = bytes(40)
    path.write_bytes(data)
    with pytest.raises(ValueError, match='cannot be read'):
        TiffPixels(path, read_image).window(0, 0, *SHAPE)


@pytest.mark.parametrize(
    'array, options',
    [
        (np.zeros((9, 9), 'f4'), {}),
        (np.zeros((9, 9, 7), 'u1'), dict(photometric='minisblack', planarconfig='contig')),
        (np.zeros((3, 9, 9), 'u1'), dict(photometric='rgb', planarconfig='separate')),
        (np.zeros((9, 9), 'u1'), dict(extratags=[(274, 3, 1, 6, True)])),
    ],
)
def test_kinds_that_are_not_read_by_windows(array, options, tmp_path):
    tifffile.imwrite(tmp_path / 'x.tif', array, **options)
    with pytest.raises(UserError, match='convert it to a tiled TIFF'):
        TiffPixels(tmp_path / 'x.tif', read_image)


def test_a_codec_that_is_not_there(tmp_path, monkeypatch):
    """Pillow may have it, so the file is read whole; where it is too large, the way out is told."""
    path, predictor = tmp_path / 'x.tif', SimpleNamespace(read=read_image, own_files=False)
    Image.fromarray(pixels(3)).save(path, compression='tiff_lzw')

    def decode(*args, **kwargs):
        raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

    monkeypatch.setattr(tifffile.TiffPage, 'decode', decode)
    ((_, found, _),) = images_of(Source(path, 'x.tif'), predictor)
    assert type(found) is Pixels and (found.array == pixels(3)).all()
    monkeypatch.setattr(reading, 'available', lambda: 1000)
    with pytest.raises(ValueError, match='read whole, 0.0 GiB are free: pip install imagecodecs'):
        next(images_of(Source(path, 'x.tif'), predictor))


def test_what_is_no_tiff(tmp_path):
    (tmp_path / 'x.tif').write_bytes(b'no image')
    with pytest.raises(ValueError, match='no TIFF'):
        TiffPixels(tmp_path / 'x.tif', read_image)


@pytest.mark.parametrize('shape', [(75, 102), (300, 406), (154, 208), (61, 90), (75, 101), (1, 1)])
def test_images_are_resized_as_a_whole(shape, tmp_path):
    cv2 = pytest.importorskip('cv2')

    source = Pixels(pixels(3)[:, :202] if shape == (75, 101) else pixels(3))
    expected = cv2.resize(source.array, shape[::-1])
    found = Resized(source, shape)
    for top, left in ((0, 0), (shape[0] // 3, shape[1] // 2)):
        window = found.window(top, left, *shape)
        assert (window == expected[top:, left:]).all()


@pytest.mark.parametrize('shape', [(60, 77), (150, 90), (33, 40), (1, 1)])
def test_scores_are_resized_as_a_whole(shape):
    import torch
    from torch.nn import functional as F

    scores = torch.randn(1, 5, 40, 50)
    expected = F.interpolate(scores, size=shape, mode='bilinear')[0].argmax(0)
    middle = [(side // 3, side - side // 4) for side in shape]
    rows, columns = (
        taps(source, side, *ends, 0)
        for source, side, ends in zip((40, 50), shape, middle, strict=True)
    )
    found = resized_classes(scores[0], rows, columns, lambda scores: scores.argmax(0))
    (top, bottom), (left, right) = middle
    assert found.equal(expected[top:bottom, left:right])
