"""A toolbox's model on a window of an image: what all tasks have in common."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..deploy.models import swapped
from ..errors import UserError
from .grid import Tile, up
from .reach import Reach, reach_of

UNKNOWN = 256  # pixels of halo where a network sees the whole image

Found = dict[str, np.ndarray]  # of a tile, as it is kept on the disk


class TiledNetwork:
    """What of a prediction belongs to the core of a tile.

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
