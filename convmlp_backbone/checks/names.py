"""Names of classes: where a config has them, and what to write where they are wrong."""

import colorsys
import difflib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .datasets import classes_of, read_classes
from .problem import Problem, error


def metainfo_problems(dataset: dict, path: str) -> list[Problem]:
    """What is wrong with how a config writes the classes of a data set."""
    metainfo = dataset.get('metainfo') or {}
    for key in metainfo:
        if key not in ('classes', 'palette') and key.lower() in ('classes', 'class', 'palette'):
            wanted = 'palette' if key.lower() == 'palette' else 'classes'
            return [
                error(
                    f'{path}.metainfo.{key}',
                    f'no toolbox reads this; write metainfo=dict({wanted}={metainfo[key]!r})',
                )
            ]
    classes = metainfo.get('classes') or dataset.get('classes')
    if isinstance(classes, str) and not Path(classes).is_file():
        return [
            error(
                f'{path}.metainfo.classes',
                f'{classes!r} is a string, neither a list of '
                f'names nor the name of a file; write classes=({classes!r}, )',
            )
        ]
    names = read_classes(dataset) or []
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        return [
            error(
                f'{path}.metainfo.classes',
                f'names {twice[0]} {names.count(twice[0])} times; expected every class once',
            )
        ]
    return []


def near_names(absent: Sequence[str], names: Sequence[str]) -> str:
    """``coin for Coin`` of the names that are near to absent ones."""
    lower = {name.lower().strip(): name for name in names if isinstance(name, str)}
    near = []
    for name in absent[:3]:
        match = difflib.get_close_matches(str(name).lower().strip(), lower, n=1, cutoff=0.75)
        near += [f'{lower[match[0]]} for {name}'] if match else []
    return ', '.join(near)


def tuple_text(names: Sequence[str], most: int = 100) -> str:
    """('a', 'b') as one would write it."""
    names = tuple(names)
    text = repr(names[:most])
    return text if len(names) <= most else f'{text[:-1]}, ...)'


def metainfo_line(names: Sequence[str]) -> str:
    """The line of config that gives a data set these names."""
    return (
        f'metainfo = dict(classes={tuple_text(names)}), give it to the data sets of '
        f'train_dataloader and val_dataloader, and num_classes={len(names)} to the heads'
    )


def fill_palette(leaf: dict, kind: type) -> None:
    """Give a data set's config a colour for each class where it has too few.

    Without one of its own, MMDetection takes its type's, which may be short as well.
    """
    classes, metainfo = classes_of(leaf, kind), leaf.get('metainfo') or {}
    own = metainfo.get('palette')
    palette = own or getattr(kind, 'METAINFO', {}).get('palette')
    if (
        classes
        and not isinstance(palette, str)
        and (own and len(own) != len(classes) or palette and len(palette) < len(classes))
    ):
        leaf['metainfo'] = dict(metainfo, palette=full_palette(palette, len(classes)))


def full_palette(palette: Sequence | str | None, count: int) -> list[tuple[int, ...]]:
    """``count`` colours: those of ``palette``, and as many more as it lacks, all different."""
    colours = (
        []
        if isinstance(palette, str)
        else [tuple(int(v) for v in np.ravel(colour)[:3]) for colour in palette or ()]
    )
    golden, number = 0.618034, 0  # of the circle: hues far from those before
    while len(colours) < count:
        value = 0.95 - 0.25 * (number // 24 % 3)
        new = tuple(round(255 * v) for v in colorsys.hsv_to_rgb(number * golden % 1, 0.75, value))
        number += 1
        if new not in colours or number > 20 * count:
            colours.append(new)
    return colours[:count]
