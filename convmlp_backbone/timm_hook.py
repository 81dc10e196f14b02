"""Registers the models of ``timm_models`` in timm, if and when somebody imports timm.

Importing timm, and torchvision with it, takes about a second, so ``import
convmlp_backbone`` does not do it, and needs no timm at all.
"""
import importlib
import sys
import warnings


def _register():
    try:
        importlib.import_module('.timm_models', __package__)
    except ImportError as error:
        warnings.warn(f'this timm gets no ConvMLP models: {error}', stacklevel=2)


def _then_register(execute):
    def execute_and_register(module):
        execute(module)
        _register()
    return execute_and_register


class _TimmFinder:
    """Finds timm as the other finders do, and registers the models when it has been executed."""

    def find_spec(self, name, path=None, target=None):
        if name != 'timm':
            return None
        for finder in sys.meta_path:
            spec = not isinstance(finder, _TimmFinder) and finder.find_spec(name, path, target)
            if spec:
                spec.loader.exec_module = _then_register(spec.loader.exec_module)
                return spec


def register_with_timm():
    """Register now if timm is imported already, else as soon as it is."""
    if sys.modules.get('timm') is not None:
        _register()
    else:
        sys.meta_path.insert(0, _TimmFinder())
