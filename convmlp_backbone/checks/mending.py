"""Mends of COCO annotation files: what can be read in one way only is brought into that form.

Each function changes the dict in place and returns what it did, ``''`` for nothing.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np

KEYS = ('id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd', 'segmentation')


def columns(coco: dict) -> dict[str, list]:
    """The values of each of :data:`KEYS` in all annotations, None where there is none."""
    annotations = coco['annotations']
    try:
        return {key: list(map(itemgetter(key), annotations)) for key in KEYS}
    except KeyError:
        return {key: [annotation.get(key) for annotation in annotations] for key in KEYS}


def in_order(coco: dict, values: dict[str, list]) -> bool:
    """Whether :func:`mend` has nothing to do: quickly, by the columns of the annotations."""
    names, ids = [c['name'] for c in coco['categories']], values['id']
    images = [image['id'] for image in coco['images']]
    numbers = (image.get(side) for image in coco['images'] for side in ('width', 'height'))
    outlines = values['segmentation']
    return (
        all(
            only(int, column)
            for column in (
                images,
                ids,
                values['image_id'],
                values['category_id'],
                values['iscrowd'],
                [c['id'] for c in coco['categories']],
            )
        )
        and len(set(images)) == len(images)
        and len(set(names)) == len(names)
        and 0 not in ids
        and len(set(ids)) == len(ids)
        and only((int, float), numbers)
        and only((int, float), values['area'])
        and min(values['area'], default=1) > 0
        and only(list, values['bbox'])
        and only((int, float), chain.from_iterable(values['bbox']))
        and not any(type(s) is list and s and type(s[0]) is not list for s in outlines)
    )


def _whole(value):
    """1 for 1, '1' and 1.0; what is no whole number as it is."""
    if isinstance(value, str) and re.fullmatch(r'\s*[+-]?\d+\s*', value):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def only(kind: type | tuple, values: Iterable) -> bool:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return set(map(type, values)) <= set(kinds)


def _mend_ids(coco: dict, part: str, key: str) -> str:
    """Ids of images or categories, and what refers to them, as whole numbers."""
    items, refs = coco[part], coco['annotations']
    if only(int, (i['id'] for i in items)) and only(int, (a.get(key) for a in refs)):
        return ''
    ids = [_whole(item['id']) for item in items]
    numbers = {}
    if not only(int, ids):
        numbers = {str(number): i for i, number in enumerate(ids, 1)}
    changed = False
    for item, name in [(item, 'id') for item in items] + [(ref, key) for ref in refs]:
        old = item.get(name)
        new = _whole(old)
        new = numbers.get(str(new), new)
        changed |= new is not old and (type(new) is not type(old) or new != old)
        item[name] = new
    return f'ids of {part} to whole numbers' if changed else ''


def _mend_annotation_ids(coco: dict) -> str:
    ids = [a.get('id') for a in coco['annotations']]
    why = (
        'are not all whole numbers'
        if not only(int, ids)
        else 'begin at 0, which pycocotools never counts as found'
        if 0 in ids
        else 'occur twice'
        if len(set(ids)) < len(ids)
        else ''
    )
    if not why:
        return ''
    for number, annotation in enumerate(coco['annotations'], 1):
        annotation['id'] = number
    return f'annotation ids, which {why}: counted from 1'


def _mend_twins(coco: dict) -> str:
    """Image entries that stand there twice, word for word, and unused categories of a name that
    another has too, such as the super category in Roboflow's files."""
    done = []
    if len({image['id'] for image in coco['images']}) < len(coco['images']):
        once = list({json.dumps(image, sort_keys=True): image for image in coco['images']}.values())
        if len(once) < len(coco['images']):
            coco['images'], done = once, ['images that were listed twice']
    names = Counter(category['name'] for category in coco['categories'])
    if max(names.values(), default=0) > 1:
        used = {a.get('category_id') for a in coco['annotations']}
        drop = [c for c in coco['categories'] if names[c['name']] > 1 and c['id'] not in used]
        keep = [c for c in coco['categories'] if c not in drop]
        if drop and {c['name'] for c in keep} == set(names):
            coco['categories'] = keep
            done.append(f'an unused second category {drop[0]["name"]} left out')
    return ', '.join(done)


