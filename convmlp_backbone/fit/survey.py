"""A look at all image files: sizes, bytes that are the same, what cannot be read."""

import hashlib
import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

Image.MAX_IMAGE_PIXELS = None  # such images are read
DECODED = 2000  # images of a set that are decoded; of the rest the heads are read


@dataclass
class Look:
    """What a file is: (width, height) as it is shown, a digest of its content, or the fault."""

    size: tuple[int, int] | None = None
    digest: str = ''
    fault: str = ''


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
                return Look(size, hashlib.sha1(pixels.tobytes()).hexdigest())
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
