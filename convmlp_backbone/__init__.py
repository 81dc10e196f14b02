"""The ConvMLP backbone for MMDetection, MMSegmentation, MMPretrain and timm."""
from . import checkpoints  # tells MMEngine what convmlp:// is
from .convmlp import ConvMLP
from .layer_decay import ConvMLPLayerDecay
from .timm_hook import register_with_timm
from .version import __version__

__all__ = ['ConvMLP', 'ConvMLPLayerDecay', 'checkpoints', '__version__']

register_with_timm()
