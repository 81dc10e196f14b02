"""Pixels of an image by windows: from a TIFF file without reading the rest of it."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..inputs import Source, frames, pixels_in
from ..memory import available
from .memory import gib

DECODED = 7  # bytes of a pixel while Pillow decodes it and NumPy copies it
KEEP = 256 << 20  # bytes of decoded strips or tiles, since neighbours read them again


class Pixels:
    """An image in memory, (H, W, C)."""

    def __init__(self, array: np.ndarray):
        self.array, self.shape = array, array.shape[:2]

    def window(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """(bottom - top, right - left, C)."""
        return self.array[top:bottom, left:right]


class TiffPixels:
    """The first image of a TIFF file.

    Args:
        read: Turns a window as a PIL image into what the network is fed.

    Raises:
        UserError: It cannot be read by windows; the message says what could be done.
        ValueError: It is damaged; the message says how.
    """

    def __init__(self, path: Path, read: Callable[[Any], np.ndarray]):
        import tifffile

        self.read = read
        try:
            self.file = tifffile.TiffFile(path)
            page = self.page = self.file.pages.first
            self.shape = page.imagelength, page.imagewidth
        except Exception as error:  # a damaged file can raise anything
            raise ValueError(f'is no TIFF ({error})') from None
        if (
            page.dtype not in (np.uint8, np.uint16)
            or page.planarconfig != 1
            or page.imagedepth != 1
            or page.samplesperpixel > 4
            or page.photometric not in (1, 2, 6)  # grey values, RGB, YCbCr
            or page.tags.valueof(274, default=1) != 1  # turned
        ):
            raise UserError('convert it to a tiled TIFF of 8 or 16 bits')
        end = max(
            (a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0
        )
        if end > path.stat().st_size:
            raise ValueError(f'is cut off: {path.stat().st_size} bytes of {end}')
        self.block = (
            (page.tilelength, page.tilewidth)
            if page.is_tiled
            else (min(page.rowsperstrip, self.shape[0]), self.shape[1])
        )
        self.decoded: OrderedDict[int, np.ndarray] = OrderedDict()
        self.mapped = None
        if page.is_memmappable:
            self.mapped = np.memmap(
                path,
                page.dtype.newbyteorder(self.file.byteorder),
                'r',
                page.dataoffsets[0],
                (*self.shape, page.samplesperpixel),
            )
        elif stored := [i for i, count in enumerate(page.databytecounts) if count]:
            self.segment(stored[0])

    def window(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """(bottom - top, right - left, C), as the network is fed.

        ValueError: What is there cannot be read.
        """
        if self.mapped is not None:
            pixels = np.array(self.mapped[top:bottom, left:right])
        else:
            pixels = np.zeros(
                (bottom - top, right - left, self.page.samplesperpixel), self.page.dtype
            )
            height, width = self.block
            across = -(-self.shape[1] // width)
            for row in range(top // height, -(-bottom // height)):
                for column in range(left // width, -(-right // width)):
                    y, x = row * height, column * width
                    block = self.segment(row * across + column)
                    part = block[max(top - y, 0) : bottom - y, max(left - x, 0) : right - x]
                    y, x = max(y - top, 0), max(x - left, 0)
                    target = pixels[y : y + part.shape[0], x : x + part.shape[1]]
                    target[:] = part[: target.shape[0], : target.shape[1]]
        if pixels.dtype != np.uint8:
            pixels = (pixels >> 8).astype(np.uint8)  # as of an image that is read whole
        if pixels.shape[2] == 2:
            pixels = pixels[..., :1]
        return self.read(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))

    def segment(self, index: int) -> np.ndarray:
        """A tile or strip, (H, W, C)."""
        if index in self.decoded:
            self.decoded.move_to_end(index)
            return self.decoded[index]
        offset, count = self.page.dataoffsets[index], self.page.databytecounts[index]
        try:
            self.file.filehandle.seek(offset)
            data = self.file.filehandle.read(count) if count else None
            block = self.page.decode(data, index, jpegtables=self.page.jpegtables)[0]
        except Exception as error:  # a damaged file, or a codec that is not there
            if 'imagecodecs' in str(error):
                raise UserError('pip install imagecodecs, for its compression') from None
            raise ValueError(f'cannot be read: {error}') from None
        if block is None:  # nothing is stored of it
            block = np.zeros((1, *self.block, self.page.samplesperpixel), self.page.dtype)
        self.decoded[index] = block[0]
        while len(self.decoded) > 1 and sum(b.nbytes for b in self.decoded.values()) > KEEP:
            self.decoded.popitem(last=False)
        return block[0]


def images_of(source: Source, predictor: Any) -> Iterator[tuple[str, Any, str]]:
    """Name, pixels and what identifies an image: of a TIFF by windows, else as a whole."""
    way = 'convert it to a tiled TIFF'
    if source.path.suffix.lower() in ('.tif', '.tiff') and not predictor.own_files:
        try:
            pixels = TiffPixels(source.path, predictor.read)
            stat = source.path.stat()
            yield source.name, pixels, f'{source.path.resolve()} {stat.st_size} {stat.st_mtime_ns}'
            return
        except ImportError:
            way = 'pip install tifffile'
        except UserError as error:
            way = str(error)
    needed, room = pixels_in(source.path) * DECODED, available()
    if needed > room:
        raise ValueError(
            f'would need {gib(needed)} of memory to be read whole, {gib(room)} are free: {way}'
        )
    for name, array in frames(source, predictor.read, not predictor.own_files):
        content = hashlib.blake2b(array.tobytes()).hexdigest()
        yield name, Pixels(array), f'{array.shape} {content}'
