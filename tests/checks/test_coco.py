"""COCO annotation files as people have them: what is mended, what is refused, with what words."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO

from convmlp_backbone.checks.boxes import suspicious_units
from convmlp_backbone.checks.coco import CocoFile, _places, read_categories
from convmlp_backbone.checks.file_names import fit_file_names
from convmlp_backbone.errors import UserError


def good():
    return dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=100, height=80) for i in (1, 2)],
        categories=[dict(id=3, name='coin'), dict(id=7, name='stamp')],  # ids need not follow
        annotations=[
            dict(id=i, image_id=i, category_id=3, bbox=[10, 10, 20, 20], area=400, iscrowd=0)
            for i in (1, 2)
        ],
    )


def read(path, change=lambda coco: None, **options):
    coco = good()
    change(coco)
    path.write_text(json.dumps(coco), **options)
    return CocoFile(path)


def first(**changes):
    return lambda coco: coco['annotations'][0].update(changes)


def each(part, **changes):
    def change(coco):
        for item in coco[part]:
            item.update(
                {key: value(item) if callable(value) else value for key, value in changes.items()}
            )

    return change


def drop(part, key):
    def change(coco):
        for item in coco[part]:
            item.pop(key)

    return change


# What is wrong: a change of a good file, and words of the answer, '' for none.
PROBLEMS = dict(
    good=(lambda coco: None, ''),
    ids_not_contiguous=(lambda coco: coco['categories'].append(dict(id=90, name='x')), ''),
    no_boxes_in_an_image=(
        lambda coco: coco['annotations'].pop(),
        'warning: 1 of 2 images have no object to learn, such as 2.jpg',
    ),
    no_boxes_at_all=(lambda coco: coco['annotations'].clear(), 'error: no object to learn in any'),
    no_images=(
        lambda coco: (coco['images'].clear(), coco['annotations'].clear()),
        'error: no object to learn',
    ),
    crowd_only=(first(iscrowd=1), 'warning: 1 of 2 images have no object to learn'),
    box_of_zero_width=(first(bbox=[10, 10, 0, 20]), 'warning: has a box 0x20'),
    box_of_negative_height=(first(bbox=[10, 10, 5, -20]), 'warning: has a box 5x-20'),
    box_outside=(first(bbox=[200, 10, 20, 20]), 'warning: has a box outside the image'),
    box_reaches_out=(first(bbox=[90, 10, 20, 20]), 'warning: reaches out of the image'),
    nan=(first(bbox=[10, math.nan, 20, 20]), 'error: expected four finite numbers'),
    infinite=(first(bbox=[10, 10, math.inf, 20]), 'error: expected four finite numbers'),
    three_numbers=(first(bbox=[10, 10, 20]), 'error: expected four finite numbers'),
    text_box=(first(bbox='10 10 20 20'), 'error: expected four finite numbers'),
    no_box=(lambda coco: coco['annotations'][0].pop('bbox'), 'error: has the box None'),
    unknown_category=(first(category_id=5), 'error: is of category 5, which is not in the file'),
    category_is_a_list=(first(category_id=[3]), 'error: is of category [3], which is not in the'),
    other_category=(first(category_id=7), 'warning: 1 annotations of stamp, no class'),
    unknown_image=(first(image_id=9), 'error: is of image 9, which is not in the file'),
    two_images_of_an_id=(lambda coco: coco['images'][0].update(id=2), 'error: id 2 occurs 2 times'),
    two_categories_of_an_id=(
        lambda coco: coco['categories'][1].update(id=3),
        'error: id 3 occurs 2',
    ),
    two_used_categories_of_a_name=(
        lambda coco: (coco['categories'][1].update(name='coin'), first(category_id=7)(coco)),
        'error: 2 categories are called coin, ids 3, 7',
    ),
    image_without_size=(lambda coco: coco['images'][0].pop('width'), 'error: has the size Nonex80'),
    some_ignored=(first(ignore=1), 'warning: 1 of 2 annotations have "ignore": 1'),
    all_ignored=(each('annotations', ignore=1), 'error: no object to learn in any image'),
    no_outline=(lambda coco: None, 'error: has no outline'),
    empty_outline=(first(segmentation=[]), 'error: has no outline'),
    outline_of_two_points=(first(segmentation=[[1, 1, 5, 5]]), 'error: has the outline [[1, 1, 5'),
    odd_outline=(first(segmentation=[[1, 1, 5, 5, 1, 5, 2]]), 'error: has the outline'),
)


@pytest.mark.parametrize('name', PROBLEMS)
def test_problem(name, tmp_path):
    change, answer = PROBLEMS[name]
    found = read(tmp_path / 'x.json', change).problems(['coin'], 'outline' in name)
    problems = [f'{problem.severity}: {problem}' for problem in found]
    if not answer:
        assert problems == []
    else:
        severity, words = answer.split(': ', 1)
        assert any(p.startswith(severity) and words in p for p in problems), problems
        assert severity == 'error' or all(p.startswith('warning') for p in problems)


# What is mended: a change, and what the file holds then.
def flat(coco):
    return coco['annotations'][0]['segmentation']


MENDS = dict(
    annotation_ids_from_zero=(
        each('annotations', id=lambda a: a['id'] - 1),
        lambda c: [a['id'] for a in c['annotations']],
        [1, 2],
        'never counts',
    ),
    annotation_ids_twice=(
        each('annotations', id=5),
        lambda c: [a['id'] for a in c['annotations']],
        [1, 2],
        'occur twice',
    ),
    annotation_ids_text=(
        each('annotations', id=lambda a: str(a['id'])),
        lambda c: [a['id'] for a in c['annotations']],
        [1, 2],
        'whole numbers',
    ),
    no_annotation_ids=(
        drop('annotations', 'id'),
        lambda c: [a['id'] for a in c['annotations']],
        [1, 2],
        'whole numbers',
    ),
    category_ids_text=(
        each('annotations', category_id='3'),
        lambda c: [a['category_id'] for a in c['annotations']],
        [3, 3],
        'ids of categories',
    ),
    category_ids_float=(
        each('annotations', category_id=3.0),
        lambda c: [a['category_id'] for a in c['annotations']],
        [3, 3],
        'ids of categories',
    ),
    category_ids_text_in_both=(
        lambda c: (
            each('annotations', category_id='3')(c),
            each('categories', id=lambda k: str(k['id']))(c),
        ),
        lambda c: (c['annotations'][0]['category_id'], [k['id'] for k in c['categories']]),
        (3, [3, 7]),
        'ids of categories',
    ),
    image_ids_text=(
        each('annotations', image_id=lambda a: str(a['image_id'])),
        lambda c: [a['image_id'] for a in c['annotations']],
        [1, 2],
        'ids of images',
    ),
    image_ids_names=(
        lambda c: (
            each('annotations', image_id=lambda a: f'{a["image_id"]}.jpg')(c),
            each('images', id=lambda i: f'{i["id"]}.jpg')(c),
        ),
        lambda c: ([a['image_id'] for a in c['annotations']], [i['id'] for i in c['images']]),
        ([1, 2], [1, 2]),
        'ids of images',
    ),
    images_listed_twice=(
        lambda c: c['images'].append(dict(c['images'][0])),
        lambda c: len(c['images']),
        2,
        'listed twice',
    ),
    unused_super_category=(
        lambda c: c['categories'].insert(0, dict(id=0, name='coin', supercategory='none')),
        lambda c: [k['id'] for k in c['categories']],
        [3, 7],
        'second category coin',
    ),
    no_iscrowd=(
        drop('annotations', 'iscrowd'),
        lambda c: c['annotations'][0]['iscrowd'],
        0,
        'iscrowd filled in (2)',
    ),
    iscrowd_text=(first(iscrowd='0'), lambda c: c['annotations'][0]['iscrowd'], 0, 'iscrowd'),
    no_area=(drop('annotations', 'area'), lambda c: c['annotations'][0]['area'], 400, 'areas'),
    area_of_zero=(first(area=0), lambda c: c['annotations'][0]['area'], 400, 'areas filled in (1)'),
    area_of_an_outline=(
        first(area=None, segmentation=[[0, 0, 10, 0, 0, 10]]),
        lambda c: c['annotations'][0]['area'],
        50,
        'areas',
    ),
    flat_outline=(first(segmentation=[1, 1, 9, 1, 9, 9]), flat, [[1, 1, 9, 1, 9, 9]], 'outlines'),
    box_of_text=(
        first(bbox=['10', '10', '20', '20.5']),
        lambda c: c['annotations'][0]['bbox'],
        [10, 10, 20, 20.5],
        'boxes',
    ),
    box_of_an_outline=(
        lambda c: (first(segmentation=[[5, 6, 15, 6, 15, 26]])(c), c['annotations'][0].pop('bbox')),
        lambda c: c['annotations'][0]['bbox'],
        [5, 6, 10, 20],
        'boxes',
    ),
    size_of_text=(each('images', width='100'), lambda c: c['images'][0]['width'], 100, 'sizes'),
)


@pytest.mark.parametrize('name', MENDS)
def test_mend(name, tmp_path):
    change, look, wanted, words = MENDS[name]
    file = read(tmp_path / 'x.json', change)
    assert look(file.coco) == wanted and words in ' '.join(file.done)
    assert len(file.done) == 1
    assert not file.problems(['coin'])
    file.save(tmp_path / 'mended.json')
    assert CocoFile(tmp_path / 'mended.json').done == []


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_encoding(encoding, tmp_path):
    file = read(tmp_path / 'x.json', encoding=encoding)
    assert 'encoding' in file.done[0]
    file.save(tmp_path / 'y.json')
    assert COCO(tmp_path / 'y.json').getImgIds() == [1, 2]


@pytest.mark.parametrize(
    'content, words',
    [
        ('', 'is no JSON'),
        ('{"images": [', 'is no JSON'),
        ('<html>', 'is no JSON'),
        ('[]', 'is no COCO'),
        ('null', 'is no COCO'),
        ('{}', 'no list of images'),
        ('{"images": [], "annotations": [3], "categories": []}', 'no list of annotations'),
        ('{"images": [{}], "annotations": [], "categories": []}', '1 of its images have no id'),
    ],
)
def test_no_annotation_file(content, words, tmp_path):
    path = tmp_path / 'x.json'
    path.write_text(content)
    with pytest.raises(UserError, match=words) as error:
        CocoFile(path)
    assert '\n' not in str(error.value)


# Names


@pytest.mark.parametrize(
    'classes, own, words',
    [
        (['coin', 'stamp'], True, None),
        (['stamp'], True, None),
        (['Coin'], True, 'did you mean coin for Coin?'),
        (
            ['person', 'bicycle', 'car'],
            False,
            'the config names no classes, so that they are person',
        ),
    ],
)
def test_names(classes, own, words, tmp_path):
    found = read(tmp_path / 'x.json').name_problems(classes, own)
    if words is None:
        assert found == []
    else:
        assert words in found[0].text and "classes=('coin', 'stamp')" in found[0].text
        assert 'num_classes=2' in found[0].text


@pytest.mark.parametrize(
    'learned, order, done',
    [
        (['coin', 'stamp'], ['coin', 'stamp'], 0),
        (['stamp', 'coin'], ['stamp', 'coin'], 1),
        (
            ['medal', 'stamp', 'coin'],
            ['medal', 'stamp', 'coin'],
            2,
        ),  # a class without an object here
        (['stamp'], ['coin', 'stamp'], 0),
    ],
)
def test_order_of_categories(learned, order, done, tmp_path):
    file = read(tmp_path / 'x.json')
    assert not file.other_name_problems(learned)
    file.order_categories(learned)
    assert file.names == order and len(file.done) == done
    ids = {c['name']: c['id'] for c in file.coco['categories']}
    assert ids['coin'] == 3 and ids['stamp'] == 7 and len(set(ids.values())) == len(ids)
    file.save(tmp_path / 'y.json')
    # What MMDetection numbers its labels by.
    coco = COCO(tmp_path / 'y.json')
    assert coco.getCatIds(catNms=learned) == [ids[name] for name in learned]


@pytest.mark.parametrize('learned', [['Coin', 'stamp'], ['person', 'car']])
def test_other_names_are_refused(learned, tmp_path):
    (problem,) = read(tmp_path / 'x.json').other_name_problems(learned)
    assert problem.severity == 'error' and 'name them alike' in problem.text


def test_categories_without_the_rest(tmp_path):
    path = tmp_path / 'x.json'
    read(path, lambda c: c['images'][0].update(file_name='"categories": [1].jpg'))
    assert [c['name'] for c in read_categories(path)] == ['coin', 'stamp']


# The filter


@pytest.mark.parametrize(
    'filter_cfg, batch, words',
    [
        ({}, 1, None),
        (dict(min_size=32), 1, None),
        (dict(min_size=80), 2, None),
        (dict(min_size=81), 1, 'all 2 images are smaller: --cfg-options'),
        ({}, 3, '2 images are less than a batch of 3'),
    ],
)
def test_filter(filter_cfg, batch, words, tmp_path):
    found = read(tmp_path / 'x.json').filter_problems(
        'train_dataloader.dataset', filter_cfg, ['coin'], batch
    )
    assert words is None and not found or words in found[0].text


# Units of boxes


def boxes(count=60, width=640, height=480, seed=0):
    rng = np.random.default_rng(seed)
    w, h = rng.uniform(20, 120, count), rng.uniform(20, 120, count)
    x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return np.stack([x, y, w, h], 1), np.tile([width, height], (count, 1))


def corners(b):
    return np.concatenate([b[:, :2], b[:, :2] + b[:, 2:]], 1)


UNITS = dict(
    right=(lambda b, s: b, None),
    corners=(lambda b, s: corners(b), 'they seem to be x1, y1, x2, y2'),
    centres=(lambda b, s: np.concatenate([b[:, :2] + b[:, 2:] / 2, b[:, 2:]], 1), 'centre x'),
    normalised=(lambda b, s: b / np.tile(s, 2), 'between 0 and 1'),
    normalised_centres=(
        lambda b, s: (b + np.pad(b[:, 2:] / 2, ((0, 0), (0, 2)))) / np.tile(s, 2),
        'between 0 and 1',
    ),
    of_a_larger_image=(lambda b, s: b * 3, 'of another image size'),
    of_a_smaller_image=(lambda b, s: np.tile(b, (2, 1)) / 2, 'of another image size'),
)


@pytest.mark.parametrize('name', UNITS)
def test_units_of_boxes(name):
    change, words = UNITS[name]
    b, sizes = boxes()
    b = change(b, sizes)
    sizes = np.tile(sizes, (len(b) // len(sizes), 1))
    found = suspicious_units(b, sizes, np.full(len(b), np.nan))
    assert found is None if words is None else words in found[1]


def test_areas_betray_corners_that_do_not_reach_out():
    b, sizes = boxes(width=200, height=200)
    found = suspicious_units(corners(b), sizes * 10, b[:, 2] * b[:, 3])
    assert 'x1, y1, x2, y2' in found[1]


@pytest.mark.parametrize('seed', range(20))
def test_no_suspicion_of_right_boxes(seed):
    """Few or many, large, some of them reaching out a little, with any areas below the box's."""
    rng = np.random.default_rng(seed)
    b, sizes = boxes(int(rng.integers(1, 300)), *rng.integers(200, 2000, 2), seed=seed)
    b[rng.random(len(b)) < 0.02] *= 1.1
    b[0] = [0, 0, *sizes[0]]  # one reaches over the whole image
    areas = b[:, 2] * b[:, 3] * rng.uniform(0.3, 1, len(b))
    assert suspicious_units(b, sizes, areas) is None


