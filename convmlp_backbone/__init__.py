"""The ConvMLP backbone for MMDetection, MMSegmentation, MMPretrain and timm."""
from . import checkpoints  # tells MMEngine what convmlp:// is
from .convmlp import ConvMLP
from .version import __version__

__all__ = ['ConvMLP', 'checkpoints', '__version__']
