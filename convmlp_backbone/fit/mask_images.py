"""Images with masks of the same name: values that are class indices, 0 and 255, or colours."""

import csv
import multiprocessing
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .found import SUFFIXES, Found, files_below, image_sets, read_names, some, split_of

# Folders of masks, and what a mask's own name has more than its image's.
MASK_FOLDER = re.compile(
    r'(masks?|annot(ation)?s?|labels?|labelids|gt|ground_?truth|gtfine|seg|'
    r'segmentations?|segmentationclass\w*|semantic|maps?|\w*annot|'
    r'\w+[ _-](masks?|labels?|gt))$',
    re.IGNORECASE,
)
MASK_ENDING = re.compile(
    r'[ _.-]+(masks?|gt|gtfine|labelids|labeltrainids|labels?|seg|'
    r'segmentation|annotation|l|colou?rs?)$',
    re.IGNORECASE,
)
# Neither images nor maps of classes: a value for each object (VOC, CVAT, Cityscapes), or pictures
# of masks (labelme2voc).
NEITHER = re.compile(
    r'(^|/)segmentation(object\w*|class(visualization|npy))/|[ _.-]instance(train)?ids?\.\w+$',
    re.IGNORECASE,
)
# Of several masks of an image those are taken, the first that there is one of.
PREFERRED = (r'labeltrainids$', r'labelids$', r'(?<!colou?r)(?<!colou?rs)$')
IMAGE_FOLDER = re.compile(
    r'(images?|imgs?|jpegimages|photos?|rgb|leftimg8bit|data)$', re.IGNORECASE
)
IMAGE_ENDING = re.compile(r'[ _.-]+(leftimg8bit|image|img|rgb)$', re.IGNORECASE)
MOST = 255  # colours or values; more are no classes
NAME_FILES = ('classes.txt', 'labels.txt', 'names.txt')
COLOUR_FILES = ('labelmap.txt', 'label_colors.txt', 'class_dict.csv')
IGNORED = 255


def read(root: Path) -> Found | None:
    """The data set of the images and masks below ``root``; None if there are no pairs."""
    files = [path for path in files_below(root, SUFFIXES) if not NEITHER.search(path)]
    masks = [path for path in files if is_mask(path)]
    images = [path for path in files if not is_mask(path)]
    if not masks or not images:
        return None
    listed = image_sets(root, 'Segmentation', {Path(path).stem: path for path in images})
    if listed:  # others, of which VOC has many, need no mask
        images = [path for split in listed.values() for path in split]
    by_key: dict[tuple, list[str]] = {}
    for path in masks:
        for key in keys(path):
            by_key.setdefault(key, []).append(path)
    alone, pair = [], {}
    for path in images:
        of_key = (one_of(by_key[key]) for key in keys(path) if key in by_key)
        if mask := next(filter(None, of_key), None):
            pair[path] = mask
        else:
            alone.append(path)
    parts: dict[str, list[tuple[str, str]]] = {}
    if listed:
        parts = {split: [(i, pair[i]) for i in its if i in pair] for split, its in listed.items()}
        parts = {split: part for split, part in parts.items() if part}
    else:
        for path, mask in pair.items():
            split = split_of(path)
            parts.setdefault(split_of(mask) if split == 'all' else split, []).append((path, mask))
    if not parts:
        return None
    if len(parts) > 1:
        parts.pop('all', None)
    found = Found(root, 'images and masks', 'semantic', [], parts)
    paired = {key for path in images for key in keys(path)}
    if not listed and (left := [mask for mask in masks if paired.isdisjoint(keys(mask))]):
        found.errors.append(
            f'{len(left)} of {len(masks)} masks have no image, such as '
            f'{some(left)}; copy the images into the folder, or take them away'
        )
    if alone:
        found.errors.append(
            f'{len(alone)} of {len(images)} images have no mask, such as '
            f'{some(alone)}; copy the masks into the folder, or take them away'
        )
    return found


def is_mask(path: str) -> bool:
    return bool(MASK_ENDING.search(Path(path).stem)) or in_mask_folder(path)


def in_mask_folder(path: str) -> bool:
    parts = Path(path).parent.parts
    return any(map(MASK_FOLDER.match, parts)) or bool(NEITHER.search(path))


def one_of(masks: list[str]) -> str | None:
    """The only mask, or the only one of the kind to be preferred; None if they cannot be told."""
    for kind in ('', *PREFERRED):
        its = [mask for mask in masks if re.search(kind, Path(mask).stem, re.IGNORECASE)]
        if len(its) == 1:
            return its[0]
    return None


