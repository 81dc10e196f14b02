"""A toolbox's model on a window of an image, and what of its prediction belongs to the core."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import signature
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..deploy.models import swapped
from ..errors import UserError
from ..runtime import pasted
from .grid import Tile, up
from .reach import Reach, reach_of
from .resizing import resized_classes, taps
from .suppress import suppress

UNKNOWN = 256  # pixels of halo where a network sees the whole image
REACH = 128  # pixels of a box outside its core that a second stage sees besides
USUAL = 512 * 512  # pixels that limits such as nms_pre are for, unless the config says
LIMITS = ('nms_pre', 'max_per_img')

Found = dict[str, np.ndarray]  # of a tile, as it is kept on the disk


class TiledNetwork:
    """What all tasks have in common.

    Args:
        predictor: A :class:`~convmlp_backbone.predictors.CheckpointPredictor`, not fused yet.
        halo: How far windows reach beyond their cores, in pixels; None: as far as the model sees.

    Attributes:
        step, halo: See :func:`convmlp_backbone.tiling.grid.tiles`.
        warnings: Why the result may differ from the whole image's, a line each.
    """

    margin = 0  # pixels that are wanted besides what the network sees

    def __init__(self, predictor: Any, halo: int | None = None):
        self.predictor, self.model = predictor, predictor.model
        self.warnings: list[str] = []
        preprocessor = self.model.data_preprocessor
        test_cfg = getattr(preprocessor, 'test_cfg', None) or {}
        if test_cfg.get('size'):
            raise UserError(
                f'data_preprocessor.test_cfg.size={test_cfg["size"]}: --tile needs size_divisor'
            )
        divisor = test_cfg.get('size_divisor') or getattr(preprocessor, 'pad_size_divisor', 1) or 1
        strides = getattr(self.model.backbone, 'out_strides', (32,))
        reach = self.measured(self.maps, [32, divisor, *strides])
        if reach.halo is None:
            self.warnings.append(
                f'{reach.culprit} sees the whole image, and with --tile a tile: '
                "results differ from the whole image's"
            )
            reach = reach._replace(halo=self.measured(self.levels, [reach.step]).halo or UNKNOWN)
        if any('Deform' in type(module).__name__ for module in self.model.modules()):
            self.warnings.append(
                "deformable convolutions may see farther than --tile's halo: "
                "results can differ from the whole image's"
            )
        self.step = reach.step
        self.halo = up((reach.halo or 0) + self.margin, self.step)
        if halo is not None:
            if halo < self.halo:
                self.warnings.append(
                    f'--halo {halo}: the network sees {self.halo} pixels, results differ '
                    "from the whole image's"
                )
            self.halo = up(halo, self.step)

    def measured(self, maps: Callable, steps: Sequence[int]) -> Reach:
        return reach_of(self.model, maps, self.predictor.channels, steps)

    def levels(self, images: Tensor) -> Any:
        return self.model.extract_feat(images)

    def maps(self, images: Tensor) -> Any:
        """What pixels of the result depend on."""
        raise NotImplementedError

    def fit(self, window: int) -> None:
        """Prepare for windows of that many pixels."""

    def __call__(
        self, pixels: np.ndarray, tile: Tile, shape: tuple[int, int], original: tuple[int, int]
    ) -> Found:
        """What belongs to a core.

        Args:
            pixels: Of the window, as the predictor reads them.
            tile: In pixels of the resized image.
            shape: Height and width of the resized image.
            original: Height and width of the image.
        """
        raise NotImplementedError

    def data(self, pixels: np.ndarray, **meta: Any) -> dict:
        """The window as the model is fed."""
        if not self.predictor.own_files:
            pixels = pixels[..., swapped(self.predictor.channels)]
        size = pixels.shape[:2]
        inputs = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
        sample = self.predictor.sample(
            metainfo=dict(img_shape=size, ori_shape=size, scale_factor=(1.0, 1.0), **meta)
        )
        return self.model.data_preprocessor(dict(inputs=[inputs], data_samples=[sample]), False)


class TiledSegmentor(TiledNetwork):
    """A segmentor of MMSegmentation: the class of every pixel."""

    margin = 2  # for resizing the scores to the image's own size

    def __init__(self, predictor: Any, halo: int | None = None):
        model, head = predictor.model, getattr(predictor.model, 'decode_head', None)
        if not hasattr(model, 'encode_decode') or head is None:
            raise UserError(f'{type(model).__name__} cannot be tiled; what can: EncoderDecoder')
        mode = model.test_cfg.get('mode', 'whole')
        if mode != 'whole':
            raise UserError(f"test_cfg.mode={mode!r}: --tile is for 'whole', and takes its place")
        super().__init__(predictor, halo)
        if any(getattr(module, 'align_corners', False) for module in model.modules()):
            self.warnings.append(
                'align_corners=True places pixels by the size of the whole image: '
                "results differ from the whole image's"
            )
        test_cfg = getattr(model.data_preprocessor, 'test_cfg', None) or {}
        self.divisor = test_cfg.get('size_divisor') or 1
        if self.divisor % 32:
            self.warnings.append(
                f'data_preprocessor.test_cfg.size_divisor={self.divisor}: results differ from the '
                "whole image's where its sides are no multiples of 32"
            )

    def maps(self, images: Tensor) -> Tensor:
        size = tuple(images.shape[2:])
        return self.model.encode_decode(
            images, [dict(img_shape=size, pad_shape=size, ori_shape=size)]
        )

    def classes(self, scores: Tensor) -> Tensor:
        """Scores (C, H, W) to classes (H, W), as ``postprocess_result`` does."""
        found = (
            scores.argmax(0)
            if len(scores) > 1
            else scores[0].sigmoid() > self.model.decode_head.threshold
        )
        return found.to(torch.uint8 if self.model.decode_head.num_classes <= 256 else torch.int16)

    @torch.no_grad()
    def __call__(self, pixels, tile, shape, original):
        data = self.data(pixels)
        metas = [sample.metainfo for sample in data['data_samples']]
        scores = self.model.encode_decode(data['inputs'], metas)[0]
        core, window = tile.core, tile.window
        if shape == original:
            top, left = core.top - window.top, core.left - window.left
            height, width = core.shape
            found = self.classes(scores[:, top : top + height, left : left + width])
        else:
            own = part(core, shape, original)
            rows, columns = (
                taps(shape[i], original[i], own[i], own[i + 2], window[i]) for i in (0, 1)
            )
            found = resized_classes(scores, rows, columns, self.classes)
        return dict(classes=found.cpu().numpy())


def part(core: Any, shape: tuple[int, int], original: tuple[int, int]) -> Any:
    """The pixels of the original image that a core of the resized one stands for."""
    height, width = (b / a for a, b in zip(shape, original, strict=True))
    return type(core)(
        round(core.top * height),
        round(core.left * width),
        round(core.bottom * height),
        round(core.right * width),
    )


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
            chosen = torch.as_tensor(masks)[rows, labels]
            results.masks = chosen if activate_map else chosen.sigmoid()
        return results_list

    head.predict_by_feat = predict
    try:
        yield
    finally:
        del head.predict_by_feat


class TiledDenseDetector(TiledDetector):
    """A detector of one stage: an object belongs to the core that holds its anchor or point.

    Suppression is of the whole image, so that boxes of any size are those of the whole image.
    """

    margin = 0
    across_tiles_only = False

    @staticmethod
    def takes(model: Any) -> bool:
        """Whether a model's head makes boxes of maps and of anchors that can be elsewhere."""
        head = getattr(model, 'bbox_head', None)
        cfg = model.test_cfg or {}
        nms = cfg.get('nms') or {}
        return (
            head is not None
            and not hasattr(model, 'roi_head')
            and hasattr(getattr(head, 'prior_generator', None), 'grid_priors')
            and {'with_nms', 'rescale'} <= set(signature(head.predict_by_feat).parameters)
            and nms.get('type') == 'nms'
            and not head_reads_priors(model, head)
        )

    def __init__(self, predictor: Any, halo: int | None = None):
        super().__init__(predictor, halo)
        self.cells = cells_seen(self.model, self.head, predictor.channels)

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
        factor = shape[1] / original[1], shape[0] / original[0]
        meta = dict(
            img_shape=shape,
            ori_shape=original,
            pad_shape=shape,
            batch_input_shape=shape,
            scale_factor=factor,
        )
        with shifted_priors(self.head, core.left, core.top):
            found = (
                self.head.predict_by_feat(
                    *maps, batch_img_metas=[meta], rescale=True, with_nms=False
                )[0]
                .cpu()
                .numpy()
            )
        return dict(boxes=found.bboxes, scores=found.scores, labels=found.labels)


