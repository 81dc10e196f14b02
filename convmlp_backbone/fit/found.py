"""What a folder holds, whatever its layout."""

import os
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import UserError

SUFFIXES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
SPLITS = dict(
    train='train',
    training='train',
    trainset='train',
    val='val',
    valid='val',
    validation='val',
    dev='val',
    test='test',
    testing='test',
)
SKIPPED = ('__MACOSX', 'work_dirs')  # folders that hold copies
TASKS = ('boxes', 'masks', 'semantic', 'classes')


@dataclass
class Found:
    """A data set as it was found.

    Args:
        root: The folder.
        layout: In words, such as ``'COCO'``.
        task: One of :data:`TASKS`.
        names: Class names in the order of their indices.
        splits: ``train``, ``val`` and ``test``, as far as there are, or ``all`` where the folder
            makes no difference. For boxes and masks each is the dict of a COCO annotation file
            whose ``file_name`` is below ``root`` and whose ``category_id`` is the class index; for
            semantic maps a list of (image, map), for classes one of (image, class index).
        values: For semantic maps the class index of each pixel value or colour, 255 for
            unlabelled.
        errors: Why training would be in vain, one line each.
        notes: What was taken for what, one line each.
    """

    root: Path
    layout: str
    task: str
    names: list[str]
    splits: dict[str, Any]
    values: dict = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def images(self, split: str) -> list[str]:
        """Paths of a split's images, below ``root``."""
        part = self.splits[split]
        return (
            [image['file_name'] for image in part['images']]
            if isinstance(part, dict)
            else [image for image, _ in part]
        )


def files_below(root: Path, suffixes: Iterable[str]) -> list[str]:
    """Files below ``root`` with these suffixes, sorted, without hidden ones; '/' in between."""
    found, suffixes = [], tuple(suffixes)
    for folder, folders, names in os.walk(root, followlinks=True):
        folders[:] = sorted(
            n
            for n in folders
            if n[0] not in '.@' and n not in SKIPPED and not leads_back(Path(folder, n), root)
        )
        found += [
            os.path.join(folder, n) for n in names if n[0] != '.' and n.lower().endswith(suffixes)
        ]
    return sorted(Path(path).relative_to(root).as_posix() for path in found)


def leads_back(folder: Path, root: Path) -> bool:
    """Whether a folder below ``root`` is a link to one of those on the way to it, or above."""
    if not folder.is_symlink():
        return False
    above = folder.parents[: len(folder.parts) - len(root.parts)]
    return any(parent.resolve().is_relative_to(folder.resolve()) for parent in above)


def split_of(path: str, by_name: bool = False) -> str:
    """The split that the folders of a path name, the innermost first; ``'all'`` if none does.

    Args:
        by_name: The file's own name counts, too. An image's does not: ``train_station.jpg``.
    """
    for part in (Path(path).parent.as_posix(), Path(path).name if by_name else ''):
        for word in reversed(re.findall(r'[a-z]+', part.lower())):
            word = word.removesuffix('annot')  # CamVid's trainannot/
            if word in SPLITS:
                return SPLITS[word]
    return 'all'


def image_sets(root: Path, kind: str, by_stem: dict[str, str]) -> dict[str, list[str]]:
    """The splits that Pascal VOC's ``ImageSets/KIND/*.txt`` list; none without a training set.

    Args:
        by_stem: Paths by what the lists call them.
    """
    lists = {
        path.stem: [
            by_stem[words[0]]
            for line in path.read_text(errors='replace').splitlines()
            if (words := line.split()) and words[0] in by_stem
        ]
        for path in sorted(root.glob(f'**/ImageSets/{kind}/*.txt'))
    }
    parts = {split: lists[split] for split in ('train', 'val', 'test') if lists.get(split)}
    if 'train' not in parts and lists.get('trainval'):
        parts = {'train': lists['trainval'], **parts}
    return parts if 'train' in parts else {}


def some(items: Iterable, most: int = 3) -> str:
    """``a, b, c and 7 more``."""
    items = list(map(str, items))
    return ', '.join(items[:most]) + (f' and {len(items) - most} more' if len(items) > most else '')


def twice(items: Iterable[str]) -> list[str]:
    return [item for item, count in Counter(items).items() if count > 1]


def read_names(path: Path) -> list[str]:
    """Class names, one on a line."""
    names = [line.strip() for line in path.read_text(errors='replace').splitlines()]
    names = [name for name in names if name]
    if again := twice(names):
        raise UserError(f'{path} names {some(again)} more than once')
    return names