def _polygon_area(segmentation: Any) -> float:
    area = 0.0
    for polygon in segmentation if isinstance(segmentation, list) else ():
        x, y = np.reshape(polygon, (-1, 2)).T
        area += abs(x @ np.roll(y, 1) - y @ np.roll(x, 1)) / 2
    return float(area)


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _numbers(values: Any, count: int) -> bool:
    return isinstance(values, list) and len(values) == count and all(map(is_number, values))


def _as_numbers(values):
    """['1', '2'] as [1.0, 2.0]; anything else as it is."""
    try:
        return [float(v) if isinstance(v, str) else v for v in values]
    except (TypeError, ValueError):
        return values


def _mend_objects(coco: dict) -> list[str]:
    """iscrowd, area, boxes and outlines."""
    annotations = coco['annotations']
    done: Counter[str] = Counter()
    if not only(int, (a.get('iscrowd') for a in annotations)):
        for a in annotations:
            if type(a.get('iscrowd')) is not int:
                value = _whole(a.get('iscrowd'))
                a['iscrowd'] = int(value in (1, True, 'true', 'True'))
                done['iscrowd filled in'] += 1
    flat = [
        a for a in annotations if type(s := a.get('segmentation')) is list and s and is_number(s[0])
    ]
    for a in flat:
        a['segmentation'] = [a['segmentation']]
        done['outlines that are one list of numbers put into a list'] += 1
    boxes = [a.get('bbox') for a in annotations]
    if not (only(list, boxes) and only((int, float), chain.from_iterable(boxes))):
        for a in annotations:
            box = _as_numbers(a.get('bbox'))
            if box is None and isinstance(outline := a.get('segmentation'), list) and outline:
                try:
                    points = np.concatenate([np.reshape(p, (-1, 2)) for p in outline])
                    low, high = points.min(0), points.max(0)
                    box = [*map(float, low), *map(float, high - low)]
                except (ValueError, TypeError):
                    pass
            if box is not a.get('bbox') and box != a.get('bbox'):
                a['bbox'] = box
                done['boxes made of text or outlines'] += 1
    areas = [a.get('area') for a in annotations]
    if not only((int, float), areas) or min(areas, default=1) <= 0:
        for a in annotations:
            if not is_number(a.get('area')) or a['area'] <= 0:
                if not _numbers(a.get('bbox'), 4) or min(a['bbox'][2:]) <= 0:
                    continue
                try:
                    area = _polygon_area(a.get('segmentation'))
                except (ValueError, TypeError):
                    area = 0
                a['area'] = area or a['bbox'][2] * a['bbox'][3]
                done['areas filled in'] += 1
    sizes = [v for image in coco['images'] for v in (image.get('width'), image.get('height'))]
    if not only((int, float), sizes):
        for image in coco['images']:
            for side in ('width', 'height'):
                if isinstance(image.get(side), str):
                    image[side] = _whole(image[side])
                    done['sizes of images to numbers'] += 1
    return [f'{what} ({count})' for what, count in done.items()]


def mend(coco: dict) -> list[str]:
    """Change what can be read in one way only, and return what was changed.

    Ids of any kind become whole numbers, those of annotations count from 1; ``iscrowd`` and
    ``area`` are filled in, boxes and outlines become lists of numbers.
    """
    done = [
        _mend_ids(coco, 'images', 'image_id'),
        _mend_ids(coco, 'categories', 'category_id'),
        _mend_twins(coco),
        _mend_annotation_ids(coco),
        *_mend_objects(coco),
    ]
    return [what for what in done if what]


def outline_fault(outline: Any) -> int:
    """0: MMDetection and pycocotools can read the outline; 1: there is none; 2: it is none."""
    if not outline:
        return 1
    if isinstance(outline, dict):
        return 0 if outline.get('counts') and outline.get('size') else 2
    if not isinstance(outline, list):
        return 2
    # pycocotools takes four numbers for a box; MMDetection leaves such polygons out.
    return (
        0
        if all(
            isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0
            for polygon in outline
        )
        else 2
    )
