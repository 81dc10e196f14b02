"""Whether PyTorch computes here and now, or something else looks at what it would compute."""

from typing import Any

import torch
from torch.autograd import forward_ad

_transforms_active = getattr(torch._C, '_are_functorch_transforms_active', lambda: False)


def transformed(x: Any) -> bool:
    """Whether ``x`` only stands for tensors, in torch.fx or in grad, vmap and so on of torch.func.

    Or carries a tangent: forward-mode differentiation takes few functions written in Python.
    """
    return not isinstance(x, torch.Tensor) or _transforms_active() or forward_ad._current_level >= 0


def computed_now(x: Any) -> bool:
    """Whether a layer called with ``x`` computes its output, once, before anything else happens."""
    return not (transformed(x) or torch.compiler.is_compiling() or torch.jit.is_tracing())
