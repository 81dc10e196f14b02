"""What is wrong with an image file, without a toolbox, and what it looks like in small."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageOps

Image.MAX_IMAGE_PIXELS = None  # reported below instead
LARGE = 50e6  # pixels
THUMB = (17, 16)  # columns and rows: 16 x 16 differences between neighbours


class ImageFacts(NamedTuple):
    """What an image file holds.

    Attributes:
        problems: (severity, text) of each.
        size: Width and height as toolboxes see them, None where it is no image.
        digest: Of the file's bytes, None where it cannot be read.
        thumb: Grey values, (16, 17), uint8.
    """

    problems: list[tuple[str, str]]
    size: tuple[int, int] | None = None
    digest: bytes | None = None
    thumb: np.ndarray | None = None


def image_facts(
    path: str | Path, size: tuple[int, int] | None = None, as_colour: bool = True
) -> ImageFacts:
    """Read an image file, all of it.

    Args:
        path: The file.
        size: Width and height that the annotations tell.
        as_colour (bool): It is read as three channels of 8 bits, whatever it holds.
    """
    try:
        with open(path, 'rb') as file:
            if not file.read(1):
                return ImageFacts([('error', 'is empty')])
            file.seek(0)
            digest = hashlib.file_digest(file, 'blake2b').digest()
        with Image.open(path) as image:
            mode, frames = image.mode, getattr(image, 'n_frames', 1)
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            image.load()  # all of it: toolboxes fill what is missing with grey
            stored, seen = image.size, ImageOps.exif_transpose(image).size if turned else image.size
            thumb = np.asarray(image.convert('L').resize(THUMB, Image.Resampling.BOX))
    except Exception as error:  # a damaged file can raise anything
        reason = 'is no image' if 'cannot identify' in str(error) else error
        return ImageFacts([('error', getattr(reason, 'strerror', None) or str(reason))])
    problems = []
    if size and tuple(size) != seen:
        unturned = (
            '; they are for the image without its EXIF rotation'
            if (turned and tuple(size) == stored)
            else ''
        )
        problems.append(
            ('error', f'is {seen[0]}x{seen[1]}, the annotations say {size[0]}x{size[1]}{unturned}')
        )
    if seen[0] * seen[1] > LARGE:
        problems.append(
            (
                'warning',
                f'has {seen[0] * seen[1] / 1e6:.0f} megapixels: large crops or '
                'a smaller copy would load faster',
            )
        )
    if as_colour and mode.startswith(('I', 'F')):
        problems.append(('warning', f'has more than 8 bits a channel ({mode}), which are cut to 8'))
    if as_colour and mode in ('RGBA', 'LA', 'PA'):
        problems.append(('warning', 'has transparency, which is ignored'))
    if as_colour and mode == 'CMYK':
        problems.append(('warning', 'is CMYK, its colours are converted'))
    if frames > 1:
        problems.append(('warning', f'has {frames} frames, only the first is read'))
    return ImageFacts(problems, seen, digest, thumb)


def image_problems(
    path: str | Path, size: tuple[int, int] | None = None, as_colour: bool = True
) -> list[tuple[str, str]]:
    """Severity and text of each problem of an image file; see :func:`image_facts`."""
    return image_facts(path, size, as_colour).problems
