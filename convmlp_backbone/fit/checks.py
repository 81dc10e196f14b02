"""Why training on what was found would be in vain; see also :mod:`..checks`."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import plausible
from .coco_json import box_of
from .found import Found, some, split_of
from .survey import Look, copies

COPIES = 0.02  # of the validation images that may be in the training set, too


def check(found: Found, looks: dict[str, Look]) -> None:
    """Append to ``found.errors`` and ``found.notes`` what images and labels tell.

    Args:
        found: With ``train`` and ``val``.
        looks: Of every image.
    """
    checks = [_images, _empty, _classes, _copies]
    checks += (
        [_sizes, _boxes]
        if found.task in ('boxes', 'masks')
        else ([_map_sizes] if found.task == 'semantic' else [])
    )
    for one in checks:
        one(found, looks)
    # Of sound labels only can one ask whether they suit the pixels.
    for ask in (_positions, _reach, _exchanged):
        if not found.errors:
            ask(found)


def empty_split(root: Path, found: Found) -> list[str]:
    """Folders that ought to hold the validation images, and hold none."""
    if 'val' in found.splits or 'all' in found.splits:
        return []
    used = {Path(i).parent.as_posix() for split in found.splits for i in found.images(split)}
    folders = [f.relative_to(root).as_posix() for f in sorted(root.glob('**/')) if f != root]
    return [
        f'{folder}/ holds no labelled image: fill it, or remove it; then a part of the '
        'training images will be the validation set'
        for folder in folders
        if split_of(f'{folder}/x') == 'val' and folder not in used
    ][:1]


def _images(found, looks):
    bad = {image: look.fault for image, look in looks.items() if look.fault}
    if bad:
        first = next(iter(bad))
        found.errors.append(
            f'{len(bad)} of {len(looks)} images cannot be read, such as {first}, '
            f'which {bad[first]}; take them away, with their labels'
        )


def _empty(found, looks):
    if isinstance(test := found.splits.get('test'), dict) and not test['annotations']:
        del found.splits['test']
        found.notes.append('the test set has no labels: left out')
    for split in ('train', 'val'):
        part = found.splits.get(split)
        images = found.images(split) if part else []
        if not images:
            found.errors.append(f'the {split} set has no images')
        elif isinstance(part, dict) and not any(not a['iscrowd'] for a in part['annotations']):
            found.errors.append(f'the {len(images)} images of the {split} set have no objects')


def _classes(found, looks):
    if found.task == 'semantic':
        return  # see mask_images
    part = found.splits['train']
    counts = (
        Counter(a['category_id'] for a in part['annotations'])
        if isinstance(part, dict)
        else Counter(i for _, i in part)
    )
    used = [found.names[i] for i in sorted(counts)]
    if len(used) == 1 and (len(found.names) > 1 or found.task == 'classes'):
        way = (
            f'; if only this is to be found: --classes "{used[0]}"'
            if found.task != 'classes'
            else ''
        )
        found.errors.append(
            f'all {sum(counts.values())} training labels are of one class, '
            f'{used[0]}, of {len(found.names)}{way}'
        )
    elif unused := [name for name in found.names if name not in used]:
        found.notes.append(f'no training object of {some(unused, 5)}: never found')


def _copies(found, looks):
    val = found.images('val')
    twice = copies(val, found.images('train'), looks)
    if not twice:
        return
    text = (
        f'{len(twice)} of {len(val)} validation images are training images, too, such as '
        + some([f'{image} = {first}' for image, (first, *_) in twice.items()], 2)
    )
    if len(twice) == len(val):
        found.errors.append(f'train = val: {text}: the scores would tell nothing of new images')
    elif len(twice) > COPIES * len(val):
        found.errors.append(
            f'{text}: the scores would be too good; take them out of one of the two'
        )
    else:
        found.notes.append(text)


def _sizes(found, looks):
    for split, part in found.splits.items():
        wrong = []
        for image in part['images']:
            size = looks[image['file_name']].size if image['file_name'] in looks else None
            if size and not (image['width'] and image['height']):
                image['width'], image['height'] = size
            elif size and (image['width'], image['height']) != size:
                wrong.append((image, size))
        if not wrong:
            continue
        image, (width, height) = wrong[0]
        said = f'{image["width"]}x{image["height"]}'
        swapped = all((i['height'], i['width']) == size for i, size in wrong)
        for one, size in wrong:
            one['width'], one['height'] = size
        found.errors.append(
            f'{len(wrong)} of {len(part["images"])} {split} images have another size than the '
            f'labels say, such as {image["file_name"]}: {width}x{height}, not {said}'
            + (
                ': width and height are swapped'
                if swapped
                else ': are the labels of other, or of resized images?'
            )
        )


def _map_sizes(found, looks):
    for split, part in found.splits.items():
        wrong = []
        for image, mask in part:
            with Image.open(found.root / mask) as opened:
                if looks[image].size and opened.size != looks[image].size:
                    wrong.append((mask, opened.size, looks[image].size))
        if wrong:
            mask, size, wanted = wrong[0]
            found.errors.append(
                f'{len(wrong)} of {len(part)} {split} masks have another size than '
                f'their images, such as {mask}: {size[0]}x{size[1]}, the image '
                f'{wanted[0]}x{wanted[1]}'
                + (': width and height are swapped' if size[::-1] == wanted else '')
            )


def _frames(part: dict) -> tuple[np.ndarray, np.ndarray]:
    """All boxes, (N, 4), and the width and height of their images, (N, 2)."""
    sizes = {i['id']: (i['width'] or 0, i['height'] or 0) for i in part['images']}
    return (
        np.array([a['bbox'] for a in part['annotations']], float).reshape(-1, 4),
        np.array([sizes[a['image_id']] for a in part['annotations']], float).reshape(-1, 2),
    )


def _boxes(found, looks):
    for split, part in found.splits.items():
        boxes, frames = _frames(part)
        if not len(boxes):
            continue
        low = boxes[:, :2]
        flat = (boxes[:, 2:] <= 0).any(1)
        if flat.mean() > 0.02:
            found.errors.append(f'{flat.sum()} of {len(boxes)} {split} boxes have no area')
        elif flat.any():
            found.notes.append(f'{flat.sum()} of {len(boxes)} {split} boxes have no area: left out')
        if boxes.max() <= 1.01:
            found.errors.append(
                f'all {len(boxes)} {split} boxes lie between 0 and 1: fractions of '
                'the image, pixels are expected; multiply x and width by the '
                'width of the image, y and height by its height'
            )
            continue
        if (
            _outside(boxes, frames).mean() > 0.05
            and (boxes[:, 2:] > low).all()
            and (boxes[:, 2:] <= frames + 2).all()
        ):
            found.errors.append(
                f'the {split} boxes seem to be x1, y1, x2, y2: so they are in '
                'their images; write x1, y1, x2 - x1, y2 - y1'
            )


def _outside(boxes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Which boxes (N, 4) reach out of images of the sizes (N, 2)."""
    return ((boxes[:, :2] < -2) | (boxes[:, :2] + boxes[:, 2:] > frames + 2)).any(1)


