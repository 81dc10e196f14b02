"""The ConvMLP backbone for MMDetection, MMSegmentation, MMPretrain and timm."""
# amp, checkpoints and hooks tell MMEngine what they are for: --amp, convmlp:// and the hooks.
from . import amp, checkpoints, hooks, mmcv_ops
from .convmlp import ConvMLP
from .cpu import fit_model_to_cpu, fit_to_cpu, keep_freed_memory
from .fused import fuse_model
from .layer_decay import ConvMLPLayerDecay
from .timm_hook import register_with_timm
from .version import __version__

__all__ = ['ConvMLP', 'ConvMLPLayerDecay', 'amp', 'checkpoints', 'fit_model_to_cpu', 'fit_to_cpu',
           'fuse_model', 'hooks', 'keep_freed_memory', '__version__']

mmcv_ops.offer()
register_with_timm()
