"""The ConvMLP backbone for MMDetection, MMSegmentation, MMPretrain and timm."""
from . import checkpoints  # noqa: F401  registers convmlp://
from .convmlp import ConvMLP
from .version import __version__

__all__ = ['ConvMLP', '__version__']
