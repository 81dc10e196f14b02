"""Spoiled folders: the answer names the fault."""

import json
import re
import shutil

import made_folders as made
import numpy as np
import pytest
from PIL import Image
from test_layouts import look_at

TRAIN, VAL = 'annotations/instances_train.json', 'annotations/instances_val.json'


def edit(path, change):
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


def order(root):
    """The names of the validation file exchanged."""
    edit(
        root / VAL,
        lambda coco: [c.update(name=made.NAMES[2 - c['id']]) for c in coco['categories']],
    )


def yolo_order(root):
    for path in (root / 'labels/val').iterdir():
        lines = path.read_text().split('\n')
        path.write_text('\n'.join(f'{1 - int(line[0])}{line[1:]}' for line in lines))


def yolo_names(root):
    made.write(root / 'classes.txt', 'disc\nsquare\n')


def folder_order(root):
    (root / 'val/disc').rename(root / 'val/x')
    (root / 'val/square').rename(root / 'val/disc')
    (root / 'val/x').rename(root / 'val/square')


def shifted(root, by=(9, 7)):
    for name in (TRAIN, VAL):

        def move(coco):
            for a in coco['annotations']:
                a['bbox'] = [a['bbox'][0] + by[0], a['bbox'][1] + by[1], *a['bbox'][2:]]
                a.pop('segmentation')

        edit(root / name, move)


def shifted_from_masks(root):
    edit(
        root / TRAIN,
        lambda coco: [a['bbox'].__setitem__(0, a['bbox'][0] + 12) for a in coco['annotations']],
    )


def placed(move):
    """A spoiler that makes ``move(x, y, w, h, image)`` of every box."""

    def spoil(root):
        for name in (TRAIN, VAL):

            def edit_all(coco):
                sizes = {image['id']: image for image in coco['images']}
                for a in coco['annotations']:
                    a['bbox'] = move(*a['bbox'], sizes[a['image_id']])
                    a.pop('segmentation')

            edit(root / name, edit_all)

    return spoil


mirrored = placed(lambda x, y, w, h, image: [image['width'] - x - w, y, w, h])
upside_down = placed(lambda x, y, w, h, image: [x, image['height'] - y - h, w, h])
exchanged = placed(lambda x, y, w, h, image: [y, x, h, w])


def square_exchanged(root):
    """Of square images nothing but the pixels tell that x and y are exchanged."""
    for split in ('train', 'val'):
        for path in (root / split).iterdir():
            with Image.open(path) as image:
                image.crop((0, 0, 112, 112)).save(path)  # black below
        edit(
            root / f'annotations/instances_{split}.json',
            lambda coco: [image.update(height=112) for image in coco['images']],
        )
    exchanged(root)


def resaved(root):
    for number in range(2):
        with Image.open(root / f'train/train{number}.png') as image:
            image.save(root / f'val/again{number}.jpg', quality=80)
    edit(
        root / VAL,
        lambda coco: coco['images'].extend(
            dict(id=90 + i, file_name=f'again{i}.jpg', width=112, height=80) for i in range(2)
        ),
    )


def voc_shifted(root):
    for path in (root / 'Annotations').iterdir():
        text = path.read_text()
        for tag in ('xmin', 'xmax'):
            parts = text.split(f'<{tag}>')
            text = parts[0] + ''.join(
                f'<{tag}>{int(part.split("<")[0]) - 10}<{part.split("<", 1)[1]}'
                for part in parts[1:]
            )
        path.write_text(text)


def fractions(root):
    for name in (TRAIN, VAL):
        edit(
            root / name,
            lambda coco: [
                a.update(bbox=(np.array(a['bbox']) / (*made.SIZE, *made.SIZE)).tolist())
                for a in coco['annotations']
            ],
        )


def corners(root):
    for name in (TRAIN, VAL):
        edit(
            root / name,
            lambda coco: [
                (a.update(bbox=[x, y, x + w, y + h]), a.pop('segmentation'))
                for a in coco['annotations']
                for x, y, w, h in [a['bbox']]
            ],
        )


