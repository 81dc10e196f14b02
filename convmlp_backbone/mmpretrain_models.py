"""ConvMLP classifiers in MMPretrain; importing this module needs MMPretrain."""

from collections.abc import Sequence
from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models import ImageClassifier, LinearClsHead
from torch import Tensor, nn

from . import torchvision_dataset  # noqa: F401  registers it
from .checkpoints import load, rename_published, unwrap


@MODELS.register_module()
class ConvMLPClsHead(LinearClsHead):
    """The published classifier: LayerNorm at every location, mean over the locations, Linear.

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Channels of the backbone's last level.
        **kwargs: Further arguments of MMPretrain's ``LinearClsHead``, such as ``loss``.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        init_cfg: dict = dict(type='TruncNormal', layer='Linear', std=0.02),
        **kwargs: Any,
    ):
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        self.norm = nn.LayerNorm(in_channels)

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """The levels, of which the last is (N, in_channels, H, W), to (N, in_channels)."""
        return self.norm(feats[-1].permute(0, 2, 3, 1)).mean(dim=(1, 2))


@MODELS.register_module()
class ConvMLPClassifier(ImageClassifier):
    """MMPretrain's ``ImageClassifier``, which also loads checkpoints of the published names.

    Where the backbone starts from a file, so does the head's LayerNorm, as in the authors'
    fine-tuning; the Linear, whose number of classes may be another, does not.
    """

    def init_weights(self) -> None:
        super().init_weights()
        init_cfg = self.backbone.init_cfg or {}
        if init_cfg.get('type') == 'Pretrained':
            weights = rename_published(unwrap(load(init_cfg['checkpoint']))[1])
            norm = {
                name.removeprefix('head.norm.'): weight
                for name, weight in weights.items()
                if name.startswith('head.norm.')
            }
            if norm:
                self.head.norm.load_state_dict(norm)

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        renamed = rename_published(state_dict, prefix)
        state_dict.clear()
        state_dict.update(renamed)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
