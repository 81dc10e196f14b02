"""The toolboxes' models as modules from a batch of images to tensors, as they are exported."""

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel, BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import UserError
from .detection import best_boxes, decode, large_enough, pool


class Exportable(nn.Module):
    """A whole model: images to the tensors named in ``outputs``.

    Images are (N, height, width, 3), RGB, of type uint8 and of any size; or, if ``normalised``,
    (N, 3, height, width) floats as the model's data preprocessor makes them, but not padded. A
    model of other channels takes as many: grey values, RGBA, or what its pipeline loads.

    Args:
        model: A model of a toolbox, in evaluation mode.
        preprocessor: The config of its data preprocessor.
        normalised: What images are.
    """

    task: str
    outputs: tuple[str, ...]
    backbone: Any
    cfg: Any

    def __init__(self, model: nn.Module, preprocessor: dict, normalised: bool = False):
        super().__init__()
        self.normalised = normalised
        backbone: Any = getattr(model, 'backbone', model)
        self.channels: int = getattr(backbone, 'in_channels', 3)  # of a ResNet, see wrapped()
        self.mean = list(preprocessor.get('mean') or [0.0])
        self.std = list(preprocessor.get('std') or [1.0])
        if len(self.mean) == len(self.std) == 1:
            self.mean, self.std = self.mean * self.channels, self.std * self.channels
        self.rgb = any(preprocessor.get(key) for key in ('bgr_to_rgb', 'rgb_to_bgr', 'to_rgb'))
        self.divisor = preprocessor.get('pad_size_divisor', 1)
        self.padding = preprocessor.get('pad_value', 0)

    def prepare(self, images: Tensor) -> Tensor:
        """Normalised, and padded below and on the right."""
        if not self.normalised:
            images = images.permute(0, 3, 1, 2).float()
            if not self.rgb:
                images = images[:, swapped(self.channels)]
            images = (images - images.new_tensor(self.mean).view(-1, 1, 1)) / images.new_tensor(
                self.std
            ).view(-1, 1, 1)
        height, width = images.shape[2:]
        return F.pad(
            images, (0, -width % self.divisor, 0, -height % self.divisor), value=self.padding
        )

    def size(self, images: Tensor) -> tuple:
        """Height and width, without padding."""
        return images.shape[2:] if self.normalised else images.shape[1:3]


def swapped(channels: int) -> list[int]:
    """The channels of RGB or RGBA as those of BGR or BGRA, and back; of others, as they are."""
    return [2, 1, 0, 3][:channels] if channels in (3, 4) else list(range(channels))


class Backbone(Exportable):
    """The levels of a backbone."""

    task = 'backbone'

    def __init__(self, model: BaseModule, preprocessor: dict, normalised: bool = True):
        super().__init__(model, preprocessor, normalised)
        self.backbone = model
        self.outputs = tuple(f'F{i + 1}' for i in model.out_indices)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(self.prepare(images)))


class Classifier(Exportable):
    """Probabilities (N, classes), of each class by itself where an image can have several."""

    task, outputs = 'classification', ('scores',)

    def __init__(self, model: BaseModel, *args: Any):
        super().__init__(model, *args)
        self.backbone, self.neck, self.head = (
            model.backbone,
            getattr(model, 'neck', None),
            model.head,
        )
        bases = {base.__name__ for base in type(model.head).__mro__}
        self.several = 'MultiLabelClsHead' in bases  # of MMPretrain, which need not be there

    def forward(self, images: Tensor) -> Tensor:
        features = self.backbone(self.prepare(images))
        if self.neck is not None:
            features = self.neck(features)
        scores = self.head(features)
        return scores.sigmoid() if self.several else scores.softmax(1)


