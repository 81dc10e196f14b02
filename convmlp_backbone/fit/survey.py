"""A look at all image files: sizes, bytes that are the same, what cannot be read."""

import hashlib
import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from ..checks.duplicates import FLAT

Image.MAX_IMAGE_PIXELS = None  # such images are read
DECODED = 2000  # images of a set that are decoded; of the rest the heads are read
SMALL = 32  # pixels, side of the picture by which copies are known
# Of a copy's small picture: correlation at least, and grey values by which a pixel may differ at
# most. What JPEG and resizing change is a little everywhere, what moves before a camera is much
# somewhere.
ALIKE, MOST = 0.99, 16
FEW = 3  # copies of an image; what is like more than so many, as forms are, is none


@dataclass
class Look:
    """What a file is: (width, height) as it is shown, a digest of its content, a small grey
    picture of it where it was decoded, or the fault."""

    size: tuple[int, int] | None = None
    digest: str = ''
    fault: str = ''
    small: np.ndarray | None = None


def image_size(path: Path) -> tuple[int, int] | None:
    """Width and height of an image as it is shown; None if it cannot be read."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return image.size[::-1] if turned else image.size
    except Exception:  # a damaged file can raise anything
        return None


def look(path: Path, decode: bool) -> Look:
    try:
        with Image.open(path) as image:
            size = image_size(path)
            if decode:  # the pixels: a copy that was saved again has other bytes
                pixels = ImageOps.exif_transpose(image).convert('RGB')
                small = pixels.convert('L').resize((SMALL, SMALL), Image.Resampling.BOX)
                digest = hashlib.sha1(pixels.tobytes()).hexdigest()
                return Look(size, digest, small=np.asarray(small))
        return Look(size, hashlib.sha1(path.read_bytes()).hexdigest())
    except Exception as error:
        if path.stat().st_size == 0:
            return Look(fault='is empty')
        return Look(fault='is no image' if 'cannot identify' in str(error) else str(error))


def survey(root: Path, images: list[str]) -> dict[str, Look]:
    """A look at every image below ``root``."""
    decode = len(images) <= DECODED
    paths = [root / image for image in images]
    if len(paths) < 64:
        looks = [look(path, decode) for path in paths]
    else:
        with multiprocessing.get_context('fork').Pool() as pool:
            looks = pool.map(partial(look, decode=decode), paths, chunksize=16)
    return dict(zip(images, looks, strict=True))


def copies(images: list[str], others: list[str], looks: dict[str, Look]) -> dict[str, list[str]]:
    """Which of ``others`` each of ``images`` is a copy of, if any: of the same content, or, where
    they were decoded, saved again in another quality or format, mostly also in another size."""
    same: dict[str, list[str]] = {}
    for other in others:
        same.setdefault(looks[other].digest, []).append(other)
    found = {i: same[d] for i in images if (d := looks[i].digest) and d in same}
    rows, row_names = small_pictures(images, looks)
    columns, column_names = small_pictures(others, looks)
    for image, row, alike in zip(row_names, rows, unit(rows) @ unit(columns).T, strict=True):
        like = [
            column_names[j]
            for j in np.flatnonzero(alike > ALIKE)
            if np.abs(row - columns[j]).max() <= MOST
        ]
        if like and len(set(like) - {image}) <= FEW:
            found[image] = list(dict.fromkeys([*found.get(image, []), *like]))
    return found


def small_pictures(images: list[str], looks: dict[str, Look]) -> tuple[np.ndarray, list[str]]:
    """Those that there are, (N, pixels), and whose they are."""
    small = {image: s for image in images if (s := looks[image].small) is not None}
    return np.array(list(small.values()), np.float32).reshape(-1, SMALL**2), list(small)


def unit(small: np.ndarray) -> np.ndarray:
    """Pictures (N, pixels) less their mean, of length 1; of what shows nothing, 0."""
    small = small - small.mean(1, keepdims=True)
    spread = small.std(1, keepdims=True)
    return np.where(spread > FLAT, small / np.maximum(spread, FLAT), 0) / np.sqrt(small.shape[1])
