"""YOLO's layout: beside each image, or in ``labels/`` for ``images/``, a text file with a line
``class x y width height`` for each object, in fractions of the image; or the points of a polygon.
"""

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ..errors import UserError
from .coco_json import has_masks
from .found import SUFFIXES, Found, files_below, read_names, some, split_of
from .mask_images import in_mask_folder
from .survey import image_size

NAME_FILES = ('classes.txt', 'obj.names', 'labels.txt', '_darknet.labels')


def read(root: Path) -> Found | None:
    """The data set of the YOLO labels below ``root``; None if there are none."""
    images, texts = files_below(root, SUFFIXES), set(files_below(root, ['.txt']))
    labels = {image: label for image in images if (label := label_file(image, texts))}
    if not any(is_label(root / label) for label in list(labels.values())[:50]):
        return None
    images = [image for image in images if image in labels or not in_mask_folder(image)]
    found = Found(root, 'YOLO', 'boxes', [], {})
    listed = {path for path in map(label_file_name, images)} | set(labels.values())
    orphans = [
        t for t in sorted(texts - listed) if Path(t).name not in NAME_FILES and is_label(root / t)
    ]
    if orphans:
        found.errors.append(
            f'{len(orphans)} of {len(orphans) + len(labels)} label files have no '
            f'image, such as {some(orphans)}; copy the images into the folder'
        )
    declared, named_in = class_names(root, found)
    parts = image_lists(root, images, found)
    without = [image for split in parts.values() for image in split if image not in labels]
    if without:
        total = sum(map(len, parts.values()))
        text = f'{len(without)} of {total} images have no label file, such as {some(without)}'
        if len(without) > total / 10:
            found.errors.append(
                f'{text}: they would be learned as images without objects; if so, '
                'give them empty label files'
            )
        else:
            found.notes.append(f'{text}: taken as images without objects')
    rows = {
        image: read_label(root / labels[image]) if image in labels else []
        for split in parts.values()
        for image in split
    }
    highest = max((row[0] for part in rows.values() for row in part), default=-1)
    found.names = declared or [f'class {i}' for i in range(highest + 1)]
    if not declared:
        found.notes.append('no data.yaml or classes.txt names the classes: numbers are taken')
    if highest >= len(found.names):
        found.errors.append(
            f'class {highest} occurs in the labels, {named_in} has '
            f'{len(found.names)} names ({some(found.names, 8)}): 0 to '
            f'{len(found.names) - 1}'
        )
    values = np.array([v for part in rows.values() for _, numbers in part for v in numbers])
    if len(values) and (values.max() > 1.01 or values.min() < -0.01):
        far = np.mean((values > 1.01) | (values < -0.01))
        found.errors.append(
            f'the labels have values from {values.min():g} to {values.max():g} '
            f'({far:.0%} beyond 0 to 1): YOLO expects fractions of the image, '
            'these seem to be pixels or of another form; divide x and width by '
            'the width of the image, y and height by its height'
        )
        return found
    found.splits = {
        split: to_coco(root, part, rows, len(found.names)) for split, part in parts.items()
    }
    if any('segmentation' in a for coco in found.splits.values() for a in coco['annotations']):
        found.task = 'masks' if has_masks(found.splits) else 'boxes'
    return found


def label_file_name(image: str) -> str:
    """Ultralytics' rule: ``labels`` for the last ``images``, and ``.txt``."""
    parts = list(Path(image).with_suffix('.txt').parts)
    for i in range(len(parts) - 2, -1, -1):
        if parts[i] == 'images':
            parts[i] = 'labels'
            break
    return '/'.join(parts)


def label_file(image: str, texts: set[str]) -> str | None:
    beside = Path(image).with_suffix('.txt').as_posix()
    return next((name for name in (label_file_name(image), beside) if name in texts), None)


def is_label(path: Path) -> bool:
    words = path.read_text(errors='replace').split('\n', 1)[0].split()
    try:
        return len(words) >= 5 and bool([float(word) for word in words])
    except ValueError:
        return False


