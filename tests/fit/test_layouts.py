"""Folders as people have them, and what is made of them."""

import json
from pathlib import Path

import made_folders as made
import numpy as np
import pytest
from PIL import Image

from convmlp_backbone.errors import UserError
from convmlp_backbone.fit import mask_images, prepare
from convmlp_backbone.fit.layouts import read
from convmlp_backbone.fit.split import held_out


def look_at(root, **options):
    return prepare.look_at(root, **options)[0]


BOXES = [
    (box, kind)
    for _, _, objects in made.SPLITS['train'] + made.SPLITS['val']
    for kind, box in objects
]


@pytest.mark.parametrize(
    'layout, task, split',
    [
        (made.coco, 'masks', True),
        (made.roboflow, 'masks', True),
        (made.cvat, 'masks', False),
        (made.labelme2coco, 'masks', False),
        (made.yolo, 'boxes', True),
        (made.yolo_points, 'masks', True),
        (made.yolo_flat, 'boxes', False),
        (made.voc, 'boxes', True),
    ],
    ids=lambda value: getattr(value, '__name__', value),
)
def test_objects(layout, task, split, tmp_path):
    layout(tmp_path)
    found = look_at(tmp_path)
    assert found.errors == []
    assert found.task == task
    assert found.names == (made.NAMES if layout is not made.voc else sorted(made.NAMES))
    assert {name: len(found.images(name)) for name in found.splits} == (
        dict(train=12, val=5) if split else dict(train=14, val=3)
    )
    assert any('no validation set was there' in note for note in found.notes) != split
    boxes = sorted(
        (np.round(a['bbox'], 1).tolist(), found.names[a['category_id']])
        for part in found.splits.values()
        for a in part['annotations']
    )
    expected = sorted(([float(v) for v in box], made.NAMES[kind]) for box, kind in BOXES)
    for (box, name), (right, right_name) in zip(boxes, expected, strict=True):
        assert name == right_name and box == pytest.approx(right, abs=0.11)
    for part in found.splits.values():
        for image in part['images']:
            assert (tmp_path / image['file_name']).is_file()
            assert (image['width'], image['height']) == made.SIZE