@torch.no_grad()
def cells_seen(model: Any, head: Any, channels: int) -> int:
    """How many cells around its own a head sees in a level; more than any has where it sees all.

    What is computed for no core need then be computed by no head, which is most of the work.
    """
    size, all_ = 32, 1 << 30
    levels = model.extract_feat(next(model.parameters()).new_zeros(1, channels, 128, 128))
    levels = [level.new_zeros(1, level.shape[1], size, size) for level in levels]
    farthest = 0
    for i, level in enumerate(levels):
        level[:, :, size // 2, size // 2] = torch.nan
        for part in head(levels):
            for j, output in enumerate(part):
                wrong = output.isnan().any(1)[0].nonzero()
                if output.shape[2:] != level.shape[2:] or (i != j and len(wrong)):
                    return all_
                farthest = max(farthest, int(abs(wrong - size // 2).max()) if i == j else 0)
        level.zero_()
    return farthest if farthest < size // 2 - 1 else all_


def head_reads_priors(model: Any, head: Any) -> bool:
    """Whether a head needs its anchors before its maps become boxes."""

    class Asked(Exception):
        pass

    class Alarm:
        def __getattr__(self, name):
            if name.endswith('priors') and name != 'num_base_priors':
                raise Asked
            return getattr(generator, name)

    generator, head.prior_generator = head.prior_generator, Alarm()
    parameter = next(model.parameters())
    try:
        with torch.no_grad():
            head(model.extract_feat(parameter.new_zeros(1, model.backbone.in_channels, 128, 128)))
    except Asked:
        return True
    finally:
        head.prior_generator = generator
    return False


class Shifted:
    """A generator of anchors or points, of which those at the first cell are at (x, y)."""

    def __init__(self, generator: Any, x: int, y: int):
        self.generator, self.x, self.y = generator, x, y

    def __getattr__(self, name: str) -> Any:
        return getattr(self.generator, name)

    def grid_priors(self, *args: Any, with_stride: bool = False, **kwargs: Any) -> list[Tensor]:
        if with_stride:
            kwargs['with_stride'] = True
        shift = [self.x, self.y] + ([0, 0] if with_stride else [self.x, self.y])
        priors = self.generator.grid_priors(*args, **kwargs)
        return [level + level.new_tensor(shift[: level.shape[1]]) for level in priors]


@contextmanager
def shifted_priors(head: Any, x: int, y: int) -> Iterator[None]:
    generator, head.prior_generator = head.prior_generator, Shifted(head.prior_generator, x, y)
    try:
        yield
    finally:
        head.prior_generator = generator


def tiled(predictor: Any, halo: int | None = None) -> TiledNetwork:
    """The model of ``predictor``, to be run on tiles.

    Raises:
        UserError: It cannot be.
    """
    if predictor.scope == 'mmpretrain':
        raise UserError('--tile: a classifier tells one class of a whole image, and is not tiled')
    if predictor.scope == 'mmseg':
        return TiledSegmentor(predictor, halo)
    if TiledDenseDetector.takes(predictor.model):
        return TiledDenseDetector(predictor, halo)
    return TiledDetector(predictor, halo)


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
