"""Masks as people have them: each form read as MMSegmentation reads it, or refused with a line
that mends it."""

import shlex
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from convmlp_backbone.checks.datasets import scope_of
from convmlp_backbone.checks.masks import MaskCounts, read_mask, split_problems

INDICES = np.repeat(np.arange(3, dtype=np.uint8), 8)[None].repeat(6, 0)  # 0, 1 and 2, (6, 24)
COLOURS = np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]], np.uint8)


def palette(indices):
    image = Image.new('P', indices.shape[::-1])
    image.putdata(indices.ravel().tolist())
    image.putpalette(COLOURS.ravel().tolist() + [0] * 759)
    return image


FORMS = dict(
    indices=(Image.fromarray(INDICES), True),
    palette=(palette(INDICES), True),
    sixteen_bits_small=(Image.fromarray(INDICES.astype(np.uint16)), True),
    one_bit=(Image.fromarray(INDICES > 0), True),
    equal_channels=(Image.fromarray(INDICES[..., None].repeat(3, 2)), 'one with the indices'),
    colours=(Image.fromarray(COLOURS[INDICES]), 'has colours, (0, 0, 0), (0, 0, 200)'),
    colours_and_alpha=(Image.fromarray(COLOURS[INDICES]).convert('RGBA'), 'has colours'),
    grey_and_alpha=(Image.fromarray(INDICES).convert('LA'), 'has 2 channels (LA)'),
    sixteen_bits=(Image.fromarray(INDICES.astype(np.uint16) * 300), 'values up to 600'),
    thirty_two_bits=(Image.fromarray(INDICES.astype(np.int32) * 1000), 'values up to 2000'),
)


@pytest.mark.parametrize('name', FORMS)
def test_form(name, tmp_path):
    mmcv = pytest.importorskip('mmcv')
    image, answer = FORMS[name]
    path = tmp_path / ('x.tif' if image.mode == 'I' else 'x.png')  # which holds 16 bits at most
    image.save(path)
    values, fault, _ = read_mask(path)
    if answer is True:
        seen = (
            mmcv.imfrombytes(path.read_bytes(), flag='unchanged', backend='pillow')
            .squeeze()
            .astype(np.uint8)
        )
        assert (values == seen).all() and not fault
    else:
        assert values is None and answer in fault


def test_broken_masks(tmp_path):
    (tmp_path / 'x.png').write_text('no image')
    assert read_mask(tmp_path / 'x.png')[1] == 'is no image'
    assert read_mask(tmp_path / 'y.png')[1] == 'No such file or directory'


# What the values mean: the values of all masks, the classes, reduce_zero_label; words of the answer
VALUES = dict(
    right=([0, 1], 2, False, None),
    unlabelled=([0, 1, 255], 2, False, None),
    reduced=([0, 1, 2], 2, True, None),
    reduced_and_all_labelled=([1, 2], 2, True, None),
    white=([0, 255], 2, False, 'v // 255'),
    grey_levels=([0, 128, 255], 3, False, '{0: 0, 128: 1, 255: 2}'),
    reduced_for_nothing=([0, 1], 2, True, 'write reduce_zero_label=False'),
    not_reduced=([0, 1, 2], 2, False, 'write reduce_zero_label=True'),
    beyond=([0, 1, 7], 2, False, 'the masks hold 7, the classes are 0 to 1'),
    beyond_reduced=([0, 1, 9], 2, True, 'the masks hold 9, the classes are 1 to 2'),
    absent=([0, 1], 3, False, 'class 2 never occurs in 1 masks, which hold 0, 1'),
    nothing_but_unlabelled=([255], 2, False, 'never occurs'),
)