def yolo_pixels(root):
    for path in (root / 'labels').rglob('*.txt'):
        path.write_text(
            '\n'.join(
                ' '.join([line.split()[0], *(f'{float(v) * 100:.1f}' for v in line.split()[1:])])
                for line in path.read_text().split('\n')
            )
        )


def one_class(root):
    edit(root / TRAIN, lambda coco: [a.update(category_id=1) for a in coco['annotations']])


def folders_one_class(root):
    for split in ('train', 'val'):
        shutil.rmtree(root / split / 'disc')


def same(root):
    shutil.rmtree(root / 'val')
    shutil.copytree(root / 'train', root / 'val')
    shutil.copy(root / TRAIN, root / VAL)


def no_val_images(root):
    edit(root / VAL, lambda coco: coco.update(images=[], annotations=[]))


def no_val_objects(root):
    edit(root / VAL, lambda coco: coco.update(annotations=[]))


def empty_folder(root):
    shutil.rmtree(root / 'images/val')
    shutil.rmtree(root / 'labels/val')
    (root / 'images/val').mkdir()


def masks_all_255(root):
    for path in (root / 'masks').rglob('*.png'):
        Image.new('L', made.SIZE, 255).save(path)


def masks_all_one(root):
    for path in (root / 'masks').rglob('*.png'):
        Image.new('L', made.SIZE, 1).save(path)


def masks_blended(root):
    for path in (root / 'masks').rglob('*.png'):
        Image.fromarray(
            np.random.default_rng(0).integers(0, 256, (*made.SIZE[::-1], 3), dtype=np.uint8)
        ).save(path)


def copies(root):
    """Saved anew under other names: other bytes, the same pixels."""
    for number in (0, 1):
        with Image.open(root / f'train/train{number}.png') as image:
            image.save(root / f'val/val{number}.png', compress_level=1)


def half_missing(root):
    for number in range(0, 12, 2):
        (root / f'train/train{number}.png').unlink()


def yolo_half_missing(root):
    for number in range(0, 12, 2):
        (root / f'images/train/train{number}.png').unlink()


def yolo_labels_missing(root):
    for number in range(0, 12, 2):
        (root / f'labels/train/train{number}.txt').unlink()


def masks_half_missing(root):
    for number in range(0, 12, 2):
        (root / f'masks/train/train{number}.png').unlink()


def swapped(root):
    for name in (TRAIN, VAL):
        edit(
            root / name,
            lambda coco: [i.update(width=i['height'], height=i['width']) for i in coco['images']],
        )


def voc_swapped(root):
    for path in (root / 'Annotations').iterdir():
        path.write_text(
            path.read_text()
            .replace('width>', 'w>')
            .replace('height>', 'width>')
            .replace('w>', 'height>')
        )


def masks_swapped(root):
    for path in (root / 'masks').rglob('*.png'):
        with Image.open(path) as mask:
            mask.transpose(Image.Transpose.ROTATE_90).save(path)


def broken(root):
    path = root / 'train/train3.png'
    path.write_bytes(path.read_bytes()[:400])


