"""Masks for segmentation: files in which the value of a pixel is the index of its class.

What a toolbox makes of a file: MMSegmentation reads it with Pillow, takes the palette's indices of
a palette image, 0 and 1 of a 1-bit one, and of everything else the values, cut to 8 bits.
"""

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from PIL import Image

from .datasets import annotation_path, default_of, folder, read_classes
from .folders import files_below
from .problem import Problem, error, first_of, warning

IGNORED = 255
SECONDS, PATIENCE = 0.5, 5  # for the masks of a split; where all seem to be of one class
IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.npy')


def shell_line(change: str, folder: object, suffix: str, before: str = '') -> str:
    """A command line that changes every mask ``m`` below a folder, in place."""
    code = (
        f'import pathlib, sys; from PIL import Image; {before}'
        f"[{change}.save(p) for p in pathlib.Path(sys.argv[1]).rglob('*{suffix}') "
        'for m in [Image.open(p)]]'
    )
    return f'python -c "{code}" {shlex.quote(str(folder))}'


def read_mask(path: str | Path) -> tuple[np.ndarray | None, str, str]:
    """The indices in a mask as MMSegmentation reads them, or what is wrong with the file.

    Returns:
        tuple: the map (H, W), None where the file is none; what is wrong; the change that mends it,
        for :func:`shell_line`, ``''`` where there is none.
    """
    try:
        with Image.open(path) as image:
            image.load()
            mode, pixels = image.mode, np.asarray(image)
    except Exception as problem:  # a damaged file can raise anything
        reason = 'is no image' if 'cannot identify' in str(problem) else str(problem)
        return None, getattr(problem, 'strerror', None) or reason, ''
    if pixels.ndim == 3:
        colours = pixels[..., :1] if pixels.shape[2] == 2 else pixels[..., :3]
        if (colours == colours[..., :1]).all():
            return (
                None,
                (
                    f'has {pixels.shape[2]} channels ({mode}); expected one with the indices '
                    'of the classes'
                ),
                'm.getchannel(0)',
            )
        kinds = np.unique(colours.reshape(-1, 3), axis=0)
        if len(kinds) > 256:
            return None, f'has {len(kinds)} colours: it is a picture, no map of classes', ''
        flat = kinds.ravel().tolist()
        return (
            None,
            (
                f'has colours, {first_of(map(tuple, kinds.tolist()), 4)}; expected indices '
                'of classes'
            ),
            f'COLOURS {flat}',
        )
    if (
        pixels.dtype.kind == 'f'
        and (pixels != pixels.astype(np.uint8)).any()
        or (pixels.dtype.itemsize > 1 and pixels.size and (pixels.min() < 0 or pixels.max() > 255))
    ):
        return (
            None,
            (
                f'has values up to {pixels.max():g} ({mode}), which are cut to 8 bits; '
                'expected the indices of the classes'
            ),
            '',
        )
    return pixels.astype(np.uint8), '', ''


def value_counts(values: np.ndarray | None) -> np.ndarray | None:
    """(256, ): pixels of each value in a mask, None where there is none."""
    return None if values is None else np.bincount(values.ravel(), minlength=256)


