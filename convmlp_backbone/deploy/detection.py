"""From a head's maps to detections, for whole batches, in operators that every runtime has.

The same arithmetic as MMDetection's ``predict``, image by image; what it leaves out there is
padding here, so that only the boxes that NMS looks at, and regions that are pooled, vary in number.
"""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor
from torchvision.ops import nms, roi_align


def best_scores(logits: Tensor, number: int) -> tuple[Tensor, Tensor, Tensor]:
    """The ``number`` largest of every image, over all anchors and classes.

    Args:
        logits: (N, anchors, classes).
        number: More than there are is padded with -inf.

    Returns:
        Logits, anchors and classes, each (N, number), the largest first.
    """
    anchors, classes = logits.shape[1:]
    # No more than ``number`` anchors hold them: those whose own largest is among the largest.
    largest = torch.cat([logits.amax(2), logits.new_full((logits.shape[0], number), -torch.inf)], 1)
    values, index = largest.topk(number, 1)
    padding, index = index >= anchors, index.clamp(max=anchors - 1)
    if classes == 1:
        return values, index, torch.zeros_like(index)
    logits = logits.gather(1, index[..., None].expand(-1, -1, classes))
    logits = logits.masked_fill(padding[..., None], -torch.inf)
    values, best = logits.flatten(1).topk(number, 1)
    return values, index.gather(1, best // classes), best % classes


def decode(
    head: BaseModule, scores: list[Tensor], deltas: list[Tensor], size: tuple, number: int
) -> tuple[Tensor, ...]:
    """The best boxes of every level of an anchor head.

    Args:
        head: An ``AnchorHead`` of MMDetection.
        scores: Its maps of logits, (N, anchors * classes, h, w) for every level.
        deltas: Its maps of boxes, (N, anchors * 4, h, w).
        size: Height and width of the image, to which boxes are cut.
        number: How many of a level.

    Returns:
        tuple[Tensor]: Boxes (N, K, 4), logits, labels and levels, each (N, K).
    """
    levels = []
    for i, (score, delta) in enumerate(zip(scores, deltas, strict=True)):
        width = score.shape[3]
        score = score.permute(0, 2, 3, 1).reshape(score.shape[0], -1, head.cls_out_channels)
        delta = delta.permute(0, 2, 3, 1).reshape(delta.shape[0], -1, 4)
        score, index, labels = best_scores(score, number)
        delta = delta.gather(1, index[..., None].expand(-1, -1, 4))
        boxes = head.bbox_coder.decode(
            anchors(head.prior_generator, i, index.flatten(), width),
            delta.flatten(0, 1),
            max_shape=size,
        )
        levels.append((boxes.view(-1, number, 4), score, labels, torch.full_like(labels, i)))
    return tuple(torch.cat(parts, 1) for parts in zip(*levels, strict=True))


def anchors(generator: Any, level: int, index: Tensor, width: int) -> Tensor:
    """The anchors (K, 4) of number ``index`` on a level's map that is ``width`` wide."""
    base = generator.base_anchors[level]
    cell = index // base.shape[0]
    row = cell // width
    x, y = (
        value * stride
        for value, stride in zip((cell - row * width, row), generator.strides[level], strict=True)
    )
    return base[index % base.shape[0]] + torch.stack([x, y, x, y], 1)


def large_enough(boxes: Tensor, cfg: ConfigDict) -> Tensor:
    """Which boxes (..., 4) are longer and wider than the config's ``min_bbox_size``."""
    smallest = cfg.get('min_bbox_size', -1)
    return (
        ((boxes[..., 2:] - boxes[..., :2]) > smallest).all(-1)
        if smallest >= 0
        else torch.ones_like(boxes[..., 0], dtype=torch.bool)
    )


def best_boxes(
    boxes: Tensor, scores: Tensor, groups: Tensor, valid: Tensor, cfg: ConfigDict, limit: int
) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression inside every group of every image.

    Args:
        boxes: (N, K, 4).
        scores: (N, K), from 0 to 1.
        groups: (N, K), such as labels; boxes of different groups leave each other alone.
        valid: (N, K), the boxes to look at.
        cfg: MMDetection's ``nms``.
        limit: How many to keep of an image.

    Returns:
        tuple[Tensor]: Index into K (N, limit), the best first, and which of them are none but
        padding (N, limit).
    """
    if cfg.get('class_agnostic'):
        groups = torch.zeros_like(groups)
    # One suppression for all: MMCV moves the groups apart, which costs the last digits of large
    # groups' boxes, so the same must be lost here; images lie below one another.
    largest = boxes.masked_fill(~valid[..., None], 0).flatten(1).amax(1)[:, None, None] + 1
    shift = groups[..., None] * largest
    rows = torch.arange(boxes.shape[0], device=boxes.device)[:, None, None] * largest.max()
    vertical = boxes.new_tensor([0.0, 1.0, 0.0, 1.0])
    apart = boxes + shift - shift * vertical + rows * vertical
    # PyTorch takes it that two boxes or more are kept, so two stand far from all others.
    number = scores.numel()
    apart = torch.cat([apart.flatten(0, 1), boxes.new_tensor([[-2, -2, -1, -1], [-4, -4, -3, -3]])])
    flat = torch.cat([scores.flatten(), scores.new_zeros(2)])
    valid = torch.cat([valid.flatten(), valid.new_ones(2)])
    candidates = valid.nonzero().squeeze(1)
    kept = candidates[nms(apart[candidates], flat[candidates], cfg['iou_threshold'])]
    scores = torch.full_like(flat, -1).index_put((kept,), flat[kept])[:number].view_as(scores)
    scores, index = scores.topk(min(limit, scores.shape[1]), 1)
    return index, scores < 0


def pool(extractor: BaseModule, levels: Sequence[Tensor], boxes: Tensor, images: Tensor) -> Tensor:
    """Every region from the level of its size: MMDetection's ``SingleRoIExtractor``.

    Args:
        levels: (N, C, h, w) each.
        boxes: (M, 4) in pixels of the image.
        images: (M,), the index of each box's image.

    Returns:
        (M, C, height, width) of the extractor's layers.
    """
    regions = torch.cat([images[:, None].to(boxes.dtype), boxes], 1)
    of_level = extractor.map_roi_levels(regions, len(extractor.roi_layers))
    layer = extractor.roi_layers[0]
    pooled = boxes.new_zeros((boxes.shape[0], levels[0].shape[1], *layer.output_size))
    for i, layer in enumerate(extractor.roi_layers):
        index = (of_level == i).nonzero().squeeze(1)
        pooled = pooled.index_put(
            (index,),
            roi_align(
                levels[i],
                regions[index],
                layer.output_size,
                layer.spatial_scale,
                layer.sampling_ratio,
                layer.aligned,
            ),
        )
    return pooled