# File names

FILES = dict(
    as_they_are=('a.jpg', 'a.jpg'),
    backslashes=('train\\a.jpg', 'a.jpg'),
    folder_doubled=('train/a.jpg', 'a.jpg'),
    other_machine=('C:\\data\\train\\a.jpg', 'a.jpg'),
    absolute=('/home/me/data/train/a.jpg', 'a.jpg'),
    other_case=('A.JPG', 'a.jpg'),
    inner_folder=('cam1\\b.jpg', 'cam1/b.jpg'),
    dot=('./a.jpg', './a.jpg'),
    percent=('my%20c.jpg', 'my c.jpg'),
    percent_itself=('50%25.jpg', '50%25.jpg'),
)


@pytest.mark.parametrize('name', FILES)
def test_file_name(name, tmp_path):
    told, wanted = FILES[name]
    (tmp_path / 'train/cam1').mkdir(parents=True)
    for path in ('a.jpg', 'cam1/b.jpg', 'my c.jpg', '50%25.jpg', '50%.jpg'):
        (tmp_path / 'train' / path).touch()
    file = read(
        tmp_path / 'x.json', lambda c: (c['images'].pop(), c['images'][0].update(file_name=told))
    )
    problems = []
    fit_file_names(
        file, 'x', dict(data_root=str(tmp_path), data_prefix=dict(img='train/')), problems
    )
    assert file.coco['images'][0]['file_name'] == wanted and not problems
    assert bool(file.done) == (told != wanted)


