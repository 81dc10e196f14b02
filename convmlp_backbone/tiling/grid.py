"""Cores, which part an image, and the windows around them that a network has to see."""

from collections.abc import Iterator
from typing import NamedTuple


class Box(NamedTuple):
    """Pixels from ``top`` and ``left`` up to, but without, ``bottom`` and ``right``."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def scaled(self, shape: tuple[int, int], target: tuple[int, int]) -> 'Box':
        """The same part of an image of ``shape`` where it has the size ``target``."""
        height, width = (b / a for a, b in zip(shape, target, strict=True))
        return Box(
            round(self.top * height),
            round(self.left * width),
            round(self.bottom * height),
            round(self.right * width),
        )


class Tile(NamedTuple):
    number: int
    core: Box
    window: Box


def up(value: float, step: int) -> int:
    """``value`` rounded up to a multiple of ``step``."""
    return int(-(-value // step) * step)


def tiles(shape: tuple[int, int], size: int, halo: int, step: int) -> Iterator[Tile]:
    """The tiles of an image, row by row.

    Args:
        shape: Height and width of the image.
        size: Of a core, a multiple of ``step``; those at the lower and right edge are smaller.
        halo: How far windows reach beyond their cores, a multiple of ``step``; not out of the
            image.
        step: The coarsest stride: all windows begin at multiples of it.
    """
    assert size % step == halo % step == 0 and size > 0
    height, width = shape
    number = 0
    for top in range(0, height, size):
        for left in range(0, width, size):
            core = Box(top, left, min(top + size, height), min(left + size, width))
            yield Tile(
                number,
                core,
                Box(
                    max(core.top - halo, 0),
                    max(core.left - halo, 0),
                    min(core.top + size + halo, height),
                    min(core.left + size + halo, width),
                ),
            )
            number += 1