class Segmentor(Exportable):
    """The class of every pixel (N, *size): an ``EncoderDecoder`` of MMSegmentation.

    ``size`` is the height and width wanted, an int64 tensor: that of the image before it was
    resized, so that scores, not classes, are resized.
    """

    task, outputs = 'segmentation', ('labels',)

    def __init__(self, model: BaseModel, preprocessor: dict, normalised: bool = False):
        test_cfg = preprocessor.get('test_cfg') or {}
        super().__init__(
            model,
            dict(
                preprocessor,
                pad_size_divisor=test_cfg.get('size_divisor') or 1,
                pad_value=preprocessor.get('pad_val', 0),
            ),
            normalised,
        )
        require(
            test_cfg.get('size') is None,
            'data_preprocessor.test_cfg.size',
            test_cfg.get('size'),
            'None',
        )
        mode = model.test_cfg.get('mode', 'whole')
        require(mode == 'whole', 'test_cfg.mode', mode, "'whole'")
        require(hasattr(model.decode_head, 'out_channels'), 'decode_head', 'a cascade', 'one head')
        require(model.decode_head.out_channels > 1, 'decode_head.out_channels', 1, '2 or more')
        self.backbone, self.head = model.backbone, model.decode_head
        self.neck = getattr(model, 'neck', None)
        for module in self.head.modules():
            for name, child in module.named_children():
                if type(child).__name__ == 'Upsample':
                    # MMSegmentation's turns the size into an int, the same for all images.
                    setattr(
                        module,
                        name,
                        nn.Upsample(
                            scale_factor=child.scale_factor,
                            mode=child.mode,
                            align_corners=child.align_corners,
                        ),
                    )

    def forward(self, images: Tensor, size: Tensor) -> Tensor:
        height, width = self.size(images)
        images = self.prepare(images)
        levels = self.backbone(images)
        if self.neck is not None:
            levels = self.neck(levels)
        scores = self.resize(self.head(levels), images.shape[2:])
        scores = self.resize(scores[..., :height, :width], size.tolist())
        return scores.argmax(1).to(torch.uint8 if scores.shape[1] <= 256 else torch.int64)

    def resize(self, scores: Tensor, size: Sequence[int]) -> Tensor:
        return F.interpolate(
            scores, size=size, mode='bilinear', align_corners=self.head.align_corners
        )


class Detector(Exportable):
    """What detectors have in common: the best boxes of an anchor head."""

    def __init__(self, model: BaseModel, *args: Any):
        super().__init__(model, *args)
        self.backbone, self.neck = model.backbone, getattr(model, 'neck', None)

    def levels(self, images: Tensor) -> Sequence[Tensor]:
        """What the heads read."""
        levels = self.backbone(self.prepare(images))
        return levels if self.neck is None else self.neck(levels)

    def candidates(
        self, head: BaseModule, cfg: ConfigDict, levels: Sequence[Tensor], size: tuple[int, int]
    ) -> tuple[Tensor, ...]:
        """Boxes, probabilities, labels, levels and which are valid, (N, K) each."""
        scores, deltas = head(levels)
        boxes, scores, labels, level = decode(head, scores, deltas, size, cfg['nms_pre'])
        valid = (scores > -torch.inf) & large_enough(boxes, cfg)
        return boxes, scores.sigmoid(), labels, level, valid

    def detections(
        self, boxes: Tensor, scores: Tensor, labels: Tensor, valid: Tensor, cfg: ConfigDict
    ) -> tuple[Tensor, ...]:
        """Boxes (N, L, 4), scores and labels (N, L), counts (N,), with zeros behind the last."""
        index, none = best_boxes(boxes, scores, labels, valid, cfg['nms'], cfg['max_per_img'])
        boxes = boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return (
            boxes.masked_fill(none[..., None], 0),
            scores.gather(1, index).masked_fill(none, 0),
            labels.gather(1, index).masked_fill(none, 0),
            (~none).sum(1),
        )


def require(fits: bool, name: str, value: object, valid: str) -> None:
    if not fits:
        raise UserError(f'{name}={value!r} cannot be exported; what can: {valid}')


def require_exportable_head(head: BaseModule, cfg: ConfigDict, name: str) -> None:
    """Raise unless ``head`` and its ``test_cfg`` are of the kind that :mod:`detection` knows."""
    require(head.use_sigmoid_cls, f'{name}.loss_cls.use_sigmoid', False, 'True')
    require(cfg.get('nms_pre', -1) > 0, f'{name}.nms_pre', cfg.get('nms_pre'), 'a positive number')
    require_nms(cfg, name)


def require_nms(cfg: ConfigDict, name: str) -> None:
    kind = (cfg.get('nms') or {}).get('type')
    require(kind == 'nms', f'{name}.nms.type', kind, "'nms'")
    require(
        cfg.get('max_per_img', -1) > 0,
        f'{name}.max_per_img',
        cfg.get('max_per_img'),
        'a positive number',
    )


class SingleStage(Detector):
    """RetinaNet and its like: boxes in pixels of the image, scores, labels, counts."""

    task, outputs = 'detection', ('boxes', 'scores', 'labels', 'counts')

    def __init__(self, model: BaseModel, *args: Any):
        super().__init__(model, *args)
        self.head, self.cfg = model.bbox_head, model.test_cfg
        require_exportable_head(self.head, self.cfg, 'test_cfg')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        levels = self.levels(images)
        boxes, scores, labels, _, valid = self.candidates(
            self.head, self.cfg, levels, self.size(images)
        )
        valid &= scores > self.cfg.get('score_thr', 0)
        return self.detections(boxes, scores, labels, valid, self.cfg)


