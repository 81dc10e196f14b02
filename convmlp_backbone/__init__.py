"""The ConvMLP backbone for MMDetection, MMSegmentation, MMPretrain and timm."""

import warnings
from contextlib import suppress

from .version import __version__

__all__ = [
    'ConvMLP',
    'ConvMLPLayerDecay',
    'amp',
    'checkpoints',
    'fit_model_to_cpu',
    'fit_to_cpu',
    'fuse_model',
    'hooks',
    'keep_freed_memory',
    '__version__',
]

_missing: ModuleNotFoundError | None = None
try:
    import mmengine as _mmengine  # noqa: F401
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as _error:
    if _error.name not in ('mmengine', 'torch'):
        raise
    _missing = _error  # so there is nobody to register with; convmlp_backbone.runtime needs neither
else:
    # amp, checkpoints and hooks tell MMEngine what they are for: --amp, convmlp:// and the hooks.
    from . import (
        amp,
        checkpoints,
        hooks,
        many_channels,  # noqa: F401  registers what takes four channels
        mmcv_ops,
    )
    from .convmlp import ConvMLP
    from .cpu import fit_model_to_cpu, fit_to_cpu, keep_freed_memory
    from .fused import fuse_model
    from .layer_decay import ConvMLPLayerDecay

    mmcv_ops.offer()
    _has_timm = False
    with suppress(Exception):  # not installed, or broken: whoever wants timm sees why
        import timm as _timm  # noqa: F401

        _has_timm = True
    if _has_timm:
        try:
            from . import timm_models  # noqa: F401  registers convmlp_s and so on
        except ImportError as error:
            warnings.warn(f'this timm gets no ConvMLP models: {error}', stacklevel=2)


def __getattr__(name):
    """``from convmlp_backbone import convmlp_s``, the classifier as in the authors' code."""
    if _missing and name in __all__:
        raise ModuleNotFoundError(
            f'convmlp_backbone.{name} needs {_missing.name}, which is not installed',
            name=_missing.name,
        )
    if name in ('convmlp_s', 'convmlp_m', 'convmlp_l'):
        from . import timm_models  # raises where there is no timm

        return getattr(timm_models, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