def read_label(path: Path) -> list[tuple[int, list[float]]]:
    """(class index, numbers) of each line."""
    rows = []
    for number, line in enumerate(path.read_text(errors='replace').splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            index, values = float(words[0]), [float(word) for word in words[1:]]
            if (
                index != int(index)
                or index < 0
                or not np.isfinite(values).all()
                or not (len(values) == 4 or len(values) >= 6 and len(values) % 2 == 0)
            ):
                raise ValueError
        except ValueError:
            raise UserError(
                f'{path}, line {number}: {line[:60]!r}; expected a class index and x, '
                'y, width, height, or the points of a polygon'
            ) from None
        rows.append((int(index), values))
    return rows


def description(root: Path) -> tuple[Path, dict] | None:
    """The file that describes a YOLO data set, usually ``data.yaml``."""
    for path in sorted([*root.glob('*.yaml'), *root.glob('*.yml'), *root.glob('*/data.yaml')]):
        try:
            content = yaml.safe_load(path.read_text())
        except (yaml.YAMLError, UnicodeDecodeError):
            continue
        if isinstance(content, dict) and content.get('names'):
            return path, content
    return None


def class_names(root: Path, found: Found) -> tuple[list[str], str]:
    """The names that the folder gives, and where; files that contradict one another are errors."""
    given = {}
    if described := description(root):
        path, content = described
        names = content['names']
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names, key=int)]
        given[path.name] = list(map(str, names))
        if content.get('nc', len(names)) != len(names):
            found.errors.append(f'{path.name}: nc is {content["nc"]}, names has {len(names)}')
    for path in sorted(
        p
        for name in NAME_FILES
        for p in [*root.glob(name), *root.glob(f'*/{name}')]
        if not is_label(p)
    ):
        given[path.relative_to(root).as_posix()] = read_names(path)
    if not given:
        return [], ''
    (first, names), *others = given.items()
    for other, its in others:
        if its != names:
            order = ' in another order' if sorted(its) == sorted(names) else ''
            found.errors.append(
                f'{other} names the classes{order} ({some(its, 8)}) than {first} '
                f'({some(names, 8)}); take the wrong one away'
            )
    return names, first


def image_lists(root: Path, images: list[str], found: Found) -> dict[str, list[str]]:
    """The images of each split: as ``data.yaml`` says, or as the folders are called."""
    there = set(images)
    parts: dict[str, list[str]] = {}
    path, content = description(root) or (root, {})
    for key in ('train', 'val', 'test'):
        places = content.get(key)
        listed = []
        for place in [places] if isinstance(places, str) else places or []:
            listed += images_at(root, path.parent, content.get('path'), str(place), there)
        if listed:
            parts[key] = sorted(dict.fromkeys(listed))
        elif places and key != 'test':
            found.notes.append(f'{path.name}: no images at {key}: {places}')
    if 'train' in parts:
        return parts
    for image in images:
        parts.setdefault(split_of(image), []).append(image)
    if len(parts) > 1:
        parts.pop('all', None)
    return parts


def images_at(root: Path, base: Path, path: str | None, place: str, there: set[str]) -> list[str]:
    """Images at a place that ``data.yaml`` names: a folder, or a text file that lists them.

    Such files have the paths of the machine they were written on, and Roboflow's lead out of the
    folder, so endings of the place are tried, too.
    """
    words = [w for w in Path(place).parts if w not in ('/', '..', '.')]
    for start in [
        base / (path or '') / place,
        base / place,
        *(root.joinpath(*words[i:]) for i in range(len(words))),
    ]:
        if start.is_dir() and start.resolve().is_relative_to(root.resolve()):
            inside = start.resolve().relative_to(root.resolve()).as_posix()
            return [i for i in there if inside == '.' or i.startswith(f'{inside}/')]
        if start.is_file():
            listed = []
            for line in start.read_text().split():
                parts = [w for w in Path(line).parts if w not in ('/', '..', '.')]
                listed += [
                    name for i in range(len(parts)) if (name := '/'.join(parts[i:])) in there
                ][:1]
            return listed
    return []


def to_coco(root: Path, images: list[str], rows: dict, classes: int) -> dict:
    coco: dict[str, list[dict]] = dict(images=[], annotations=[])
    for number, image in enumerate(images):
        width, height = image_size(root / image) or (0, 0)
        coco['images'].append(dict(id=number, file_name=image, width=width, height=height))
        for index, values in rows[image]:
            if index >= classes:
                continue
            one: dict[str, Any] = dict(image_id=number, category_id=index, iscrowd=0)
            if len(values) == 4:
                x, y, w, h = np.array(values) * [width, height, width, height]
                box = [x - w / 2, y - h / 2, w, h]
            else:
                points = np.reshape(values, (-1, 2)) * [width, height]
                box = [*points.min(0), *(points.max(0) - points.min(0))]
                one['segmentation'] = [points.ravel().tolist()]
            box = [float(v) for v in box]
            coco['annotations'].append(dict(one, bbox=box, area=box[2] * box[3]))
    return coco
