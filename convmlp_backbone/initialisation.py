"""The values that layers start from, as in the authors' code."""

from torch import Tensor, nn


def init_parameters(module: nn.Module) -> None:
    """Initialise one layer; norms become 1 and 0. For ``network.apply``."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    elif callable(reset := getattr(module, 'reset_parameters', None)):
        return reset()
    if isinstance(bias := getattr(module, 'bias', None), Tensor):
        nn.init.zeros_(bias)