@pytest.mark.parametrize('own', [True, False])
@pytest.mark.parametrize('name', VALUES)
def test_values(name, own, tmp_path):
    values, number, reduce, words = VALUES[name]
    Image.fromarray(np.array(values, np.uint8)[None].repeat(4, 0)).save(tmp_path / 'x.png')
    counts = MaskCounts([f'class {i}' for i in range(number)], reduce, own, 'train', tmp_path)
    counts.add(tmp_path / 'x.png')
    found = counts.problems(whole=True)
    # A part of ADE20K, whose 150 names no user wrote, need not have all its classes.
    part = name in ('absent', 'white', 'reduced_for_nothing')
    if words is None or not own and part:
        assert not found
    else:
        assert found[0].severity == 'error' and words in found[0].text


@pytest.mark.parametrize(
    'image',
    [
        Image.fromarray((INDICES > 0).astype(np.uint8) * 255),
        FORMS['equal_channels'][0],
        FORMS['colours'][0],
        FORMS['grey_and_alpha'][0],
    ],
)
def test_the_line_mends(image, tmp_path):
    (tmp_path / 'a b').mkdir()
    image.save(tmp_path / 'a b/x.png')
    number = 2 if image.mode == 'L' else 3

    def check():
        counts = MaskCounts(range(number), False, True, 'train', tmp_path)
        counts.add(tmp_path / 'a b/x.png')
        return counts.problems(whole=True), counts.classes.tolist()

    line = check()[0][0].text.partition('python -c ')[2]
    subprocess.run([sys.executable, '-c', *shlex.split(line)], check=True)
    problems, pixels = check()
    assert problems == [] and pixels == ([48, 96] if number == 2 else [48, 48, 48])


# Lists of files


def leaf(root, **changes):
    return dict(
        type='BaseSegDataset',
        data_root=str(root),
        img_suffix='.png',
        metainfo=dict(classes=('a', 'b', 'c')),
        data_prefix=dict(img_path='images', seg_map_path='masks'),
        **changes,
    )


@pytest.fixture
def files(tmp_path):
    for folder in ('images/cam1', 'masks/cam1'):
        (tmp_path / folder).mkdir(parents=True)
    for name in ('0.png', 'cam1/0.png'):
        Image.new('RGB', (24, 6)).save(tmp_path / 'images' / name)
        Image.fromarray(INDICES).save(tmp_path / 'masks' / name)
    return tmp_path


@pytest.mark.parametrize(
    'change, settings, words',
    [
        (lambda root: None, {}, None),
        (lambda root: None, dict(img_suffix='.jpg'), "write img_suffix='.png'"),
        (lambda root: None, dict(seg_map_suffix='_mask.png'), 'images have no mask, such as 0.png'),
        (
            lambda root: (root / 'masks/0.png').rename(root / 'masks/0.tif'),
            {},
            '1 of 2 images have no',
        ),
        (lambda root: Image.new('L', (24, 6)).save(root / 'images/1.jpg'), {}, 'warning: 1 images'),
        (
            lambda root: [p.rename(p.with_suffix('.tif')) for p in root.glob('masks/**/*.png')],
            {},
            "write seg_map_suffix='.tif'",
        ),
        (
            lambda root: None,
            dict(data_prefix=dict(img_path='nowhere', seg_map_path='masks')),
            'there is no folder',
        ),
        (
            lambda root: (root / 'list.txt').write_text('0\ncam1/0\n'),
            dict(ann_file='list.txt'),
            None,
        ),
        (
            lambda root: (root / 'list.txt').write_text('0\ncam2/0\n'),
            dict(ann_file='list.txt'),
            'such as cam2/0.png',
        ),
    ],
)
def test_lists(change, settings, words, files):
    mmseg = pytest.importorskip('mmseg.datasets')
    change(files)
    with scope_of(dict(default_scope='mmseg')):
        found = split_problems(
            'train_dataloader.dataset',
            {**leaf(files), **settings},
            mmseg.BaseSegDataset,
            ['a', 'b', 'c'],
            True,
        )
    if words is None:
        assert found == []
    else:
        assert any(words in f'{problem.severity}: {problem.text}' for problem in found), found
