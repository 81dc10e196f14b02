"""COCO annotation files as the usual programs lay them out.

``annotations/instances_train.json`` beside ``train/`` (COCO, CVAT),
``train/_annotations.coco.json`` among the images (Roboflow), one file for all (labelme2coco).
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from .found import SUFFIXES, Found, files_below, some, split_of, twice

LARGEST = 2**20  # bytes of a JSON file that are looked at before it is read


def read(root: Path) -> Found | None:
    """The data set of the COCO annotation files below ``root``; None if there are none."""
    files = {}
    for name in files_below(root, ['.json']):
        with open(root / name, 'rb') as file:
            start = file.read(LARGEST)
        if b'"' not in start:
            continue
        try:
            coco = json.loads((root / name).read_text(encoding='utf-8-sig'))
        except (ValueError, RecursionError) as error:
            if b'"annotations"' in start or b'"images"' in start:
                raise UserError(f'{root / name} is no JSON: {error}') from error
            continue
        if isinstance(coco, dict) and all(
            isinstance(coco.get(key), list) for key in ('images', 'annotations', 'categories')
        ):
            files[name] = coco
    if not files:
        return None
    chosen = choose(files)
    found = Found(root, 'COCO', 'boxes', [], {})
    found.notes.append(
        'annotations: ' + some([f'{split} {name}' for split, (name, _) in chosen.items()])
    )
    images = files_below(root, SUFFIXES)
    first = next(iter(chosen.values()))[1]
    found.names = class_names(chosen, found)
    number = {name: index for index, name in enumerate(found.names)}
    old_numbers = {c['id']: c['name'] for c in first['categories']}
    for split, (name, coco) in chosen.items():
        names = {category['id']: category['name'] for category in coco['categories']}
        if unknown := sorted(
            {
                names.get(a.get('category_id'), f'id {a.get("category_id")}')
                for a in coco['annotations']
            }
            - set(number)
        ):
            found.errors.append(
                f'{name}: objects of {some(unknown)}, which '
                f'{next(iter(chosen.values()))[0]} does not name; it has '
                f'{some(found.names, 8)}'
            )
        moved = [
            f'{i} is {n} here and {old_numbers[i]} there'
            for i, n in names.items()
            if i in old_numbers and old_numbers[i] != n
        ]
        if moved:
            found.notes.append(
                f'{name} numbers the classes in another order than '
                f'{next(iter(chosen.values()))[0]} ({some(moved)}): taken by name'
            )
        found.splits[split] = canonical(
            root,
            name,
            split,
            coco,
            images,
            {i: number[n] for i, n in names.items() if n in number},
            found,
        )
    found.task = 'masks' if has_masks(found.splits) else 'boxes'
    return found


def choose(files: dict[str, dict]) -> dict[str, tuple[str, dict]]:
    """The annotation file of each split, train first."""
    by_split: dict[str, list[str]] = {}
    for name, coco in files.items():
        if (
            any('bbox' in a or 'segmentation' in a for a in coco['annotations'][:100])
            or not coco['annotations']
        ):
            by_split.setdefault(split_of(name, by_name=True), []).append(name)
    if len(by_split) > 1:
        by_split.pop('all', None)
    chosen = {}
    for split in ('train', 'all', 'val', 'test'):
        names = by_split.get(split, [])
        if len(names) > 1:  # COCO's own archive has person_keypoints_ and captions_ besides
            names = [n for n in names if 'instances' in Path(n).name] or names
        if len(names) > 1:
            raise UserError(f'{len(names)} annotation files for {split}: {some(names)}; leave one')
        if names:
            chosen[split] = names[0], files[names[0]]
    if not chosen:
        raise UserError(f'{some(files)}: no objects with boxes or masks in any of them')
    return chosen


def class_names(chosen: dict, found: Found) -> list[str]:
    """Names in the order of the first file, without the heading that Roboflow adds to them."""
    name, coco = next(iter(chosen.values()))
    categories = coco['categories']
    used = {a.get('category_id') for _, c in chosen.values() for a in c['annotations']}
    headings = {category.get('supercategory') for category in categories}
    left = [c['name'] for c in categories if c['id'] in used or c['name'] not in headings]
    if heading := [c['name'] for c in categories if c['name'] not in left]:
        found.notes.append(
            f'{some(heading)} is the heading of other classes and has no objects: no class'
        )
    if again := twice(left):
        used_names = [c['name'] for c in categories if c['id'] in used]
        if twice(used_names):
            found.errors.append(f'{name}: the category {some(again)} is there more than once')
        left = list(dict.fromkeys(left))
    return left


def canonical(
    root: Path, name: str, split: str, coco: dict, images: list[str], classes: dict, found: Found
) -> dict:
    """The content of an annotation file with paths below ``root`` and class indices."""
    paths = locate([str(i.get('file_name')) for i in coco['images']], name, split, images)
    missing = [i.get('file_name') for i, p in zip(coco['images'], paths, strict=True) if not p]
    if missing:
        found.errors.append(
            f'{name}: {len(missing)} of {len(coco["images"])} images are missing, '
            f'such as {some(missing)}; copy them into the folder, or take them '
            'out of the file'
        )
    kept: dict[str, dict] = {}
    strange: Counter[str] = Counter()
    annotations = []
    for image, path in zip(coco['images'], paths, strict=True):
        if path:
            kept[str(image.get('id'))] = dict(
                id=len(kept), file_name=path, width=image.get('width'), height=image.get('height')
            )
    known = {str(image.get('id')) for image in coco['images']}
    for a in coco['annotations']:
        image, index = kept.get(str(a.get('image_id'))), classes.get(a.get('category_id'))
        box = a.get('bbox')
        if image is None or index is None:
            strange['of an image that is not in the file'] += str(a.get('image_id')) not in known
            continue
        if not (
            isinstance(box, list)
            and len(box) == 4
            and all(isinstance(v, (int, float)) and np.isfinite(v) for v in box)
        ):
            box = box_of(a.get('segmentation'))
            if box is None:
                strange['without a box of four finite numbers'] += 1
                continue
        one = dict(
            image_id=image['id'],
            category_id=index,
            bbox=box,
            area=a.get('area') if isinstance(a.get('area'), (int, float)) else box[2] * box[3],
            iscrowd=int(bool(a.get('iscrowd') or a.get('ignore'))),
        )
        if usable(a.get('segmentation')):
            one['segmentation'] = a['segmentation']
        annotations.append(one)
    found.errors += [
        f'{name}: {count} of {len(coco["annotations"])} annotations are {kind}'
        for kind, count in strange.items()
        if count
    ]
    return dict(images=list(kept.values()), annotations=annotations)


def locate(names: list[str], file: str, split: str, images: list[str]) -> list[str | None]:
    """Where the images that an annotation file names are, None for those that are nowhere.

    Of all folders the one is taken below which most of them are; of several, the one that bears
    the split's name or lies next to the file.
    """
    names = [name.replace('\\', '/').lstrip('/') for name in names]
    there = set(images)
    folders = {'', *(parent.as_posix() for path in there for parent in Path(path).parents)} - {'.'}

    def rank(folder):
        hits = sum(f'{folder}/{name}'.lstrip('/') in there for name in names[:1000])
        return (
            hits,
            split_of(f'{folder}/x') == split,
            folder == Path(file).parent.as_posix(),
            -len(folder),
        )

    folder = max(sorted(folders), key=rank)
    by_name: dict[str, list[str]] = {}
    for path in images:
        by_name.setdefault(Path(path).name, []).append(path)
    found: list[str | None] = []
    for name in names:
        place: str | None = f'{folder}/{name}'.lstrip('/')
        if place not in there:  # an absolute path of another machine, or one with a folder too many
            same = by_name.get(Path(name).name, [])
            same = [p for p in same if split_of(p) in (split, 'all')] or same
            place = same[0] if len(same) == 1 else None
        found.append(place)
    return found


def usable(segmentation: object) -> bool:
    """Whether COCO's API can make a mask of it: polygons of three points and more, or RLE."""
    if isinstance(segmentation, dict):
        return 'counts' in segmentation and 'size' in segmentation
    return (
        isinstance(segmentation, list)
        and len(segmentation) > 0
        and all(
            isinstance(part, list) and len(part) >= 6 and len(part) % 2 == 0
            for part in segmentation
        )
    )


def box_of(segmentation: Any) -> list[float] | None:
    """The box round polygons."""
    if not usable(segmentation) or isinstance(segmentation, dict):
        return None
    points = np.concatenate([np.reshape(part, (-1, 2)) for part in segmentation])
    low, high = points.min(0), points.max(0)
    return [*low.tolist(), *(high - low).tolist()]


def is_box(annotation: dict) -> bool:
    """Whether the polygon of an object is nothing but its box."""
    parts = annotation['segmentation']
    if isinstance(parts, dict) or len(parts) != 1 or len(parts[0]) not in (8, 10):
        return False
    x, y, w, h = annotation['bbox']
    points = np.reshape(parts[0], (-1, 2))
    near = np.minimum(np.abs(points - [x, y]), np.abs(points - [x + w, y + h])) < 1
    return bool(near.all())


def has_masks(splits: dict[str, dict]) -> bool:
    """Whether all objects, but for a few, have masks that are more than their boxes."""
    objects = [a for coco in splits.values() for a in coco['annotations'] if not a['iscrowd']]
    masks = [a for a in objects if 'segmentation' in a]
    return len(masks) > 0.98 * len(objects) > 0 and not all(map(is_box, masks[:1000]))
