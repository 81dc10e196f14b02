"""The ConvMLP backbone for MMDetection, MMSegmentation, MMPretrain and timm."""
from . import checkpoints, hooks, mmcv_ops  # tell MMEngine what convmlp:// and the hooks are
from .convmlp import ConvMLP
from .layer_decay import ConvMLPLayerDecay
from .memory import keep_freed_memory
from .timm_hook import register_with_timm
from .version import __version__

__all__ = ['ConvMLP', 'ConvMLPLayerDecay', 'checkpoints', 'hooks', 'keep_freed_memory',
           '__version__']

mmcv_ops.offer()
register_with_timm()
