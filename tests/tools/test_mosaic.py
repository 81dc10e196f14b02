"""Mosaics: their truth lies where the objects are, and scores 1.0."""

import json

import mosaic as tool
import numpy as np
import pytest
from PIL import Image

from convmlp_backbone.errors import UserError

tifffile = pytest.importorskip('tifffile')


@pytest.fixture
def source(tmp_path):
    """Two images of 32 pixels, each with a bright object."""
    boxes = [2, 4, 6, 10], [20, 9, 5, 5]
    for number, (x, y, w, h) in enumerate(boxes):
        pixels = np.zeros((32, 32), np.uint8)
        pixels[y : y + h, x : x + w] = 255
        Image.fromarray(pixels).save(tmp_path / f'{number}.png')
    images = [dict(id=i + 7, file_name=f'{i}.png', width=32, height=32) for i in (0, 1)]
    annotations = [
        dict(id=i, image_id=i + 7, category_id=3, bbox=box, area=box[2] * box[3], iscrowd=0)
        for i, box in enumerate(boxes)
    ]
    categories = [dict(id=3, name='spot')]
    content = dict(images=images, annotations=annotations, categories=categories)
    (tmp_path / 'instances.json').write_text(json.dumps(content))
    return tmp_path / 'instances.json'


@pytest.mark.parametrize('enlarge, pieces', [(1, 36), (2, 9)])
def test_objects_are_where_the_truth_says(enlarge, pieces, source, tmp_path, capsys):
    path = tmp_path / 'mosaic.tif'
    tool.make(source, tmp_path, 200, path, enlarge, compressed=True)
    pixels, truth = tifffile.imread(path), json.loads(path.with_suffix('.json').read_text())
    assert pixels.shape == (200, 200, 3) and len(truth['annotations']) == pieces
    left = (pixels[..., 0] > 128).astype(int)
    for annotation in truth['annotations']:
        x, y, w, h = annotation['bbox']
        part = left[y : y + h, x : x + w]
        assert part.mean() > 0.95 and annotation['area'] == w * h
        part[:] = 0
    assert left.sum() == 0
    assert len({tuple(a['bbox'][2:]) for a in truth['annotations']}) == 3  # they are turned

    found = [dict(a, score=0.5) for a in truth['annotations']]
    found += [dict(found[0], bbox=[0, 0, 4, 4], score=0.1)] * 200  # COCO counts 100 of an image
    predictions = tmp_path / 'predictions.json'
    for part, told in ((found, 'AP 1.0000, AP50 1.0000'), (found[: pieces // 2], 'AP 0.')):
        predictions.write_text(json.dumps(part))
        tool.score(path.with_suffix('.json'), predictions)
        assert told in capsys.readouterr().out


def test_images_of_other_sizes(source, tmp_path):
    Image.new('L', (32, 30)).save(tmp_path / '1.png')
    with pytest.raises(UserError, match='square images of one size'):
        tool.make(source, tmp_path, 200, tmp_path / 'mosaic.tif', 1, compressed=True)
