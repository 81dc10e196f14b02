"""How far a network sees: what it computes of an image in which some rows are not a number."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .grid import up

LENGTH, FEW, WIDTH = 4096, 512, 64  # of images, in pixels


class Reach(NamedTuple):
    """What the tiles of a network must be like.

    Attributes:
        step: Multiples of it are where windows begin; the coarsest stride, or a multiple.
        halo: How far windows must reach beyond their cores, a multiple of ``step``; None where the
            network sees all of an image, however large.
        culprit: Then, the name and the type of the layer that does.
    """

    step: int
    halo: int | None
    culprit: str = ''


def tensors(outputs: Any) -> Iterator[Tensor]:
    """All maps (N, C, H, W) in nested tuples and lists."""
    if isinstance(outputs, Tensor):
        if outputs.dim() == 4:
            yield outputs
    elif isinstance(outputs, (list, tuple)):
        for output in outputs:
            yield from tensors(output)


@torch.no_grad()
def reach_of(
    model: nn.Module, maps: Callable[[Tensor], Any], channels: int = 3, steps: Sequence[int] = (32,)
) -> Reach:
    """Measure how far ``model``, in evaluation mode and not fused, sees.

    What a pixel takes part in is not a number where the pixel is none, whatever the weights are.

    Args:
        maps: Images (N, channels, H, W) to what the network computes, tensors in lists and tuples.
        steps: Strides inside the network, and what it pads images to.
    """
    device, farthest = next(model.parameters()).device, 0
    few = torch.zeros(1, channels, FEW, WIDTH, device=device)
    step = math.lcm(*steps, *(FEW // output.shape[2] for output in tensors(maps(few))))
    start = LENGTH // 2 // step * step
    for axis in (2, 3):
        images = torch.zeros(1, channels, LENGTH, WIDTH, device=device)
        images[:, :, start : start + step] = torch.nan
        with first_all_wrong(model) as culprit:
            outputs = list(tensors(maps(images if axis == 2 else images.mT)))
        for output in outputs:
            stride = LENGTH // output.shape[axis]
            wrong = output.isnan().any(1).any(4 - axis).nonzero()[:, 1]
            if len(wrong) == output.shape[axis]:
                return Reach(step, None, culprit[0] if culprit else type(model).__name__)
            if len(wrong):
                below = (int(wrong.max()) + 1) * stride - (start + step)
                farthest = max(farthest, start - int(wrong.min()) * stride, below)
    return Reach(step, up(farthest, step))


class first_all_wrong:  # noqa: N801  used as a function
    """Inside, collects the names of layers that make a map with good rows one without."""

    def __init__(self, model: nn.Module):
        self.model = model

    def __enter__(self) -> list[str]:
        found: list[str] = []

        def look(name: str) -> Callable:
            def hook(module, inputs, output):
                given, made = list(tensors(inputs)), list(tensors(output))
                if any(not x.isnan().any(1).all() for x in given) and any(
                    x.isnan().any(1).all() for x in made
                ):
                    found.append(f'{name} ({type(module).__name__})')

            return hook

        self.handles = [
            module.register_forward_hook(look(name))
            for name, module in self.model.named_modules()
            if not list(module.children())
        ]
        return found

    def __exit__(self, *error: object) -> None:
        for handle in self.handles:
            handle.remove()
