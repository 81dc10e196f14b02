"""The ConvMLP backbone for MMDetection, MMSegmentation, MMPretrain and timm."""
from .convmlp import ConvMLP

__version__ = '1.0.0'
__all__ = ['ConvMLP', '__version__']
