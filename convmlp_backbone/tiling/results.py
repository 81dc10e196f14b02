"""What was found in tiles, as files: classes as TIFF, objects as COCO's results and GeoJSON.

All of them are written piece by piece, and no map of a whole image is ever in memory.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import whole_file
from .grid import Box

BLOCK = 256  # pixels of a TIFF tile


def write_classes(
    path: Path,
    shape: tuple[int, int],
    parts: Sequence[Box],
    classes: Callable[[int], np.ndarray],
    palette: Sequence | None,
) -> None:
    """A tiled TIFF in which a pixel's value is the index of its class.

    Args:
        shape: Height and width of the image.
        parts: What of it each core covers, row by row.
        classes: The number of a core to its pixels.
        palette: Red, green and blue of each class, which viewers show.
    """
    try:
        import tifffile
    except ImportError:
        raise UserError(f'{path} is a TIFF, which needs: pip install tifffile') from None
    rows = sorted({(part.top, part.bottom) for part in parts})

    @lru_cache(2)
    def band(row: tuple[int, int]) -> np.ndarray:
        own = [i for i, part in enumerate(parts) if (part.top, part.bottom) == row]
        return np.concatenate([classes(i) for i in own], 1)

    def blocks() -> Iterator[np.ndarray]:
        for top in range(0, shape[0], BLOCK):
            strip = np.concatenate(
                [
                    band(row)[max(top - row[0], 0) : top + BLOCK - row[0]]
                    for row in rows
                    if row[0] < top + BLOCK and top < row[1]
                ]
            )
            for left in range(0, shape[1], BLOCK):
                block = strip[:, left : left + BLOCK]
                yield np.pad(block, [(0, BLOCK - side) for side in block.shape])

    dtype = classes(0).dtype
    colours: dict[str, Any] = {}
    if palette and dtype == np.uint8:
        table = np.zeros((3, 256), np.uint16)
        table[:, : len(palette)] = np.array(palette, np.uint16).T[:, :256] * 257
        colours = dict(photometric='palette', colormap=table)
    with whole_file(path) as file:
        tifffile.imwrite(
            file,
            blocks(),
            shape=shape,
            dtype=dtype,
            tile=(BLOCK, BLOCK),
            compression='zlib',
            bigtiff=shape[0] * shape[1] * dtype.itemsize > 1 << 31,
            metadata=None,
            **colours,
        )


@contextmanager
def json_list(path: Path, before: str = '[', after: str = ']') -> Iterator[Callable[[Any], None]]:
    """A file of JSON, a line an item, to which the items are given one by one."""
    with whole_file(path) as part, open(part, 'w') as file:
        start = before

        def add(item: Any) -> None:
            nonlocal start
            file.write(f'{start}\n{json.dumps(item)}')
            start = ','

        yield add
        file.write(f'{before if start == before else ""}\n{after}\n')


def feature_collection(path: Path) -> AbstractContextManager[Callable[[Any], None]]:
    return json_list(path, '{"type": "FeatureCollection", "features": [', ']}')


def coco_result(
    box: Sequence[float],
    score: float,
    category_id: int,
    category: str,
    name: str,
    image_id: int,
    mask: dict | None = None,
) -> dict:
    """An object in COCO's result format, with names besides.

    Args:
        box: x1, y1, x2, y2; there it is x, y, width, height.
        mask: Run lengths, None without masks.
    """
    x1, y1, x2, y2 = box
    result = dict(
        image_id=image_id,
        category_id=category_id,
        score=score,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        file_name=name,
        category_name=category,
    )
    return result if mask is None else dict(result, segmentation=mask)


def feature(box: np.ndarray, score: float, category: str, rings: Sequence | None) -> dict:
    """An object as GeoJSON in pixels of the image, y downwards, as QuPath reads it.

    Args:
        rings: Polygons of its mask, each a list of rings; None: the box.
    """
    if not rings:
        x1, y1, x2, y2 = box.tolist()
        rings = [[[[x1, y1], [x2, y1], [x2, y2], [x1, y2], [x1, y1]]]]
    return dict(
        type='Feature',
        geometry=dict(type='MultiPolygon', coordinates=rings)
        if len(rings) > 1
        else dict(type='Polygon', coordinates=rings[0]),
        properties=dict(
            objectType='detection', classification=dict(name=category), score=round(score, 4)
        ),
    )


def mask_in_image(
    pixels: np.ndarray, top: int, left: int, shape: tuple[int, int]
) -> dict[str, Any]:
    """COCO's run lengths of a mask in an image of that shape, from its cut-out ``pixels``."""
    from pycocotools import mask as coco

    edges = np.diff(np.pad(pixels.astype(np.int8), ((1, 1), (0, 0))), axis=0).T
    start, end = (
        (column + left) * shape[0] + row + top
        for column, row in (np.nonzero(edges == 1), np.nonzero(edges == -1))
    )
    apart = end[:-1] != start[1:]  # where a column is full, the next goes on
    start = start[np.append(True, apart)[: len(start)]]
    end = end[np.append(apart, True)[: len(end)]]
    places = np.concatenate([[0], np.stack([start, end], 1).flatten(), [shape[0] * shape[1]]])
    counts = np.diff(places).tolist()
    counts = counts if counts[-1] else counts[:-1]
    code = coco.frPyObjects(dict(size=list(shape), counts=counts), *shape)
    return dict(size=list(shape), counts=code['counts'].decode())


def polygons(pixels: np.ndarray, top: int, left: int) -> list[list[list[list[float]]]]:
    """The outlines of a mask: polygons of rings, the first one outside, the others holes."""
    import cv2

    contours, tree = cv2.findContours(
        pixels.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE
    )
    rings = [contour[:, 0] + (left + 0.5, top + 0.5) for contour in contours]
    found: dict[int, list] = {}
    for i, ring in enumerate(rings):
        outer = tree[0][i][3]
        if len(ring) > 2:
            closed = np.concatenate([ring, ring[:1]]).tolist()
            if outer < 0:
                found.setdefault(i, []).insert(0, closed)
            elif len(rings[outer]) > 2:
                found.setdefault(outer, []).append(closed)
    return list(found.values())
