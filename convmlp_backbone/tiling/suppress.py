"""Non-maximum suppression of as many boxes as there are, since time grows with their density."""

import numpy as np
import torch
from torchvision.ops import box_iou

CELLS = 64, 512  # pixels: the smallest and the largest
ROWS = 2048  # of a cell's boxes are compared at a time


def suppress(
    boxes: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float,
    tiles: np.ndarray | None = None,
) -> np.ndarray:
    """The boxes that greedy suppression keeps, class by class, the best first.

    Args:
        boxes: (N, 4), x1, y1, x2, y2.
        scores: (N,); of equal ones the first wins.
        labels: (N,).
        threshold: A box falls where its intersection over union with a kept one is larger.
        tiles: (N,); boxes of the same tile leave each other alone.

    Returns:
        Their indices, (K,).
    """
    order = np.argsort(-scores, kind='stable')
    better, worse = overlaps(boxes[order], labels[order], threshold)
    if tiles is not None:
        apart = tiles[order][better] != tiles[order][worse]
        better, worse = better[apart], worse[apart]
    open_, kept = np.ones(len(order), bool), np.zeros(len(order), bool)
    while open_.any():
        free = open_.copy()
        free[worse] = False  # that no better one may still remove
        kept |= free
        open_ &= ~free
        open_[worse[free[better]]] = False
        left = open_[better] & open_[worse]
        better, worse = better[left], worse[left]
    return order[kept]


def overlaps(
    boxes: np.ndarray, labels: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of boxes of a class that overlap by more: the first's and the second's indices.

    Only boxes that touch the same cell of a grid are compared. The cells are some boxes wide, so
    that few are compared in vain, and few lie in many cells.
    """
    cell = float(np.clip(4 * np.median(boxes[:, 2:] - boxes[:, :2]), *CELLS)) if len(boxes) else 1
    low = (boxes[:, :2] // cell).astype(np.int64)
    count = (boxes[:, 2:] // cell).astype(np.int64) - low + 1
    times = count.prod(1)
    index = np.repeat(np.arange(len(boxes)), times)
    place = np.arange(len(index)) - np.repeat(times.cumsum() - times, times)
    across = count[index, 0]
    cells = np.stack(
        [labels[index], low[index, 1] + place // across, low[index, 0] + place % across], 1
    )
    order = np.lexsort((index, *cells.T))
    index, cells = index[order], cells[order]
    starts = np.flatnonzero((np.diff(cells, axis=0, prepend=cells[:1] - 1) != 0).any(1))
    pairs = []
    for group in np.split(index, starts[1:]):
        own = torch.from_numpy(boxes[group])
        for start in range(0, len(group), ROWS):
            rows = own[start : start + ROWS]
            over = (box_iou(rows, own[start:]) > threshold).triu(1)
            pairs.append(group[over.nonzero().numpy() + start].astype(np.int32))
    found = np.concatenate([np.zeros((0, 2), np.int32), *pairs])
    return found[:, 0], found[:, 1]