class TwoStage(Detector):
    """Mask R-CNN: as :class:`SingleStage`, and masks (N, L, 28, 28), probabilities in the box.

    Without a mask head, Faster R-CNN: no masks.
    """

    task = 'detection'

    def __init__(self, model: BaseModel, *args: Any):
        super().__init__(model, *args)
        self.rpn, self.roi = model.rpn_head, model.roi_head
        self.cfg = model.test_cfg
        self.outputs = SingleStage.outputs
        kind = type(self.roi.bbox_head).__name__
        fits = hasattr(self.roi.bbox_head, 'fc_reg')
        require(fits, 'roi_head.bbox_head', kind, 'one with a layer fc_reg')
        if self.roi.with_mask:
            self.task, self.outputs = 'instances', (*self.outputs, 'masks')
        require_exportable_head(self.rpn, self.cfg['rpn'], 'test_cfg.rpn')
        require_nms(self.cfg['rcnn'], 'test_cfg.rcnn')

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        size = self.size(images)
        levels = self.levels(images)
        boxes, scores, _, level, valid = self.candidates(self.rpn, self.cfg['rpn'], levels, size)
        index, none = best_boxes(
            boxes, scores, level, valid, self.cfg['rpn']['nms'], self.cfg['rpn']['max_per_img']
        )
        proposals = boxes.gather(1, index[..., None].expand(-1, -1, 4))

        images, places = (~none).nonzero().unbind(1)
        parts = self.roi.bbox_head(
            pool(self.roi.bbox_roi_extractor, levels, proposals[images, places], images)
        )
        # As many of every image again: zeros where there was no proposal.
        scores, deltas = (
            part.new_zeros((*none.shape, part.shape[1])).index_put((images, places), part)
            for part in (parts[0].softmax(1)[:, :-1], parts[1])
        )
        classes = scores.shape[2]
        if self.roi.bbox_head.reg_class_agnostic:
            deltas = deltas.repeat(1, 1, classes)
        boxes = self.roi.bbox_head.bbox_coder.decode(
            proposals.flatten(0, 1).repeat_interleave(classes, 0),
            deltas.view(-1, 4),
            max_shape=size,
        ).view(-1, scores.shape[1] * classes, 4)
        scores = scores.flatten(1)
        labels = torch.arange(classes, device=boxes.device).repeat(none.shape[1])
        found = self.detections(
            boxes,
            scores,
            labels.expand_as(scores),
            scores > self.cfg['rcnn'].get('score_thr', 0),
            self.cfg['rcnn'],
        )
        return (*found, self.masks(levels, *found)) if self.roi.with_mask else found

    def masks(
        self,
        levels: Sequence[Tensor],
        boxes: Tensor,
        scores: Tensor,
        labels: Tensor,
        counts: Tensor,
    ) -> Tensor:
        images, places = (torch.arange(boxes.shape[1]) < counts[:, None]).nonzero().unbind(1)
        masks = self.roi.mask_head(
            pool(self.roi.mask_roi_extractor, levels, boxes[images, places], images)
        )
        labels = labels[images, places]
        if masks.shape[1] > 1:
            masks = masks.gather(1, labels[:, None, None, None].expand(-1, 1, *masks.shape[2:]))
        return boxes.new_zeros((*scores.shape, *masks.shape[2:])).index_put(
            (images, places), masks.squeeze(1).sigmoid()
        )


def exportable(model: nn.Module, preprocessor: dict, normalised: bool = False) -> Exportable:
    """What of this module exports ``model``, a toolbox's or a backbone.

    Raises:
        UserError: None can.
    """
    backbone: Any = getattr(model, 'backbone', model)
    if not hasattr(backbone, 'fuse'):
        raise UserError(f'{type(model).__name__} has no ConvMLP to export')
    backbone.fuse()
    return wrapped(model, preprocessor, normalised)


def wrapped(model: nn.Module, preprocessor: dict, normalised: bool = False) -> Exportable:
    """:func:`exportable` with any backbone, for comparisons."""
    if model is getattr(model, 'backbone', model):
        return Backbone(model, preprocessor, normalised).eval()
    heads = {
        name: type(getattr(model, name)).__name__
        for name in ('bbox_head', 'roi_head', 'rpn_head', 'decode_head', 'head')
        if getattr(model, name, None)
    }
    kinds: dict[tuple[str, ...], type[Exportable]] = {
        ('RetinaHead',): SingleStage,
        ('StandardRoIHead', 'RPNHead'): TwoStage,
    }
    kind: type[Exportable] | None
    if 'decode_head' in heads:
        kind = Segmentor
    elif list(heads) == ['head'] and hasattr(model, 'predict'):
        kind = Classifier
    else:
        kind = kinds.get(tuple(heads.values()))
    if kind is None:
        raise UserError(
            f'{type(model).__name__} with {", ".join(heads.values()) or "its head"} cannot be '
            "exported; what can: RetinaNet, Faster and Mask R-CNN, MMSegmentation's "
            'EncoderDecoder, classifiers, and the backbone alone'
        )
    return kind(model, preprocessor, normalised).eval()
