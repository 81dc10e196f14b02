"""The ConvMLP backbone for MMDetection, MMSegmentation, MMPretrain and timm."""
import warnings

from . import checkpoints, hooks  # tell MMEngine what convmlp:// and the hooks are
from .convmlp import ConvMLP
from .layer_decay import ConvMLPLayerDecay
from .memory import keep_freed_memory
from .version import __version__

__all__ = ['ConvMLP', 'ConvMLPLayerDecay', 'checkpoints', 'hooks', 'keep_freed_memory',
           '__version__']

try:
    import timm as _timm
except Exception:  # not installed, or broken: whoever wants timm sees why
    _timm = None
if _timm:
    try:
        from . import timm_models  # noqa: F401  registers convmlp_s and so on
    except ImportError as error:
        warnings.warn(f'this timm gets no ConvMLP models: {error}', stacklevel=2)


def __getattr__(name):
    """``from convmlp_backbone import convmlp_s``, the classifier as in the authors' code."""
    if name in ('convmlp_s', 'convmlp_m', 'convmlp_l'):
        from . import timm_models  # raises where there is no timm
        return getattr(timm_models, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
