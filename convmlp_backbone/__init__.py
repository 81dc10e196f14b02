"""The ConvMLP backbone for MMDetection, MMSegmentation, MMPretrain and timm."""
from . import amp, checkpoints, hooks  # tell MMEngine what convmlp:// and the hooks are
from .convmlp import ConvMLP
from .layer_decay import ConvMLPLayerDecay
from .memory import keep_freed_memory
from .timm_hook import register_with_timm
from .version import __version__

__all__ = ['ConvMLP', 'ConvMLPLayerDecay', 'amp', 'checkpoints', 'hooks', 'keep_freed_memory',
           '__version__']

register_with_timm()
