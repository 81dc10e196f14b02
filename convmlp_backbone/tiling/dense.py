"""Detectors of one stage, whose boxes are made of maps and of anchors or points."""

from collections.abc import Iterator
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .detectors import TiledDetector

SIZE = 32  # cells of the levels on which it is measured how far a head sees
ALL = 1 << 30  # cells, more than any level has


class TiledDenseDetector(TiledDetector):
    """A detector of one stage: an object belongs to the core that holds its anchor or point.

    Suppression is of the whole image, so that boxes of any size are those of the whole image.
    """

    margin = 0
    across_tiles_only = False

    def __init__(self, predictor: Any, halo: int | None, cells: int):
        super().__init__(predictor, halo)
        self.cells = cells  # see cells_seen

    @torch.no_grad()
    def __call__(self, pixels, tile, shape, original):
        core, window = tile.core, tile.window
        strides = [int(np.atleast_1d(pair)[0]) for pair in self.head.prior_generator.strides]

        def rows(axis, stride):
            """Of a level: what the head has to see of an axis, and of that the core's."""
            first = (core[axis] - window[axis]) // stride
            low = max(first - self.cells, 0)
            if core[axis + 2] == shape[axis]:
                return slice(low, None), slice(first - low, None)
            end = first + core.shape[axis] // stride
            return slice(low, end + self.cells), slice(first - low, end - low)

        cuts = [[rows(axis, stride) for axis in (0, 1)] for stride in strides]
        levels = self.levels(self.data(pixels)['inputs'])
        maps = self.head(
            [level[:, :, y[0], x[0]] for level, (y, x) in zip(levels, cuts, strict=True)]
        )
        maps = [
            [level[:, :, y[1], x[1]] for level, (y, x) in zip(part, cuts, strict=True)]
            for part in maps
        ]
        meta = dict.fromkeys(('img_shape', 'pad_shape', 'batch_input_shape'), shape) | dict(
            ori_shape=original,
            scale_factor=(shape[1] / original[1], shape[0] / original[0]),
        )
        with shifted_priors(self.head.prior_generator, core.left, core.top):
            (found,) = self.head.predict_by_feat(
                *maps, batch_img_metas=[meta], rescale=True, with_nms=False
            )
        found = found.cpu().numpy()
        return dict(boxes=found.bboxes, scores=found.scores, labels=found.labels)


@torch.no_grad()
def cells_seen(model: Any, channels: int) -> int | None:
    """How many cells around its own the head of a detector sees in a level; ``ALL``: all of them.

    What belongs to no core need then be computed by no head, and heads are most of the work.

    Returns:
        None where boxes are not made of the maps and of anchors, or points, that can be elsewhere.
    """
    head: Any = getattr(model, 'bbox_head', None)
    generator = getattr(head, 'prior_generator', None)
    nms = (model.test_cfg or {}).get('nms') or {}
    if (
        not hasattr(generator, 'grid_priors')
        or hasattr(model, 'roi_head')
        or not {'with_nms', 'rescale'} <= set(signature(head.predict_by_feat).parameters)
        or nms.get('type') != 'nms'
    ):
        return None
    images = next(model.parameters()).new_zeros(1, channels, 128, 128)
    levels = [
        level.new_zeros(1, level.shape[1], SIZE, SIZE) for level in model.extract_feat(images)
    ]
    middle, farthest = SIZE // 2, 0
    head.prior_generator = None
    try:
        for i, level in enumerate(levels):
            level[:, :, middle, middle] = torch.nan
            for part in head(levels):
                for j, output in enumerate(part):
                    wrong = output.isnan().any(1)[0].nonzero()
                    if output.shape[2:] != level.shape[2:] or (i != j and len(wrong)):
                        return ALL
                    farthest = max(farthest, *abs(wrong - middle).flatten().tolist(), 0)
            level.zero_()
    except AttributeError:  # it moves boxes by its anchors before it gives them
        return None
    finally:
        head.prior_generator = generator
    return farthest if farthest < middle - 1 else ALL


@contextmanager
def shifted_priors(generator: Any, x: int, y: int) -> Iterator[None]:
    """Inside, anchors or points begin at (x, y)."""
    original = generator.grid_priors

    def grid_priors(*args: Any, **kwargs: Any) -> list[Tensor]:
        shift = [x, y, 0, 0] if kwargs.get('with_stride') else [x, y, x, y]
        priors = original(*args, **kwargs)
        return [level + level.new_tensor(shift[: level.shape[1]]) for level in priors]

    generator.grid_priors = grid_priors
    try:
        yield
    finally:
        del generator.grid_priors
