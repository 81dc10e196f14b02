"""Detectors of MMDetection on tiles, those of two stages above all."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..runtime import pasted
from .networks import Found, TiledNetwork
from .suppress import suppress

REACH = 128  # pixels of a box outside its core that a second stage sees besides
USUAL = 512 * 512  # pixels that limits such as nms_pre are for, unless the config says
LIMITS = ('nms_pre', 'max_per_img')


class TiledDetector(TiledNetwork):
    """A detector of MMDetection: boxes of the whole image, in its own pixels.

    Windows are predicted as images, and an object belongs to the core that holds its centre.
    """

    margin = REACH
    across_tiles_only = True  # within one the model has suppressed

    def __init__(self, predictor: Any, halo: int | None = None):
        model = predictor.model
        self.head: Any = getattr(model, 'rpn_head', None) or getattr(model, 'bbox_head', None)
        if self.head is None or getattr(model, 'mask_head', None) is not None:
            raise UserError(
                f'{type(model).__name__} cannot be tiled; what can: detectors with a bbox_head or '
                'an rpn_head, and masks of boxes'
            )
        super().__init__(predictor, halo)
        masks = getattr(getattr(model, 'roi_head', None), 'mask_head', None)
        self.mask_head = masks[-1] if isinstance(masks, torch.nn.ModuleList) else masks
        cfg = model.test_cfg or {}
        self.cfg = cfg.get('rcnn') or cfg
        self.threshold = (self.cfg.get('nms') or {}).get('iou_threshold', 0.5)

    def maps(self, images: Tensor) -> Any:
        return self.head(self.model.extract_feat(images))

    def fit(self, window: int) -> None:
        """Raise limits, which are meant for images of the usual size, for larger windows."""
        for cfg in self.configs():
            for name in LIMITS:
                if cfg.get(name, 0) > 0:
                    usual = cfg.setdefault(f'{name}_usual', cfg[name])
                    cfg[name] = usual * max(1, math.ceil(window / self.usual()))

    def usual(self) -> float:
        for step in self.predictor.steps:
            if isinstance(scale := step.get('scale'), (tuple, list)) and len(scale) == 2:
                return min(scale[0] * scale[1], 2 * USUAL)
        return USUAL

    def configs(self) -> Iterator[Any]:
        """The parts of ``test_cfg``, each once."""
        seen = set()
        todo = [getattr(module, 'test_cfg', None) for module in self.model.modules()]
        while todo:
            cfg = todo.pop()
            if isinstance(cfg, dict) and id(cfg) not in seen:
                seen.add(id(cfg))
                todo += cfg.values()
                yield cfg

    @torch.no_grad()
    def __call__(self, pixels, tile, shape, original):
        data = self.data(pixels)
        with soft_masks(self.mask_head):
            found = self.model.predict(data['inputs'], data['data_samples'], rescale=False)
        if 'pred_instances' not in found[0]:
            raise UserError(f'{type(self.model).__name__} cannot be tiled: it finds no instances')
        found = found[0].pred_instances.cpu().numpy()
        scale = np.array([original[1] / shape[1], original[0] / shape[0]] * 2)
        boxes = found.bboxes.astype(np.float64) + [tile.window.left, tile.window.top] * 2
        # Half a pixel more: no centre between two cores is lost, and doubles are suppressed.
        x, y = (boxes[:, :2] + boxes[:, 2:]).T / 2
        core = tile.core
        own = (
            ((x >= core.left - 0.5) | (core.left == 0))
            & ((y >= core.top - 0.5) | (core.top == 0))
            & ((x < core.right + 0.5) | (core.right == shape[1]))
            & ((y < core.bottom + 0.5) | (core.bottom == shape[0]))
        )
        result = dict(
            boxes=(boxes[own] * scale).astype(np.float32),
            scores=found.scores[own],
            labels=found.labels[own],
        )
        if 'masks' in found:
            result |= self.encoded(found.masks[own], result['boxes'], original)
        return result

    def encoded(self, masks: np.ndarray, boxes: np.ndarray, original: tuple[int, int]) -> Found:
        """Masks of boxes (n, cells, cells) as run lengths in cut-outs of the image.

        Returns:
            ``cutouts`` (n, 4), top, left, height and width, ``codes``, COCO's run lengths, one
            after the other, and ``lengths`` (n,) of them.
        """
        from pycocotools import mask as coco

        if len(masks) and masks.shape[1:] == tuple(original):
            raise UserError(f'{type(self.model).__name__}: its masks are not of boxes: not tiled')
        cutouts, codes = [], []
        for mask, box in zip(masks, boxes, strict=True):
            top, left, pixels = pasted(mask, box, original, self.cfg['mask_thr_binary'])
            cutouts.append((top, left, *pixels.shape))
            codes.append(coco.encode(np.asfortranarray(pixels, np.uint8))['counts'])
        return dict(
            cutouts=np.array(cutouts, np.int64).reshape(-1, 4),
            codes=np.array(bytearray(b''.join(codes)), np.uint8),
            lengths=np.array([len(code) for code in codes], np.int64),
        )


@contextmanager
def soft_masks(head: Any) -> Iterator[None]:
    """Inside, a mask head gives the probabilities of a box's cells, not pixels of an image."""
    if head is None:
        yield
        return

    def predict(mask_preds, results_list, batch_img_metas, rcnn_test_cfg, activate_map=False, **_):
        for masks, results in zip(mask_preds, results_list, strict=True):
            rows = range(len(results))
            labels = 0 if head.class_agnostic else results.labels
            chosen = torch.as_tensor(masks)[rows, labels].float()
            results.masks = chosen if activate_map else chosen.sigmoid()
        return results_list

    usual, head.predict_by_feat = head.predict_by_feat, predict
    try:
        yield
    finally:
        head.predict_by_feat = usual


def merged(network: TiledDetector, parts: Sequence[Found]) -> Found:
    """What of the cores' boxes remains, the best first; ``places`` tells tile and row of each."""
    boxes, scores, labels = (
        np.concatenate([part[name] for part in parts]) for name in ('boxes', 'scores', 'labels')
    )
    number = np.repeat(np.arange(len(parts)), [len(part['boxes']) for part in parts])
    row = np.concatenate([np.arange(len(part['boxes'])) for part in parts])
    if (network.cfg.get('nms') or {}).get('class_agnostic'):
        groups = np.zeros_like(labels)
    else:
        groups = labels
    apart = number if network.across_tiles_only else None
    kept = suppress(boxes, scores, groups, network.threshold, apart)
    return dict(
        boxes=boxes[kept],
        scores=scores[kept],
        labels=labels[kept],
        places=np.stack([number, row], 1)[kept],
    )
