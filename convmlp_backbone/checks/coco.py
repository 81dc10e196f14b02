"""COCO annotation files: read whatever there is, mend what can be read in one way only, and tell
what else would make a training fail or learn something wrong. No toolbox needed.
"""

import gc
import json
import mmap
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import whole_file
from .boxes import suspicious_units
from .mending import columns, in_order, is_number, mend, only, outline_fault
from .names import metainfo_line, near_names
from .problem import Problem, each, error, first_of, warning

MANY = 0.2  # of the images without an object are worth a word
PARTS = ('images', 'annotations', 'categories')


@contextmanager
def collector_paused() -> Iterator[None]:
    """Python's garbage collector would walk through millions of objects again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@collector_paused()
def read(path: str | Path) -> tuple[dict, str]:
    """A COCO annotation file as JSON gives it, and its encoding.

    Raises:
        UserError: If it is no JSON, or not of this format.
    """
    try:
        raw = Path(path).read_bytes()
        encoding = json.detect_encoding(raw)
        text = raw.decode(encoding)
        del raw  # as large as the file, as the text is
        coco = json.loads(text)
        del text
    except OSError as problem:
        raise UserError(f'{path}: {problem.strerror}') from problem
    except (ValueError, RecursionError) as problem:
        raise UserError(f'{path} is no JSON: {problem}') from problem
    missing = [
        part
        for part in PARTS
        if not isinstance(coco, dict)
        or not isinstance(coco.get(part), list)
        or not set(map(type, coco[part])) <= {dict}
    ]
    if missing:
        raise UserError(
            f'{path} is no COCO annotation file: it has no list of {" and of ".join(missing)}'
        )
    for part, key in (
        ('images', 'id'),
        ('images', 'file_name'),
        ('categories', 'id'),
        ('categories', 'name'),
    ):
        without = sum(item.get(key) is None for item in coco[part])
        if without:
            raise UserError(
                f'{path} is no COCO annotation file: {without} of its {part} have no {key}'
            )
    return coco, encoding


def read_categories(path: str | Path) -> list[dict]:
    """The categories of a COCO annotation file, without reading the rest where that can be."""
    try:
        with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            for found in re.finditer(rb'"categories"\s*:\s*(?=\[)', raw):
                tail = raw[found.end() : found.end() + 10_000_000].decode(errors='ignore')
                categories = json.JSONDecoder().raw_decode(tail)[0]
                if categories and all('id' in c and 'name' in c for c in categories):
                    return categories
    except (ValueError, TypeError, RecursionError):
        pass
    return read(path)[0]['categories']


class Objects:
    """The annotations of a file as columns.

    Attributes:
        boxes (ndarray): (N, 4), x, y, width, height in pixels; nan where there is none.
        image, label (ndarray): (N, ), index into ``images`` and ``categories``, -1 for none.
        area (ndarray): (N, ), nan where there is none.
        crowd, ignore (ndarray): (N, ), bool.
        sizes (ndarray): (number of images, 2), width and height; nan where not told.
    """

    def __init__(self, coco: dict, values: dict[str, list]):
        annotations = coco['annotations']
        count = len(annotations)
        self.image = _places(coco['images'], values['image_id'])
        self.label = _places(coco['categories'], values['category_id'])
        self.boxes, self.area = _table(values['bbox'], 4), _table(values['area'], None)
        self.crowd = np.fromiter(map(bool, values['iscrowd']), bool, count)
        self.ignore = np.zeros(count, bool)
        if any('ignore' in annotation for annotation in annotations):
            self.ignore[:] = [bool(annotation.get('ignore')) for annotation in annotations]
        self.sizes = _table([[i.get('width'), i.get('height')] for i in coco['images']], 2)


def _places(items: list[dict], ids: Sequence) -> np.ndarray:
    """The index in ``items`` of each of ``ids``, -1 where it is not there."""
    own = [item['id'] for item in items]
    if items and only(int, own) and only(int, ids):
        with suppress(OverflowError):  # more than 64 bits
            known, wanted = np.array(own, np.int64), np.array(ids, np.int64)
            least, most = known.min(), known.max()
            if 0 <= least and most <= 100 * len(own) + 10**6:
                place = np.full(most + 2, -1)  # the last is for what is out of range
                place[known[::-1]] = np.arange(len(own))[::-1]  # of equal ones the first counts
                return place[np.where((wanted >= 0) & (wanted <= most), wanted, -1)]
            order = np.argsort(known, kind='stable')
            place = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(own) - 1)]
            return np.where(known[place] == wanted, place, -1)
    index = {number: i for i, number in enumerate(own)}
    return np.array(
        [index.get(number, -1) if isinstance(number, (int, str)) else -1 for number in ids], int
    )


def _table(rows: Sequence, width: int | None) -> np.ndarray:
    """Rows of numbers, (N, width), or numbers, (N, ); nan where there are none."""
    shape = (len(rows),) if width is None else (len(rows), width)
    try:
        if width is not None and set(map(len, rows)) <= {width}:
            return np.fromiter(chain.from_iterable(rows), float, len(rows) * width).reshape(shape)
        if width is None:
            return np.fromiter(rows, float, len(rows))
    except (ValueError, TypeError, OverflowError):
        pass
    table = np.full(shape, np.nan)
    for i, row in enumerate(rows):
        if (
            is_number(row)
            if width is None
            else isinstance(row, list) and len(row) == width and all(map(is_number, row))
        ):
            table[i] = row
    return table


class CocoFile:
    """A COCO annotation file, mended.

    Args:
        path: The file.

    Attributes:
        coco (dict): What JSON gives, after :func:`mend`.
        done (list[str]): What was mended.

    Raises:
        UserError: If it is no JSON, or not of this format.
    """

    def __init__(self, path: str | Path):
        self.path = str(path)
        self.coco, encoding = read(path)
        self.done = [] if encoding == 'utf-8' else [f'its encoding, {encoding}, to UTF-8']
        self._columns = columns(self.coco)
        if not in_order(self.coco, self._columns):
            self.done += mend(self.coco)
            self._columns = columns(self.coco)

    @cached_property
    def objects(self) -> Objects:
        """The annotations as columns; the categories must not be reordered afterwards."""
        return Objects(self.coco, self._columns)

    @property
    def names(self) -> list[str]:
        """The names of the categories, in their order."""
        return [category['name'] for category in self.coco['categories']]

    @property
    def files(self) -> dict[int, str]:
        """The names of the images by their ids."""
        return {image['id']: image['file_name'] for image in self.coco['images']}

    def learned(self) -> set[str]:
        """The names of the categories that have an object that is no crowd."""
        objects = self.objects
        labels = np.unique(objects.label[~objects.crowd & ~objects.ignore])
        return {self.names[label] for label in labels if label >= 0}

    def order_categories(self, names: Sequence[str]) -> None:
        """Let the categories called ``names`` stand in this order, the rest behind them.

        MMDetection numbers its labels by the order of the file. A category that is not there is
        added: nothing refers to it, and the labels behind it keep their number.
        """
        categories = self.coco['categories']
        by_name = {category['name']: category for category in categories}
        added = [name for name in names if name not in by_name]
        for number, name in enumerate(added, max((c['id'] for c in categories), default=0) + 1):
            by_name[name] = dict(id=number, name=name, supercategory='')
        if added:
            self.done.append(f'categories of the training file added: {first_of(added)}')
        rank = {name: i for i, name in enumerate(names)}
        wanted = [name for name in self.names if name in rank]
        if wanted != sorted(wanted, key=rank.__getitem__):
            self.done.append('categories put into the order of the training file')
        elif not added:
            return
        self.coco['categories'] = [by_name[name] for name in names] + [
            category for category in categories if category['name'] not in rank
        ]

    def excerpt(self, count: int) -> dict:
        """The file of ``count`` images of this one, of those with objects where there are any."""
        images, place = self.coco['images'], self.objects.image
        seen = np.unique(place[place >= 0])
        seen = seen if len(seen) else np.arange(len(images))
        some = (
            seen[np.unique(np.linspace(0, len(seen) - 1, count).astype(int))] if len(seen) else []
        )
        return dict(
            self.coco,
            images=[images[i] for i in some],
            annotations=[self.coco['annotations'][i] for i in np.flatnonzero(np.isin(place, some))],
        )

    def save(self, path: str | Path) -> None:
        with whole_file(path) as part, open(part, 'w', encoding='utf-8') as file:
            json.dump(self.coco, file)

    # What is wrong

    def name_problems(self, classes: Sequence[str], own: bool = True) -> list[Problem]:
        """What is wrong with the class names that a config has for this file.

        Args:
            own (bool): The config names the classes itself; otherwise they are those of the data
                set's type.
        """
        names = self.names
        absent = [name for name in classes if name not in names]
        if not absent:
            return []
        near = near_names(absent, names)
        return [
            error(
                self.path,
                f'its categories are {first_of(names, 5)}; '
                + ('the config names ' if own else 'the config names no classes, so that they are ')
                + first_of(classes, 5)
                + (f'; did you mean {near}?' if near else '')
                + f'; write {metainfo_line(names)}',
            )
        ]

    def other_name_problems(self, learned: Sequence[str]) -> list[Problem]:
        """What is wrong with the names in a file that is not the one learned from.

        A class that it lacks is none of it; but names that look like one another are.
        """
        absent = [name for name in learned if name not in self.names]
        near = near_names(absent, [name for name in self.names if name not in learned])
        if near or absent and len(absent) == len(learned):
            return [
                error(
                    self.path,
                    f'its categories are {first_of(self.names, 5)}; those learned '
                    f'are {first_of(learned, 5)}: name them alike' + (f' ({near})' if near else ''),
                )
            ]
        return []

    def filter_problems(
        self, path: str, filter_cfg: dict, classes: Sequence[str], batch: int
    ) -> list[Problem]:
        """What MMDetection's filter leaves of a training file, and whether that is enough.

        Args:
            path (str): Of the data set in the config.
            batch (int): So many images are needed.
        """
        objects, least = self.objects, filter_cfg.get('min_size', 0)
        small = objects.sizes.min(1) < least
        if len(small) and small.all():
            return [
                error(
                    f'{path}.filter_cfg.min_size',
                    f'is {least}, and all {len(small)} images '
                    f'are smaller: --cfg-options {path}.filter_cfg.min_size=0',
                )
            ]
        kept = ~small
        if filter_cfg.get('filter_empty_gt'):
            wanted = np.isin(self.names, list(classes))[objects.label] & (objects.label >= 0)
            kept &= np.isin(np.arange(len(small)), objects.image[wanted])
        if kept.sum() < batch:
            return [
                error(
                    path,
                    f'{kept.sum()} images are less than a batch of {batch}, so that '
                    'nothing would be learned: --cfg-options '
                    f'{path.split(".")[0]}.batch_size={max(1, kept.sum())}',
                )
            ]
        return (
            [
                warning(
                    f'{path}.filter_cfg.min_size',
                    f'leaves out {small.sum()} of {len(small)} images, smaller than {least}',
                )
            ]
            if small.any()
            else []
        )

    def problems(
        self, classes: Sequence[str] | None = None, outlines: bool = False, most: int = 5
    ) -> list[Problem]:
        """What is wrong with images and annotations.

        Args:
            classes: The class names of the config; None for those of the file.
            outlines (bool): They are needed, for masks.
            most (int): So many annotations are named for a kind of problem.
        """
        coco, path, objects, names = self.coco, self.path, self.objects, self.names
        images, annotations = coco['images'], coco['annotations']
        found = [
            error(f'{path}: {part}', f'id {number} occurs {count} times')
            for part in ('images', 'categories')
            for number, count in Counter(item['id'] for item in coco[part]).items()
            if count > 1
        ][:most]
        found += [
            error(
                path,
                f'{count} categories are called {name}, ids '
                f'{first_of(c["id"] for c in coco["categories"] if c["name"] == name)}: '
                'give their annotations one category',
            )
            for name, count in Counter(names).items()
            if count > 1
        ]

        def where(i):
            place = objects.image[i]
            return f'{path}: annotation {annotations[i].get("id")}' + (
                f' of {images[place]["file_name"]}' if place >= 0 else ''
            )

        def report(severity, mask, text):
            found.extend(each(severity, np.flatnonzero(mask), where, text, most))

        wanted = np.array([classes is None or name in classes for name in names] + [True])
        wanted = wanted[objects.label]  # where there is no category, the last
        x, y, w, h = objects.boxes.T
        width, height = np.vstack([objects.sizes, [np.nan, np.nan]])[objects.image].T
        with np.errstate(invalid='ignore'):
            no_box = ~np.isfinite(objects.boxes).all(1)
            thin = (w < 1) | (h < 1) | (objects.area <= 0)
            outside = (np.minimum(x + w, width) <= np.maximum(x, 0)) | (
                np.minimum(y + h, height) <= np.maximum(y, 0)
            )
            over = (x < -1) | (y < -1) | (x + w > width + 1) | (y + h > height + 1)
        report(
            'error',
            objects.image < 0,
            lambda i: f'is of image {annotations[i].get("image_id")}, which is not in the file',
        )
        report(
            'error',
            objects.label < 0,
            lambda i: (
                f'is of category {annotations[i].get("category_id")}, which is not in the file'
            ),
        )
        report(
            'error',
            no_box & wanted,
            lambda i: (
                f'has the box {annotations[i].get("bbox")}; '
                'expected four finite numbers x, y, width, height'
            ),
        )
        good = wanted & ~no_box & (objects.image >= 0)
        single = good & ~objects.crowd
        units = suspicious_units(
            objects.boxes[single], np.stack([width, height], 1)[single], objects.area[single]
        )
        if units:
            found.append(Problem(units[0], path, units[1]))
        if not units or units[0] == 'warning':
            report(
                'error',
                good & ~thin & np.isnan(objects.area),
                lambda i: f'has the area {annotations[i].get("area")}; expected a number of pixels',
            )
            report(
                'warning',
                good & thin,
                lambda i: (
                    f'has a box {w[i]:g}x{h[i]:g} and an area of {objects.area[i]:g}: left out'
                ),
            )
            report(
                'warning',
                good & ~thin & outside,
                lambda i: f'has a box outside the image, {annotations[i]["bbox"]}: left out',
            )
            report(
                'warning',
                good & ~thin & ~outside & over,
                lambda i: (
                    'reaches out of the '
                    f'image, {annotations[i]["bbox"]} in {width[i]:g}x{height[i]:g}'
                ),
            )
        found += each(
            'error',
            np.flatnonzero(~np.isfinite(objects.sizes).all(1)),
            lambda i: f'{path}: image {images[i]["file_name"]}',
            lambda i: (
                f'has the size {images[i].get("width")}x{images[i].get("height")}; '
                'expected two numbers'
            ),
            most,
        )
        if outlines:
            fault = self._outline_faults()
            report(
                'error',
                single & ~objects.ignore & (fault > 0),
                lambda i: (
                    (
                        'has no outline ("segmentation")'
                        if fault[i] == 1
                        else f'has the outline {str(annotations[i]["segmentation"])[:60]}; '
                        'expected polygons of at least three points, or RLE'
                    )
                    + ': masks are learned and evaluated from it'
                ),
            )
        if (ignored := single & objects.ignore).any():
            found.append(
                warning(
                    path,
                    f'{ignored.sum()} of {good.sum()} annotations have "ignore": 1: training '
                    'leaves them out, evaluation counts them as objects; "iscrowd": 1 leaves '
                    'them out in both',
                )
            )
        unused = Counter(objects.label[~wanted & (objects.label >= 0)].tolist())
        found += [
            warning(
                path, f'{count} annotations of {names[label]}, no class of the config, are left out'
            )
            for label, count in unused.items()
        ]
        usable = single & ~thin & ~outside & ~objects.ignore & (objects.label >= 0)
        empty = np.flatnonzero(np.bincount(objects.image[usable], minlength=len(images)) == 0)
        if len(empty) == len(images):
            found.append(error(path, 'has no object to learn in any image'))
        elif len(empty) > MANY * len(images):
            found.append(
                warning(
                    path,
                    f'{len(empty)} of {len(images)} images have no object to '
                    'learn, such as '
                    f'{", ".join(images[i]["file_name"] for i in empty[:3])}',
                )
            )
        return found

    def _outline_faults(self) -> np.ndarray:
        """(N, ): :func:`outline_fault` of every annotation."""
        outlines = self._columns['segmentation']
        # A polygon alone, as most are, is told by its length.
        points = np.fromiter(
            (
                len(s[0]) if type(s) is list and len(s) == 1 and type(s[0]) is list else 0
                for s in outlines
            ),
            int,
            len(outlines),
        )
        fault = np.zeros(len(points), int)
        odd = np.flatnonzero((points < 6) | (points % 2 == 1))
        fault[odd] = [outline_fault(outlines[i]) for i in odd]
        return fault
