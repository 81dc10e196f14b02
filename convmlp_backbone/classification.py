"""ConvMLP classifiers in MMPretrain; importing this module needs MMPretrain."""
from mmengine.registry import MODELS
from mmpretrain.models import ImageClassifier, LinearClsHead
from torch import nn

from . import torchvision_dataset  # noqa: F401  (registers it)


@MODELS.register_module()
class ConvMLPClsHead(LinearClsHead):
    """The published classifier: LayerNorm at every location, mean over the locations, Linear.

    Args:
        num_classes (int): Number of classes.
        in_channels (int): Channels of the backbone's last level.
        **kwargs: Further arguments of MMPretrain's ``LinearClsHead``, such as ``loss``.
    """

    def __init__(self, num_classes, in_channels,
                 init_cfg=dict(type='TruncNormal', layer='Linear', std=0.02), **kwargs):
        super().__init__(num_classes, in_channels, init_cfg=init_cfg, **kwargs)
        self.norm = nn.LayerNorm(in_channels)

    def pre_logits(self, feats):
        """The levels, of which the last is (N, in_channels, H, W), to (N, in_channels)."""
        return self.norm(feats[-1].permute(0, 2, 3, 1)).mean(dim=(1, 2))


@MODELS.register_module()
class ConvMLPClassifier(ImageClassifier):
    """MMPretrain's ``ImageClassifier``, which also loads checkpoints of the published names.

    Those have the backbone's parts at the top, ``norm.*`` and ``head.*``.
    """

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        if any(name.startswith(f'{prefix}tokenizer.') for name in state_dict):
            for name in list(state_dict):
                part = name[len(prefix):].split('.')[0]
                new = {'norm': 'head.norm', 'head': 'head.fc'}.get(part, f'backbone.{part}')
                state_dict[prefix + new + name[len(prefix + part):]] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