def _reach(found):
    for split, part in found.splits.items() if found.task in ('boxes', 'masks') else ():
        boxes, frames = _frames(part)
        outside = _outside(boxes, frames)
        if len(boxes) and outside.mean() > 0.05:
            most = ((boxes[:, :2] + boxes[:, 2:]) / np.maximum(frames, 1)).max()
            found.errors.append(
                f'{outside.sum()} of {len(boxes)} {split} boxes reach out of their images, up to '
                f'{most:.1f} times their size: are they of other, or of resized images?'
            )


def _positions(found):
    for split in ('train', 'val') if found.task in ('boxes', 'masks') else ():
        _misplaced(found, split)


def _misplaced(found, split):
    """Boxes that lie beside their masks, or beside the objects that the pixels show."""
    off = []
    for a in found.splits[split]['annotations'][:2000]:
        mask = a.get('segmentation')
        box = None if a['iscrowd'] else box_of_mask(mask) or box_of(mask)
        if box is not None:
            by = np.subtract(box, a['bbox'])
            off.append(by[:2] if np.abs(by).max() > 2 + 0.1 * max(box[2:]) else (0, 0))
    offsets = np.array(off, float).reshape(-1, 2)
    moved = offsets.any(1)
    if len(off) and moved.mean() > 0.05:
        x, y = np.median(offsets[moved], 0)
        found.errors.append(
            f'{moved.sum()} of {len(off)} {split} boxes do not lie round their '
            f'masks: the masks are {x:+.0f}, {y:+.0f} pixels from the boxes'
        )
    elif how := plausible.misplaced(found.root, found.splits[split]):
        found.errors.append(f'the {split} boxes seem to be {how}')


def box_of_mask(segmentation: Any) -> list[float] | None:
    if not isinstance(segmentation, dict) or isinstance(segmentation.get('counts'), list):
        return None
    from pycocotools import mask

    return mask.toBbox(segmentation).tolist()


def _exchanged(found):
    if len(found.names) < 2 or found.task == 'semantic':
        return
    train, val = (
        plausible.image_features(found.root, found.splits[split])
        if found.task == 'classes'
        else plausible.box_features(found.root, found.splits[split])
        for split in ('train', 'val')
    )
    if pairs := plausible.exchanged(train, val, found.names):
        found.errors.append(
            'the classes have another order in the validation set than in the training set: its '
            + some([f'{a} looks like {b}' for a, b in pairs])
            + ' of the training set'
        )
