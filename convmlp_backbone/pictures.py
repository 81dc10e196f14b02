"""Where predictions are drawn: names of their own for images of any folders and formats."""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

FORMATS = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp')  # that colours can go into


def distinct_names(paths: Sequence[str | Path]) -> list[str]:
    """A name for each path, all different: the file's, with its folders where two are alike.

    The folders are those below the one that all have in common.
    """
    paths = [os.path.abspath(path) for path in paths]
    names = [os.path.basename(path) for path in paths]
    if len(set(names)) < len(set(paths)):
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
        names = [os.path.relpath(path, common) for path in paths]
    return names


def with_suffix(names: Sequence[str], suffix: str) -> list[str]:
    """The names with another suffix; where two would be alike then, behind their own."""
    stems = Counter(os.path.splitext(name)[0] for name in set(names))
    return [
        (stem if stems[stem := os.path.splitext(name)[0]] == 1 else name) + suffix for name in names
    ]


def picture_name(name: str) -> str:
    """The name of the picture of an image: a PNG where its own format takes no colours."""
    return name if name.lower().endswith(FORMATS) else name + '.png'


def read_picture(path: str | Path) -> np.ndarray:
    """An image file as a picture, (H, W, 3), uint8, RGB; an OSError where it is none."""
    from mmcv import imread

    picture = imread(str(path), channel_order='rgb')
    if picture is None:
        raise OSError(f'{path} is no image')
    return picture


def pixels_of(inputs: np.ndarray, bgr: bool = True) -> np.ndarray:
    """An image (C, H, W) of any channels and values as a picture (H, W, 3), uint8.

    The first three channels are shown, or the only one; what is not from 0 to 255 is stretched.
    """
    picture = inputs[:3] if len(inputs) >= 3 else inputs[:1].repeat(3, 0)
    picture = picture[:: -1 if bgr and len(inputs) == 3 else 1].transpose(1, 2, 0)
    if picture.dtype != np.uint8 and picture.size:
        low, high = float(picture.min()), float(picture.max())
        if low < 0 or high > 255 or high <= 1:
            picture = (picture - low) / max(high - low, 1e-6) * 255
    return picture.astype(np.uint8)