def keys(path: str) -> list[tuple]:
    """What an image and its mask have in common, the surest first: split, folders and name; split
    and name; the name alone where a folder is of no split."""
    name = Path(path).stem
    while (shorter := IMAGE_ENDING.sub('', MASK_ENDING.sub('', name))) not in ('', name):
        name = shorter
    folders = tuple(
        part.lower()
        for part in Path(path).parent.parts
        if not MASK_FOLDER.match(part)
        and not IMAGE_FOLDER.match(part)
        and split_of(f'{part}/x') == 'all'
    )
    split = split_of(path)
    found = [(split, folders, name.lower()), (split, name.lower())]
    return found + [(name.lower(),)] if split == 'all' or is_mask(path) else found


def values_of(path: Path) -> tuple[str, dict] | tuple[None, str]:
    """Kind and pixels of each value of a mask, or None and its fault.

    The kind is ``'values'`` (keys are numbers) or ``'colours'`` (keys are (r, g, b)).
    """
    try:
        pixels = mask_pixels(path)
    except Exception as error:  # a damaged file can raise anything
        return None, 'is no image' if 'cannot identify' in str(error) else str(error)
    if pixels.ndim == 2:
        values, counts = np.unique(pixels, return_counts=True)
        return 'values', dict(zip(values.tolist(), counts.tolist(), strict=True))
    colours = pixels.astype(np.int32) @ [65536, 256, 1]
    values, counts = np.unique(colours, return_counts=True)
    return 'colours', {
        (v >> 16, v >> 8 & 255, v & 255): n
        for v, n in zip(values.tolist(), counts.tolist(), strict=True)
    }


def mask_pixels(path: Path) -> np.ndarray:
    """A mask as (H, W) values, or (H, W, 3) where it has colours."""
    with Image.open(path) as image:
        if image.mode in ('RGB', 'RGBA', 'LA', 'CMYK', 'YCbCr', 'PA'):
            pixels = np.asarray(image.convert('RGB'))
        else:
            pixels = np.asarray(image.convert('L') if image.mode == '1' else image)
    if pixels.ndim == 3 and (pixels[..., :1] == pixels).all():
        pixels = pixels[..., 0]
    return pixels


def understand(
    found: Found, unlabelled: int | None = None, classes: list[str] | None = None
) -> None:
    """Fill ``found.names`` and ``found.values`` from the masks' pixels.

    Args:
        found: Of :func:`read`.
        unlabelled: The value that stands for no class, if the user tells one.
        classes: Names of the classes, if the user tells them.
    """
    root = found.root
    paths = {split: [root / mask for _, mask in part] for split, part in found.splits.items()}
    counts: dict[str, dict] = {split: {} for split in paths}
    kinds = set()
    for split, masks in paths.items():
        for path, (kind, values) in zip(masks, map_files(values_of, masks), strict=True):
            if kind is None:
                found.errors.append(f'{path} {values}')
                continue
            kinds.add(kind)
            for value, count in values.items():
                counts[split][value] = counts[split].get(value, 0) + count
    total: dict = {}
    for part in counts.values():
        for value, count in part.items():
            total[value] = total.get(value, 0) + count
    if 'colours' in kinds:  # a mask without colours is black, white or grey in a set with them
        total = {(v,) * 3 if not isinstance(v, tuple) else v: n for v, n in total.items()}
    if len(total) > MOST:
        found.errors.append(
            f'the masks have {len(total)} different colours or values: they are no '
            'maps of classes; were they saved as JPEG, or enlarged with blending?'
        )
        return
    names = classes or given_names(root)
    if 'colours' in kinds:
        _colours(found, total)
    else:
        _values(found, total, unlabelled, names, bool(classes))
    if classes and len(classes) == len(found.names):
        found.names = list(classes)
    learned = counts.get('train') or counts.get('all') or {}
    present = {found.values.get(value, IGNORED) for value in learned} - {IGNORED}
    if not present:
        found.errors.append(
            f'no pixel of the training masks has a class: all are '
            f'{some(sorted(learned))}, which means unlabelled'
        )
    elif len(present) == 1:
        index = present.pop()
        found.errors.append(
            f'all pixels of the training masks are of one class, '
            f'{found.names[index]}: there is nothing to tell apart'
        )


def map_files(function: Callable[[Path], Any], paths: Sequence[Path]) -> list:
    if len(paths) < 64:
        return list(map(function, paths))
    with multiprocessing.get_context('fork').Pool() as pool:
        return pool.map(function, paths, chunksize=16)


def given_names(root: Path) -> list[str]:
    for name in NAME_FILES:
        if (root / name).is_file():
            return read_names(root / name)
    return []


