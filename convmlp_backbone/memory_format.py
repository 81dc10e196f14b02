"""Channels last, (N, H, W, C) in memory: when a backbone computes so, and how levels leave it."""

from typing import Any

import torch
from torch import Tensor

from .tracing import computed_now, transformed

AVX512 = torch.backends.cpu.get_cpu_capability() == 'AVX512'


def channels_last_pays(x: Tensor, avx512: bool = AVX512) -> bool:
    """Whether the whole backbone computes images ``x`` channels last.

    Then the step from convolutions to MLPs costs no copy, and the kernels are faster: inference
    on a CPU, training on one with AVX-512, mixed precision on a GPU.
    """
    if x.is_cuda:
        return torch.is_autocast_enabled('cuda')
    return x.device.type == 'cpu' and (avx512 or not torch.is_grad_enabled())


def enter(images: Tensor, channels_last: bool | None = None) -> Tensor:
    """The images as the backbone computes with them; None: channels last where that pays."""
    if transformed(images) or torch.compiler.is_exporting():
        return images  # where a program is exported to, the runtime decides
    if channels_last is None:
        channels_last = channels_last_pays(images)
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


class Contiguous(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, level: Tensor) -> Tensor:
        return level.contiguous()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.contiguous(memory_format=torch.channels_last)


def leave(level: Tensor) -> Tensor:
    """A level as it is given out: contiguous, with a gradient that is channels last if it was.

    MMCV's RoIAlign reads any tensor as if it lay in memory as (N, C, H, W). A gradient that does
    would have max pooling copy the largest tensors of the network.
    """
    if (
        computed_now(level)
        and level.requires_grad
        and level.is_contiguous(memory_format=torch.channels_last)
    ):
        return Contiguous.apply(level)
    return level.contiguous()
