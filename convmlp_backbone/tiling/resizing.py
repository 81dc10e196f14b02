"""Windows of what is resized as a whole: images as OpenCV, scores as PyTorch does it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..runtime import blend, halve, neighbours

ROWS = 64  # of a score map are resized at a time


class Resized:
    """An image in another size, to the last bit as ``cv2.resize`` makes it of the whole.

    Args:
        source: An image of 8 bits with ``shape`` and ``window``.
        shape: Height and width wanted.
    """

    def __init__(self, source: Any, shape: tuple[int, int]):
        self.source, self.shape = source, shape
        self.half = source.shape == (2 * shape[0], 2 * shape[1])
        self.rows = neighbours(source.shape[0], shape[0], False)
        self.columns = neighbours(source.shape[1], shape[1], True)

    def window(self, top: int, left: int, bottom: int, right: int) -> np.ndarray:
        """(bottom - top, right - left, C)."""
        if self.half:
            return halve(self.source.window(2 * top, 2 * left, 2 * bottom, 2 * right))
        rows, row_weights = (part[:, top:bottom] for part in self.rows)
        columns, column_weights = (part[:, left:right] for part in self.columns)
        low, start = rows.min(), columns.min()
        return blend(
            self.source.window(low, start, rows.max() + 1, columns.max() + 1),
            (rows - low, row_weights),
            (columns - start, column_weights),
        )


def taps(source: int, target: int, first: int, last: int, start: int) -> tuple[Tensor, Tensor]:
    """The two source rows around each target row, (2, last - first), and their weights.

    In the arithmetic of PyTorch's bilinear ``interpolate(size=..., align_corners=False)``.

    Args:
        source, target: Number of rows before and after the resizing.
        first, last: The target rows wanted, without the last.
        start: The source row to count from.
    """
    scale = torch.tensor(source, dtype=torch.float32) / target
    place = torch.arange(first, last, dtype=torch.float32)
    place = (scale * (place + 0.5) - 0.5).clamp(min=0)
    upper = place.floor().long().clamp(max=source - 1)
    part = (place - upper).clamp(0, 1)
    rows = torch.stack([upper, (upper + 1).clamp(max=source - 1)]) - start
    return rows, torch.stack([1 - part, part])


def resized_classes(
    scores: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor], classes: Any
) -> Tensor:
    """The classes of a map (C, h, w) of scores that is resized first.

    Args:
        rows: See :func:`taps`, each (2, H).
        columns: Each (2, W).
        classes: Scores (C, H, W) to classes (H, W).
    """
    (left, right), (a, b) = (part.to(scores.device) for part in columns)
    found = []
    for (upper, lower), (c, d) in zip(
        *(part.to(scores.device).split(ROWS, 1) for part in rows), strict=True
    ):
        above, below = (
            scores[:, y][..., left] * a + scores[:, y][..., right] * b for y in (upper, lower)
        )
        found.append(classes(above * c[:, None] + below * d[:, None]))
    return torch.cat(found)
