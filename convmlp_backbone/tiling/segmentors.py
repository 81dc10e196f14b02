"""Segmentors of MMSegmentation on tiles."""

from typing import Any

import torch
from torch import Tensor

from ..errors import UserError
from .networks import TiledNetwork
from .resizing import resized_classes, taps


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
            own = core.scaled(shape, original)
            rows, columns = (
                taps(shape[i], original[i], own[i], own[i + 2], window[i]) for i in (0, 1)
            )
            found = resized_classes(scores, rows, columns, self.classes)
        return dict(classes=found.cpu().numpy())
