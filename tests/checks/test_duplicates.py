"""Images that are there twice."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from convmlp_backbone.checks.duplicates import duplicate_problems
from convmlp_backbone.checks.images import image_facts


def photo(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), np.uint8)
    return Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)


def find(paths, splits):
    facts = [image_facts(path) for path in paths]
    return duplicate_problems(
        [str(p) for p in paths],
        splits,
        [f.digest for f in facts],
        np.stack([f.thumb for f in facts]),
    )


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda image: image, 'the same file'),
        (lambda image: image.resize((80, 60)), 'the same picture'),
        (lambda image: image.filter(ImageFilter.GaussianBlur(1)), 'the same picture'),
        (lambda image: image.point(lambda v: v * 0.9 + 5), 'the same picture'),
        (lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), None),
        (lambda image: image.crop((40, 30, 160, 120)), None),
    ],
)
def test_twice(change, words, tmp_path):
    paths = [tmp_path / f'{i}.png' for i in range(30)]
    for i, path in enumerate(paths):
        (change(photo(0)) if i == 29 else photo(i)).save(path)
    for splits, severity in ((['train'] * 30, 'note'), (['train'] * 29 + ['val'], 'warning')):
        found = find(paths, splits)
        if words is None:
            assert found == []
        else:
            (problem,) = found
            assert problem.severity == severity and words in problem.text
            assert '0.png' in problem.text and '29.png' in problem.text


def test_flat_pictures_are_not_alike(tmp_path):
    """Dark micrographs differ in little; black images are no evidence."""
    paths = [tmp_path / f'{i}.png' for i in range(20)]
    rng = np.random.default_rng(0)
    for i, path in enumerate(paths):
        pixels = rng.integers(0, 4, (120, 160), np.uint8)
        x, y = rng.integers(0, 90, 2)
        pixels[y : y + 20, x : x + 20] += np.uint8(60 * (i % 2))
        Image.fromarray(pixels).save(path)
    assert find(paths, ['train'] * 10 + ['val'] * 10) == []