def test_two_names_of_one_file_are_refused(tmp_path):
    (tmp_path / 'train').mkdir()
    (tmp_path / 'train/a.jpg').touch()
    file = read(tmp_path / 'x.json', each('images', file_name=lambda i: f'cam{i["id"]}/a.jpg'))
    problems = []
    fit_file_names(
        file, 'x', dict(data_root=str(tmp_path), data_prefix=dict(img='train/')), problems
    )
    assert 'cam1/a.jpg' in problems[0].text and problems[0].severity == 'error'


def test_lost_file(tmp_path):
    (tmp_path / 'images').mkdir()
    (tmp_path / 'images/1.jpg').touch()
    file, problems = read(tmp_path / 'x.json'), []
    fit_file_names(
        file, 'x', dict(data_root=str(tmp_path), data_prefix=dict(img='train/')), problems
    )
    assert "write data_prefix=dict(img='images/')" in problems[0].text


# Whatever comes


@settings(max_examples=60, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(
            ['id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'ignore', 'segmentation']
        ),
        st.recursive(
            st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=3), st.booleans()),
            lambda inner: (
                st.lists(inner, max_size=7)
                | st.dictionaries(st.sampled_from(['counts', 'size']), inner)
            ),
            max_leaves=12,
        ),
    )
)
def test_no_annotation_surprises(changes, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / 'x.json'
    file = read(path, first(**changes))
    assert all(len(problem) == 3 for problem in file.problems(['coin'], True))
    assert len(file.excerpt(2)['images']) in (1, 2)
    file.save(path)
    assert CocoFile(path).done == []  # once is enough


@given(
    st.lists(st.integers() | st.integers(0, 9), unique=True, max_size=8),
    st.lists(st.integers(-1, 9) | st.integers() | st.text(max_size=1) | st.just([1]), max_size=8),
)
def test_every_reference_finds_its_place(own, ids):
    """Of whatever kind the ids are, and however large."""
    index = {str(number): place for place, number in enumerate(own)}
    wanted = [index.get(str(n), -1) if isinstance(n, int) else -1 for n in ids]
    assert _places([dict(id=number) for number in own], ids).tolist() == wanted