@pytest.mark.parametrize(
    'layout, spoil, answer',
    [
        (
            made.coco,
            order,
            'classes have another order .* square looks like disc, disc looks like sq',
        ),
        (made.yolo, yolo_order, 'classes have another order in the validation set'),
        (
            made.yolo,
            yolo_names,
            r'classes.txt names the classes in another order \(disc, square\) than '
            'data.yaml',
        ),
        (made.folders, folder_order, 'classes have another order in the validation set'),
        (
            made.coco,
            shifted,
            r'train boxes seem to be shifted: the objects are about -\d+, -\d+ pix',
        ),
        (
            made.coco,
            shifted_from_masks,
            r'do not lie round their masks: the masks are -12, \+0 pixels',
        ),
        (made.voc, voc_shifted, r'seem to be shifted: .* \+(9|10|11), [+-]0'),
        (made.coco, mirrored, 'the train boxes seem to be mirrored, left to right'),
        (made.coco, upside_down, 'the train boxes seem to be upside down'),
        (made.coco, square_exchanged, 'seem to be y, x, height, width: x and y are exchanged'),
        (made.coco, fractions, 'lie between 0 and 1: fractions of the image, pixels are expected'),
        (made.coco, corners, 'seem to be x1, y1, x2, y2: .* write x1, y1, x2 - x1, y2 - y1'),
        (made.yolo, yolo_pixels, 'YOLO expects fractions of the image, these seem to be pixels'),
        (made.coco, one_class, 'all 48 training labels are of one class, square, of 2'),
        (made.folders, folders_one_class, 'of one class, square'),
        (made.coco, same, 'train = val: 12 of 12 validation images are training images'),
        (made.coco, no_val_images, 'the val set has no images'),
        (made.coco, no_val_objects, 'the 5 images of the val set have no objects'),
        (made.yolo, empty_folder, 'images/val/ holds no labelled image: fill it, or remove it'),
        (made.masks, masks_all_255, 'all are 255, which means unlabelled'),
        (made.masks, masks_all_one, 'all pixels of the training masks are of one class, class 1'),
        (made.masks, masks_blended, 'different colours or values: they are no maps of classes'),
        (
            made.coco,
            copies,
            '2 of 5 validation images are training images, too, such as val/val0.png',
        ),
        (
            made.coco,
            resaved,
            '2 of 7 validation images are training images, too, such as val/again0.jpg = train/tr',
        ),
        (made.coco, half_missing, '6 of 12 images are missing, such as train0.png, train2.png'),
        (
            made.yolo,
            yolo_half_missing,
            '6 of 17 label files have no image, such as labels/train/train',
        ),
        (
            made.yolo,
            yolo_labels_missing,
            '6 of 17 images have no label file, such as images/train/tr',
        ),
        (
            made.masks,
            masks_half_missing,
            '6 of 17 images have no mask, such as images/train/train0.',
        ),
        (made.coco, swapped, '112x80, not 80x112: width and height are swapped'),
        (made.voc, voc_swapped, '112x80, not 80x112: width and height are swapped'),
        (made.masks, masks_swapped, '80x112, the image 112x80: width and height are swapped'),
        (made.coco, broken, '1 of 17 images cannot be read, such as train/train3.png'),
    ],
    ids=lambda value: getattr(value, '__name__', ''),
)
def test_the_answer_names_the_fault(layout, spoil, answer, tmp_path):
    layout(tmp_path)
    spoil(tmp_path)
    found = look_at(tmp_path)
    assert len(found.errors) in (1, 2), found.errors
    assert any(re.search(answer, text) for text in found.errors), found.errors
    assert not any('\n' in text for text in found.errors)


@pytest.mark.parametrize(
    'name, task',
    [('nuclei', None), ('nuclei', 'semantic'), ('coco_sample', None), ('clothing', None)],
)
def test_no_false_alarm(name, task, shared_data):
    assert look_at(shared_data / name, task=task).errors == []


@pytest.mark.parametrize('task', ['masks', 'boxes', 'semantic'])
def test_no_false_alarm_on_coins(task, coins):
    assert look_at(coins, task=task).errors == []


def test_pictures_of_one_kind_are_no_copies(tmp_path):
    """Forms, or frames of a fixed camera: alike, with something else in each."""
    form = np.random.default_rng(0).integers(0, 256, (20, 20)).astype(np.uint8)
    form = np.kron(form, np.ones((8, 8), np.uint8))
    for split, count in (('train', 9), ('val', 6)):
        for number in range(count):
            page = form.copy()
            at = 3 * number if split == 'train' else 60 + 3 * number
            page[at : at + 3, :3] ^= 16  # a little ink
            path = tmp_path / split / ('blank', 'filled')[number % 2] / f'{number}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(page).save(path)
    assert not any('too' in text for text in look_at(tmp_path).errors)
