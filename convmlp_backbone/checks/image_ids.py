"""Which image of a COCO annotation file a path means."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import UserError
from .coco import read
from .names import near_names
from .problem import first_of


def read_ids(ann_file: str, classes: Sequence[str], images: Sequence[Path]) -> tuple[dict, list]:
    """The ids that a COCO annotation file gives to images and to ``classes``.

    An image is known by as much of its path as the file names, ``cam1/00.png`` say.

    Returns:
        tuple[dict, list]: ``{path: id}`` of those that are in it, and an id for each class.
    """
    coco, _ = read(ann_file)
    used = {annotation.get('category_id') for annotation in coco['annotations']}
    # Of two categories of a name, such as the super category in Roboflow's files, the used one.
    categories = {
        category['name']: category['id']
        for category in sorted(coco['categories'], key=lambda category: category['id'] in used)
    }
    if missing := [name for name in classes if name not in categories]:
        near = near_names(missing, list(categories))
        raise UserError(
            f'{ann_file} has no category {", ".join(missing[:3])}, it has '
            f'{first_of(categories, 5)}' + (f'; did you mean {near}?' if near else '')
        )
    names = {'/'.join(parts_of(image['file_name'])): image['id'] for image in coco['images']}
    last = Counter(name.rpartition('/')[2] for name in names)
    by_last = {name.rpartition('/')[2]: number for name, number in names.items()}
    found = {}
    for path in images:
        parts = parts_of(path.resolve())
        tails = ['/'.join(parts[i:]) for i in range(len(parts))]
        known = next((names[tail] for tail in tails if tail in names), None)
        if known is None and last[parts[-1]] == 1:
            known = by_last[parts[-1]]
        if known is not None:
            found[path] = known
    twice = {number for number, count in Counter(found.values()).items() if count > 1}
    if twice:
        alike = [path for path in images if found.get(path) in twice]
        raise UserError(
            f'{ann_file} does not tell {first_of(alike, 2)} apart: its file names need the folders'
        )
    return found, [categories[name] for name in classes]


def parts_of(path: object) -> list[str]:
    """The folders and the name of a path of any system."""
    return [part for part in re.split(r'[\\/]+', str(path)) if part not in ('', '.')]
