"""Mixed precision: what the hardware multiplies, training on processors, and prediction."""

import platform
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn
from torch.utils import _pytree as pytree

from .errors import UserError
from .runtime import BF16_COSTS, BF16_UNITS, bf16_unit

CHOICES = ('on', 'auto', 'bf16', 'fp16')


def use_mixed_precision(cfg: Any, choice: str, device: str) -> str:
    """Make a config train in mixed precision, if it is faster on ``device``.

    Args:
        cfg (Config): Its ``optim_wrapper`` is changed.
        choice (str): ``'bf16'``, ``'fp16'``, ``'on'`` for the one that suits, or ``'auto'`` for
            that, if any, and float32 otherwise.
        device (str): As :func:`mmengine.device.get_device` tells.

    Returns:
        str: What was chosen, in words.

    Raises:
        UserError: It would be slower than float32 here.
    """
    if choice not in CHOICES:
        raise UserError(f'--amp {choice}: expected one of {", ".join(CHOICES)}')
    wrapper = cfg.optim_wrapper
    if device != 'cpu':
        wrapper.type = 'AmpOptimWrapper'
        if choice == 'bf16':
            # As wide a range as float32 has: nothing to scale.
            wrapper.update(dtype='bfloat16', loss_scale=1.0)
            return 'bfloat16'
        wrapper.setdefault('loss_scale', 'dynamic')
        return 'float16'
    unit = bf16_unit()
    if choice == 'fp16':
        raise UserError(
            '--amp fp16: slower than float32 on a processor; leave it out'
            + (f', or take --amp bf16, for which this one has {unit}' if unit else '')
        )
    if unit:
        wrapper.type = 'CPUAmpOptimWrapper'
        wrapper.pop('loss_scale', None)
        wrapper.pop('dtype', None)
        return f'bfloat16 ({unit})'
    if choice != 'auto':
        raise UserError(
            f'--amp {choice}: slower than float32 here: there is no GPU, and this '
            f'processor ({platform.machine()}) has none of '
            f'{", ".join(BF16_UNITS.values())}; leave it out'
        )
    return 'float32: neither a GPU nor a processor with bfloat16 units'


def _float32(values: Any) -> Any:
    return pytree.tree_map_only(
        torch.Tensor, lambda x: x.float() if x.is_floating_point() else x, values
    )


def _give_float32(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    return _float32(outputs)


def _tiny_in_float32(conv: nn.Conv2d, inputs: Any, output: torch.Tensor) -> torch.Tensor | None:
    # Where an image is smaller than the kernel, as P7 of a small photo is, some weights meet
    # padding only. Their gradient is 0, but oneDNN multiplies what memory happens to hold by 0 in
    # bfloat16 (torch 2.10), and the product with a NaN is NaN.
    if min(inputs[0].shape[2:]) >= max(conv.kernel_size) or conv.padding_mode != 'zeros':
        return None
    with torch.autocast('cpu', enabled=False):
        return nn.functional.conv2d(
            inputs[0].float(),
            conv.weight,
            conv.bias,
            conv.stride,
            conv.padding,
            conv.dilation,
            conv.groups,
        ).to(output.dtype)


def _take_float32(module: nn.Module, args: Any, kwargs: Any) -> Any:
    return _float32(args), _float32(kwargs)


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """MMEngine's ``OptimWrapper`` with bfloat16 on a processor; its own needs a GPU.

    Convolutions, linear layers and matrix products are computed in bfloat16; weights, the
    optimizer, norms' statistics and losses stay in float32, and so does all that comes behind a
    head of MMDetection: decoding of boxes, assignment, NMS, whose operators take nothing else.

    Args:
        Those of :class:`mmengine.optim.OptimWrapper`.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(super().optim_context(model))
            # Only in here: a model that is copied or saved is as it was.
            for name, module in model.named_modules():
                if any(hasattr(module, method) for method in ('loss_by_feat', 'loss_and_target')):
                    stack.callback(module.register_forward_hook(_give_float32).remove)
                if isinstance(module, nn.Conv2d):
                    stack.callback(module.register_forward_hook(_tiny_in_float32).remove)
                if any(part.startswith('loss') for part in name.split('.')):
                    stack.callback(
                        module.register_forward_pre_hook(_take_float32, with_kwargs=True).remove
                    )
            stack.enter_context(torch.autocast('cpu', torch.bfloat16))
            yield


def inference_precision(choice: str, device: str) -> tuple[str, str]:
    """What a model predicts in.

    Args:
        choice (str): ``'f32'``, ``'bf16'``, or ``'auto'``, bfloat16 where ``device`` has units.

    Returns:
        ``'f32'`` or ``'bf16'``, and the same in words.
    """
    if choice == 'int8':
        raise UserError('--precision int8: of exported files only: convmlp export --precision int8')
    if choice != 'auto':
        return choice, choice
    if device.startswith('cpu'):
        unit = bf16_unit()
    else:
        unit = 'the GPU' if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if not unit:
        return 'f32', f'f32: this {device} has no units for bfloat16'
    return 'bf16', f'bf16, by {unit}: {BF16_COSTS}'


def predict_in_bf16(model: nn.Module) -> nn.Module:
    """Let a toolbox's model predict in bfloat16, in place.

    Layers that multiply do; what a head makes of their outputs, boxes, masks, maps and NMS, and
    RoIAlign stay in float32.

    Args:
        model (nn.Module): For inference from now on; it may be fused.
    """
    kind = next(model.parameters()).device.type
    for name, module in model.named_modules():
        if hasattr(module, 'predict_by_feat'):
            module.predict_by_feat = _float32_function(module.predict_by_feat, kind)
        if hasattr(module, 'roi_layers'):
            module.register_forward_pre_hook(_take_float32, with_kwargs=True)
        if name == 'head':  # a classifier's
            module.register_forward_hook(_give_float32)
    model.forward = torch.autocast(kind, torch.bfloat16)(model.forward)
    return model


def _float32_function(function: Callable, device: str) -> Callable:
    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device, enabled=False):
            return function(*_float32(args), **_float32(kwargs))

    return run