def _values(
    found: Found, total: dict, unlabelled: int | None, names: list[str], forced: bool
) -> None:
    values = sorted(total)
    ignored = set() if unlabelled is None else {unlabelled}
    if unlabelled is None and set(values) <= {0, 255}:
        if values == [255]:
            ignored = {255}
        elif len(values) == 2:
            found.notes.append(
                'masks of 0 and 255: 0 is the background, 255 the object '
                '(--unlabelled 255 if it means unlabelled)'
            )
    elif unlabelled is None and 255 in values:
        ignored = {255}
        found.notes.append('255 is taken for unlabelled')
    left = [value for value in values if value not in ignored]
    if (
        unlabelled is None
        and 0 in left
        and len(left) > 1
        and (ade_layout(found) or names and max(left) == len(names))
    ):
        ignored.add(0)
        left.remove(0)
        found.notes.append(
            '0 is taken for unlabelled, '
            + ('as ADE20K has it' if not names else 'the names begin at 1')
            + '; if it is a class: --unlabelled 255'
        )
    first = min(1, min(left, default=0))
    if names and left and max(left) < len(names) + first:
        found.names = names
        found.values = {value: value - first for value in left}
    else:
        if names and forced:
            found.errors.append(f'--classes has {len(names)} names, the masks hold {some(left, 8)}')
        found.names = [
            'background' if value == 0 else 'object' if values == [0, 255] else f'class {value}'
            for value in left
        ]
        found.values = {value: index for index, value in enumerate(left)}
        if 0 in left and len(left) > 2:
            found.notes.append(
                '0 is taken for a class, the background; if it means unlabelled: --unlabelled 0'
            )
    found.values.update(dict.fromkeys(ignored, IGNORED))


def ade_layout(found: Found) -> bool:
    """ADE20K's folders, in whose masks 0 means unlabelled."""
    return all(
        re.search(r'(^|/)images/(training|validation)/', image)
        and re.search(r'(^|/)annotations/(training|validation)/', mask)
        for part in found.splits.values()
        for image, mask in part
    )


def _colours(found: Found, total: dict) -> None:
    names = {}
    for name in COLOUR_FILES:
        if (found.root / name).is_file():
            names = read_colours(found.root / name)
            break
    if names and (unknown := sorted(set(total) - set(names))):
        found.errors.append(
            f'the masks have the colours {some(unknown)}, which {name} does not name'
        )
    if names:
        order = list(names)
    else:
        order = sorted(total)
        names = {
            colour: 'background' if colour == (0, 0, 0) else 'colour ' + ','.join(map(str, colour))
            for colour in order
        }
        found.notes.append(
            f'{len(order)} colours, each a class; names: a file labelmap.txt with a '
            'line NAME:R,G,B for each'
        )
    found.names = [names[colour] for colour in order]
    found.values = {colour: index for index, colour in enumerate(order)}


def read_colours(path: Path) -> dict[tuple[int, int, int], str]:
    """Colours and names: CVAT's ``name:r,g,b:...``, or name and numbers in columns of any order."""
    colours = {}
    lines = path.read_text(errors='replace').splitlines()
    rows = (
        csv.reader(lines)
        if path.suffix == '.csv'
        else [
            [part for part in re.split(r'[:,\s]+', line) if part]
            for line in lines
            if line.strip() and not line.startswith('#')
        ]
    )
    for row in rows:
        numbers = [int(part) for part in row if part.strip().isdecimal()][:3]
        words = [part.strip() for part in row if part.strip() and not part.strip().isdecimal()]
        if len(numbers) == 3 and words:
            colours[numbers[0], numbers[1], numbers[2]] = ' '.join(words)
    return colours


def write_maps(found: Found, folder: Path) -> None:
    """The class maps of all masks, ``folder/IMAGE.png``: a link where the mask is one already."""
    identical = all(isinstance(v, int) and v == i for v, i in found.values.items())
    for part in found.splits.values():
        for image, mask in part:
            target = folder / f'{image}.png'
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            source = (found.root / mask).resolve()
            with Image.open(source) as opened:
                ready = identical and opened.mode in ('L', 'P')
            if ready:
                target.symlink_to(source)
            else:
                Image.fromarray(class_map(mask_pixels(source), found.values)).save(target)


def class_map(pixels: np.ndarray, values: dict) -> np.ndarray:
    """(H, W) of class indices, 255 for what has none."""
    grey = pixels.ndim == 2
    result = np.full(pixels.shape[:2], IGNORED, np.uint8)
    for value, index in values.items():
        if isinstance(value, tuple):
            same = (
                pixels == value[0]
                if grey and len(set(value)) == 1
                else (np.zeros(result.shape, bool) if grey else (pixels == value).all(-1))
            )
        else:
            same = pixels == value if grey else np.zeros(result.shape, bool)
        result[same] = index
    return result
