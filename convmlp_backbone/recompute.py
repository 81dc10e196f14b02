"""What training computes again in the backward pass instead of keeping it: applied from outside.

Every ``nn.Sequential`` of a network follows one rule, see :class:`Recomputed`.
"""

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as nn_module
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .tracing import transformed


class StatisticsKept:
    """Inside, batch norms normalise as in training but leave their running statistics alone.

    It can be entered again and again: every backward pass through a graph computes anew.
    """

    def __init__(self, layers: Iterable[nn.Module]):
        self.norms = [m for layer in layers for m in layer.modules() if isinstance(m, _BatchNorm)]

    def __enter__(self):
        self.before = [(m, m.momentum, m.num_batches_tracked) for m in self.norms if m.training]
        for norm, _, _ in self.before:
            norm.momentum, norm.num_batches_tracked = 0.0, None

    def __exit__(self, *error):
        for norm, momentum, count in self.before:
            norm.momentum, norm.num_batches_tracked = momentum, count


def through(layers: Iterable[nn.Module], x: Tensor, again: bool = False) -> Tensor:
    """``x`` through the layers; ``again``: what is inside is computed again, not kept."""

    def forward(x):
        for layer in layers:
            x = layer(x)
        return x

    if not again:
        return forward(x)
    # A compiled program updates the statistics once whatever it computes again.
    once: dict[str, Any] = (
        {}
        if torch.compiler.is_compiling()
        else dict(context_fn=lambda: (nullcontext(), StatisticsKept(layers)))
    )
    return checkpoint(forward, x, use_reentrant=False, **once)


def cut(layers: Iterable[nn.Module], behind: Callable[[nn.Module], bool]) -> list[list[nn.Module]]:
    """The layers in parts, each of which ends behind a layer for which ``behind`` holds."""
    parts: list[list[nn.Module]] = [[]]
    for layer in layers:
        parts[-1].append(layer)
        if behind(layer):
            parts.append([])
    return [part for part in parts if part]


def observed(layers: Iterable[nn.Module]) -> bool:
    """Whether a hook would see that a layer is called twice."""
    return bool(nn_module._global_forward_hooks or nn_module._global_forward_pre_hooks) or any(
        layer._forward_hooks or layer._forward_pre_hooks for layer in layers
    )


class Recomputed(nn.Sequential):
    """A Sequential of layers, or of blocks, that saves memory in training.

    With ``with_cp``, the input of each block is kept, the layers being one block. Without, outputs
    of convolutions and linear layers are kept; on a CPU, what comes between them is not, where it
    takes ``large`` bytes or more: memory of 4 MB Linux clears first, which takes as long.
    """

    with_cp = False
    large = 2**22

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            return self.follow_rule(x)
        for layer in self:
            x = layer(x)
        return x

    def follow_rule(self, x: Tensor) -> Tensor:
        layers = list(self)
        if not torch.is_grad_enabled() or transformed(x) or torch.jit.is_tracing():
            return through(layers, x)
        if self.with_cp:
            for block in cut(layers, behind=lambda layer: any(layer.children())):
                x = through(block, x, again=True)
            return x
        first, *rest = cut(layers, behind=lambda layer: isinstance(layer, (nn.Conv2d, nn.Linear)))
        x = through(first, x)
        again = (
            self.training
            and x.device.type == 'cpu'
            and x.numel() * x.element_size() >= self.large
            and not torch.compiler.is_compiling()
            and not observed(layers)
        )
        for part in rest:
            x = through(part, x, again)
        return x


def apply(network: nn.Module, with_cp: bool = False, large: float = Recomputed.large) -> None:
    """Let all of ``network`` follow the rule of :class:`Recomputed`, or follow it in another way.

    Args:
        network (nn.Module): A :class:`convmlp_backbone.network.Network`.
        with_cp (bool): Save as much memory as possible: for the tokenizer and all blocks.
        large (float): From how many bytes on a CPU does so by itself; ``math.inf``: never.
    """
    for name, layers in network.named_modules():
        if type(layers) in (nn.Sequential, Recomputed) and len(layers):
            layers.__class__ = Recomputed
            layers.with_cp = with_cp and 'mlp' not in name.split('.')[-1]  # that is within a block
            layers.large = large