class MaskCounts:
    """What is seen in the masks of a split, one after another.

    Args:
        names: The classes.
        reduce_zero (bool): 0 is no class, and 1 the first.
        own (bool): The config names the classes itself; otherwise they are the data set type's,
            of which a part of the data need not have all.
    """

    def __init__(
        self,
        names: Sequence[str],
        reduce_zero: bool,
        own: bool,
        where: str,
        folder: object,
        suffix: str = '.png',
        label_map: dict | None = None,
    ):
        self.names, self.reduce_zero, self.own = list(names), reduce_zero, own
        self.where, self.folder, self.suffix = where, folder, suffix
        self.label_map = label_map
        self.values = np.zeros(256, int)  # pixels of each value
        self.files = 0
        self.faults: dict[str, list] = {}  # by the change that mends it: (path, text)

    def add(self, path: str | Path) -> None:
        values, fault, change = read_mask(path)
        self.put(path, fault, change, value_counts(values))

    def put(self, path: str | Path, fault: str, change: str, counts: np.ndarray | None) -> None:
        """As :meth:`add`, of a mask that another process has read."""
        self.files += 1
        if fault:
            self.faults.setdefault(change, []).append((path, fault))
        else:
            self.values += counts

    @property
    def classes(self) -> np.ndarray:
        """Pixels of each class, (len(names), )."""
        return self._mapped()[: len(self.names)]

    def _mapped(self) -> np.ndarray:
        counts = self.values.copy()
        if self.reduce_zero:
            counts = np.append(counts[1:], 0)
            counts[255] = counts[254] + self.values[0]
            counts[254] = 0
        if self.label_map:
            old, counts = counts, np.zeros(256, int)
            for value, number in enumerate(old):
                counts[self.label_map.get(value, value)] += number
        return counts

    def all_seen(self) -> bool:
        return bool((self.classes > 0).all())

    def problems(self, whole: bool, needed: bool = True) -> list[Problem]:
        """What is wrong with the masks seen so far.

        Args:
            whole (bool): They are enough to say that a class never occurs.
            needed (bool): A class that never occurs is an error, as in a training set.
        """
        found = []
        for change, faults in self.faults.items():
            path, text = faults[0]
            more = f' (and so {len(faults) - 1} more)' if len(faults) > 1 else ''
            found.append(error(path, text + more + self._way_out(change)))
        if found:
            return found
        counts, number = self._mapped(), len(self.names)
        beyond = [int(v) for v in np.flatnonzero(counts) if v >= number and v != IGNORED]
        present = [int(v) for v in np.flatnonzero(self.values)]
        if beyond:
            raw = [v + self.reduce_zero for v in beyond] if not self.label_map else beyond
            way = (
                f'; if 0 means unlabelled and 1 is {self.names[0]}, {self._reduce(True)}'
                if beyond == [number] and not self.reduce_zero
                else f'; if these values stand for the classes, {self._renumber(present)}'
                if len(present) == number
                else '; name all the classes, or write 255 where there is none of them '
                '(docs/own_masks.md)'
            )
            return [
                error(
                    self.where,
                    f'the masks hold {first_of(raw, 5)}, the classes are '
                    f'{int(self.reduce_zero)} to {number - 1 + self.reduce_zero} '
                    f'({first_of(self.names)}){way}',
                )
            ]
        absent = [name for name, count in zip(self.names, self.classes, strict=True) if not count]
        objects = [v for v in present if v != IGNORED]
        zero_is_class = self.reduce_zero and 0 in present and len(objects) == number
        ignored_is_class = not self.reduce_zero and IGNORED in present and len(present) == number
        if (
            not absent
            or not (self.own or len(absent) == number)
            or not (whole or zero_is_class or ignored_is_class)
        ):
            return []
        text = f'{first_of(absent, 5)} never occurs in {self.files} masks'
        if zero_is_class:
            text += (
                f', which hold {first_of(present)}: 0 is taken for unlabelled, '
                f'{self._reduce(False)}'
            )
        elif ignored_is_class:
            text += (
                f', which hold {first_of(present)}: 255 is taken for unlabelled, '
                f'{self._renumber(present)}'
            )
        else:
            text += f', which hold {first_of(present, 5)}'
            text += (
                '; leave it out of the classes, or write its index into the masks '
                '(docs/own_masks.md)'
                if needed
                else ''
            )
        return [
            error(self.where, text)
            if needed or len(absent) == number
            else warning(self.where, text)
        ]

    def _reduce(self, value: bool) -> str:
        return f'write reduce_zero_label={value} in the data sets and in LoadAnnotations'

    def _renumber(self, present: Sequence[int]) -> str:
        if list(present) == [0, 255]:
            change = 'm.point(lambda v: v // 255)'
        else:
            order = {value: i for i, value in enumerate(present)}
            change = f'm.point(lambda v: {order}.get(v, 255))'
        return 'write the indices: ' + shell_line(change, self.folder, self.suffix)

    def _way_out(self, change: str) -> str:
        if not change:
            return ' (docs/own_masks.md)'
        if change.startswith('COLOURS'):
            colours = change.removeprefix('COLOURS ')
            return '; in the order of the classes these are the indices: ' + shell_line(
                "m.convert('RGB').quantize(palette=c, dither=0)",
                self.folder,
                self.suffix,
                before=f"c = Image.new('P', (1, 1)); c.putpalette({colours}); ",
            )
        return '; to keep one: ' + shell_line(change, self.folder, self.suffix)