@pytest.mark.parametrize(
    'layout, names',
    [
        (made.masks, ['background', 'class 1', 'class 2']),
        (made.masks_255, ['background', 'object']),
        (made.masks_colours, ['background', 'square', 'disc']),
        (made.masks_ade, ['class 1', 'class 2']),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_masks(layout, names, tmp_path):
    layout(tmp_path / 'in')
    found = look_at(tmp_path / 'in')
    assert (found.errors, found.task, found.names) == ([], 'semantic', names)
    assert {name: len(found.images(name)) for name in found.splits} == dict(train=12, val=5)
    mask_images.write_maps(found, tmp_path / 'maps')
    for image in found.images('train'):
        labels = dict(made.named('train'))[image.rsplit('/', 1)[-1]][1]
        expected = {made.masks_255: labels > 0, made.masks_ade: labels - 1}.get(layout, labels)
        with Image.open(tmp_path / f'maps/{image}.png') as written:
            assert (np.asarray(written) == np.asarray(expected, np.uint8)).all()


def voc_masks(root):
    """Pascal VOC's own: lists, a value for each object too, boxes of all images, masks of some."""
    made.voc(root)
    for folder, factor in (('SegmentationClass', 1), ('SegmentationObject', 3)):
        (root / folder).mkdir()
        for split, count in (('train', 9), ('val', 4)):
            for name, (_, labels, _) in made.named(split)[:count]:
                Image.fromarray(labels * factor).save(root / folder / name)
    for split, count in (('train', 9), ('val', 4)):
        stems = [name[:-4] for name, _ in made.named(split)]
        made.write(root / f'ImageSets/Segmentation/{split}.txt', '\n'.join(stems[:count]))


def cityscapes(root):
    for split, count in (('train', 9), ('val', 4)):
        for name, (image, labels, _) in made.named(split)[:count]:
            stem = f'city/{split}_{name[:-4]}'
            for kind, picture in dict(
                leftImg8bit=image,
                gtFine_color=image,
                gtFine_instanceIds=Image.fromarray(labels * 3),
                gtFine_labelIds=Image.fromarray(labels + 1),
                gtFine_labelTrainIds=Image.fromarray(labels),
            ).items():
                path = root / kind.split('_')[0] / split / f'{stem}_{kind}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)


@pytest.mark.parametrize('layout', [voc_masks, cityscapes])
def test_masks_among_other_pictures(layout, tmp_path):
    """Of values for objects, of colours for people and of what is not listed nothing is learned."""
    layout(tmp_path)
    found = look_at(tmp_path, task='semantic')
    assert (found.errors, len(found.names)) == ([], 3)
    assert {name: len(found.images(name)) for name in found.splits} == dict(train=9, val=4)
    for part in found.splits.values():
        for image, mask in part:
            if layout is voc_masks:
                assert image.replace('JPEGImages', 'SegmentationClass') == mask
            else:
                assert image.startswith('leftImg8bit') and mask.endswith('gtFine_labelTrainIds.png')
                assert image.split('/')[1:3] == mask.split('/')[1:3]


def test_boxes_beside_masks(tmp_path):
    """The images are those of the annotations, not the masks of the same names."""
    voc_masks(tmp_path)
    (tmp_path / 'JPEGImages').rename(tmp_path / 'images')  # in whatever order
    made.write(tmp_path / 'ImageSets/Main/train.txt', 'train0\ntrain1\ntrain2')
    found = look_at(tmp_path)
    assert (found.errors, found.task) == ([], 'boxes')
    assert found.images('train') == [f'images/train{i}.png' for i in range(3)]


@pytest.mark.parametrize(
    'options, names, values',
    [
        (dict(unlabelled=0), ['class 1', 'class 2'], {0: 255, 1: 0, 2: 1}),
        (dict(classes=['square', 'disc']), ['square', 'disc'], {0: 255, 1: 0, 2: 1}),
        (
            dict(classes=['ground', 'square', 'disc']),
            ['ground', 'square', 'disc'],
            {0: 0, 1: 1, 2: 2},
        ),
    ],
)
def test_what_the_user_tells_of_masks(options, names, values, tmp_path):
    made.masks(tmp_path)
    found = look_at(tmp_path, **options)
    assert (found.errors, found.names, found.values) == ([], names, values)


@pytest.mark.parametrize('layout, split', [(made.folders, True), (made.folders_flat, False)])
def test_folders_of_classes(layout, split, tmp_path):
    layout(tmp_path)
    found = look_at(tmp_path)
    assert (found.errors, found.task, found.names) == ([], 'classes', ['disc', 'square'])
    assert len(found.images('train')) == (48 if split else 54)
    for image, index in found.splits['train'] + found.splits['val']:
        assert f'/{found.names[index]}/' in f'/{image}'
    counts = [sum(i == index for _, i in found.splits['val']) for index in (0, 1)]
    assert counts == ([10, 10] if split else [7, 7])


@pytest.mark.parametrize(
    'images, masks, split',
    [
        ('images/cam{}', 'masks/cam{}', 'all'),
        ('train/cam{}', 'trainannot/cam{}', 'train'),
        ('cam{}/image', 'cam{}/labels', 'all'),
    ],
)
def test_masks_of_the_same_names(images, masks, split, tmp_path):
    """cam1/0.png and cam2/0.png: each has its own mask."""
    for number in (1, 2):
        for name, piece in made.named('train')[number * 3 : number * 3 + 3]:
            name = f'{int(name[5:-4]) - number * 3}.png'
            for folder, picture in ((images, piece[0]), (masks, Image.fromarray(piece[1]))):
                path = tmp_path / folder.format(number) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
    pairs = read(tmp_path).splits[split]
    assert len(pairs) == 6
    for image, mask in pairs:
        number, name = image.split('cam')[1][0], image.rsplit('/', 1)[1]
        assert mask == f'{masks.format(number)}/{name}'


def test_annotations_of_the_same_names(tmp_path):
    for number in (1, 2):
        name, (image, _, objects) = made.named('train')[number]
        made.save([('0.png', (image, None, None))], tmp_path / f'JPEGImages/cam{number}')
        made.write(tmp_path / f'Annotations/cam{number}/0.xml', made.voc_file('0.png', objects))
    coco = read(tmp_path).splits['all']
    for image in coco['images']:
        number = int(image['file_name'].split('cam')[1][0])
        boxes = [a['bbox'] for a in coco['annotations'] if a['image_id'] == image['id']]
        assert boxes == [box for _, box in made.named('train')[number][1][2]]


@pytest.mark.parametrize(
    'path, expected',
    [
        ('masks/a.png', True),
        ('train_labels/a.png', True),
        ('images/a_mask.png', True),
        ('SegmentationClass/a.png', True),
        ('gtFine/x/a_gtFine_labelIds.png', True),
        ('images/road map.png', False),
        ('JPEGImages/a.jpg', False),
        ('label printers/a.jpg', False),
    ],
)
def test_what_is_a_mask(path, expected):
    assert mask_images.is_mask(path) == expected


def test_a_folder_of_several_layouts(tmp_path):
    made.coco(tmp_path)
    made.masks(tmp_path)
    assert read(tmp_path).task == 'masks'
    assert read(tmp_path, 'boxes').task == 'boxes'
    assert read(tmp_path, 'semantic').task == 'semantic'


def test_classes_left_out(tmp_path):
    made.coco(tmp_path)
    found = look_at(tmp_path, classes=['disc'])
    assert found.names == ['disc'] and found.errors == []
    assert {round(a['bbox'][2]) for a in found.splits['train']['annotations']} <= set(range(11, 18))
    with pytest.raises(UserError, match='--classes cat: the folder has square, disc'):
        read(tmp_path, classes=['cat'])


@pytest.mark.parametrize('split', [True, False])
def test_folders_of_classes_in_folders(split, tmp_path):
    """As an archive is unpacked."""
    (made.folders if split else made.folders_flat)(tmp_path / 'My data/photos')
    found = look_at(tmp_path)
    assert (found.errors, found.names) == ([], ['disc', 'square'])
    assert len(found.images('train')) == (48 if split else 54)


def test_links_that_lead_back(tmp_path):
    """Each image is there once; a link to another folder is followed."""
    made.folders_flat(tmp_path / 'a')
    (tmp_path / 'a/disc').rename(tmp_path / 'elsewhere')
    (tmp_path / 'a/disc').symlink_to(tmp_path / 'elsewhere')
    (tmp_path / 'a/square/again').symlink_to(tmp_path / 'a')
    (tmp_path / 'elsewhere/other').symlink_to(tmp_path / 'a/square')
    images = [image for part in read(tmp_path / 'a').splits.values() for image, _ in part]
    assert {len(Path(image).parts) for image in images} <= {2, 3}
    assert sum(image.startswith('square/') for image in images) == 34


def test_json_that_is_too_deep(tmp_path):
    made.save(made.named('train'), tmp_path)
    made.write(tmp_path / 'x.json', '{"images": ' + '[' * 100_000)
    with pytest.raises(UserError, match=r'x\.json is no JSON'):
        read(tmp_path)


def test_nothing_known(tmp_path):
    made.write(tmp_path / 'all.zip', 'PK')
    with pytest.raises(UserError, match=r'holds no images .*; unpack all\.zip'):
        read(tmp_path)
    made.save(made.named('train'), tmp_path / 'pictures')
    with pytest.raises(UserError, match='12 images .* and no labels that are known: COCO'):
        read(tmp_path)
    made.write(tmp_path / 'pictures/train0.json', dict(version='5', shapes=[], imagePath='x.png'))
    with pytest.raises(UserError, match=r'pictures/train0\.json is of LabelMe.*labelme2coco'):
        read(tmp_path)
    with pytest.raises(UserError, match='no folder'):
        read(tmp_path / 'none')


def test_images_saved_again_stay_together(tmp_path):
    made.cvat(tmp_path)
    path = tmp_path / 'annotations/instances_default.json'
    coco = json.loads(path.read_text())
    for image in list(coco['images']):
        name = f'other{image["id"]}.jpg'
        with Image.open(tmp_path / 'images/default' / image['file_name']) as opened:
            opened.save(tmp_path / 'images/default' / name, quality=80)
        coco['images'].append(dict(id=image['id'] + 50, file_name=name, width=112, height=80))
    path.write_text(json.dumps(coco))
    found = look_at(tmp_path)
    split = {Path(image).stem: name for name in found.splits for image in found.images(name)}
    assert found.errors == [] and len(split) == 34 and set(split.values()) == {'train', 'val'}
    for image in coco['images'][:17]:
        assert split[f'other{image["id"]}'] == split[Path(image['file_name']).stem]


def test_copies_stay_together():
    images = {f'{i}.png': (i // 2, f'name{i}') for i in range(40)}
    held = held_out(images, {})
    assert len(held) == 8 and all(
        f'{i ^ 1}.png' in held for i in map(int, (name[:-4] for name in held))
    )
    assert held == held_out(images, {})
    chain = {f'{i}.png': (i, i + 1) for i in range(10)} | {'x.png': (99,)}
    assert held_out(chain, {}) == {'x.png'} or held_out(chain, {}) == set(chain) - {'x.png'}
    strata = {name: int(name[:-4]) % 4 for name in images}
    assert {strata[name] for name in held_out({n: (n,) for n in images}, strata)} == {0, 1, 2, 3}
