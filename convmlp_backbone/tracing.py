"""Whether PyTorch computes here and now, or something else looks at what it would compute."""
from typing import Any

import torch

_transformed = getattr(torch._C, '_are_functorch_transforms_active', lambda: False)


def transformed(x: Any) -> bool:
    """Whether ``x`` only stands for tensors: in torch.fx, or in grad, vmap ... of torch.func."""
    return not isinstance(x, torch.Tensor) or _transformed()


def computed_now(x: Any) -> bool:
    """Whether a layer called with ``x`` computes its output, once, before anything else happens."""
    return not (transformed(x) or torch.compiler.is_compiling() or torch.jit.is_tracing())