def pairs(leaf: dict, kind: type) -> tuple[list[tuple[str, str]], list[str], Counter]:
    """Images and masks of a segmentation set, as MMSegmentation finds them.

    Returns:
        tuple: (image, mask) of every sample, the masks of which are there; the names of the images
        whose mask is not; how many images end in which other suffix.
    """
    images, masks = folder(leaf, 'img_path', 'img') or '', folder(leaf, 'seg_map_path') or ''
    suffix = default_of(leaf, kind, 'img_suffix', '.jpg')
    map_suffix = default_of(leaf, kind, 'seg_map_suffix', '.png')
    listed = annotation_path(leaf) if leaf.get('ann_file') else ''
    if os.path.isfile(listed):
        names = [line.strip() for line in Path(listed).read_text().splitlines()]
        others: Counter[str] = Counter()
    else:
        found = sorted(os.path.relpath(path, images) for path in files_below(images))
        names = [name.removesuffix(suffix) for name in found if name.endswith(suffix)]
        others = Counter(
            end
            for name in found
            if not name.endswith(suffix) and (end := os.path.splitext(name)[1]).lower() in IMAGES
        )
    there = {os.path.relpath(path, masks) for path in files_below(masks)}
    return (
        [
            (os.path.join(images, name + suffix), os.path.join(masks, name + map_suffix))
            for name in names
            if os.path.normpath(name + map_suffix) in there
        ],
        [name + suffix for name in names if os.path.normpath(name + map_suffix) not in there],
        others if images != masks else Counter(),
    )


def counts_of(leaf: dict, kind: Any, classes: Sequence[str], path: str) -> MaskCounts:
    """Empty counts for the masks of a segmentation set, of a class of MMSegmentation's."""
    return MaskCounts(
        classes,
        bool(default_of(leaf, kind, 'reduce_zero_label', False)),
        read_classes(leaf) is not None,
        path,
        folder(leaf, 'seg_map_path'),
        default_of(leaf, kind, 'seg_map_suffix', '.png'),
        kind.get_label_map(list(classes)),
    )


def split_problems(
    path: str, leaf: dict, kind: type, classes: Sequence[str], needed: bool, read: bool = True
) -> list[Problem]:
    """What is wrong with the masks of a segmentation set: the lists, and as many as time allows.

    Args:
        path: Of the data set in the config.
        needed (bool): See :meth:`MaskCounts.problems`.
        read (bool): Look into the masks, too, not at the lists alone.
    """
    images = folder(leaf, 'img_path', 'img') or ''
    try:
        counts = counts_of(leaf, kind, classes, path)
    except ValueError as problem:  # MMSegmentation's, of classes that its data set has not
        return [error(f'{path}.metainfo', str(problem))]
    if not leaf.get('ann_file') and not os.path.isdir(images):
        return [error(path, f'there is no folder {images}')]
    found, lost, others = pairs(leaf, kind)
    problems = list_problems(path, leaf, kind, found, lost, others)
    if not read or any(problem.severity == 'error' for problem in problems):
        return problems
    start = monotonic()
    order = np.random.default_rng(0).permutation(len(found))
    for index in order:
        counts.add(found[index][1])
        few = (counts.values > 0).sum() < 2 or not counts.faults and (counts.classes > 0).sum() < 2
        if counts.files >= 2 and monotonic() - start > (PATIENCE if few else SECONDS):
            break
    return problems + counts.problems(counts.files == len(found), needed)


def list_problems(
    path: str, leaf: dict, kind: type, found: Sequence, lost: Sequence[str], others: Counter[str]
) -> list[Problem]:
    """What is wrong with what :func:`pairs` found."""
    images, suffix = folder(leaf, 'img_path', 'img'), default_of(leaf, kind, 'img_suffix', '.jpg')
    if not found and not lost:
        likely = others.most_common(1)
        return [
            error(
                f'{path}.img_suffix',
                f'no file in {images} ends in {suffix}; '
                + (
                    f'{likely[0][1]} end in {likely[0][0]}: write img_suffix={likely[0][0]!r}'
                    if likely
                    else 'data_prefix=dict(img_path=...) names the folder of the images'
                ),
            )
        ]
    problems = []
    if others:
        problems.append(
            warning(
                f'{path}.img_suffix',
                f'{sum(others.values())} images in {images} '
                f'end in {first_of(others)}, not in {suffix}: left out, since the '
                'toolbox takes one suffix; convert them',
            )
        )
    if lost:
        masks = folder(leaf, 'seg_map_path') or ''
        ends = Counter(os.path.splitext(file)[1] for file in files_below(masks))
        end = ends.most_common(1)[0][0] if ends else ''
        own = default_of(leaf, kind, 'seg_map_suffix', '.png')
        way = (
            f'write seg_map_suffix={end!r}'
            if end and not own.endswith(end) and not found
            else f'the toolbox looks for {masks}/NAME{own}'
        )
        problems.append(
            error(
                f'{path}.seg_map_suffix',
                f'{len(lost)} of {len(lost) + len(found)} '
                f'images have no mask, such as {lost[0]}; {way}',
            )
        )
    return problems
