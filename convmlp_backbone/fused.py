"""The layers that :meth:`ConvMLP.fuse` puts in: several steps in one pass over the memory.

On a CPU an activation or an addition costs as much as it moves data. oneDNN, which PyTorch calls
for convolutions, does both while it writes a layer's output; PyTorch offers this to its own
compiler only (``torch.ops.mkldnn``), so every call here has a plain twin for a PyTorch without it.
"""

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .errors import UserError
from .network import ConvStage, Network
from .tracing import computed_now

_ops = torch.ops.mkldnn
ONEDNN = torch.backends.mkldnn.is_available() and all(
    hasattr(_ops, name)
    for name in (
        '_convolution_pointwise',
        '_reorder_convolution_weight',
        '_linear_pointwise',
        '_reorder_linear_weight',
    )
)


def onednn_dtype(x: Tensor) -> torch.dtype | None:
    """What the fused kernels compute on ``x`` in: float32, or bfloat16 where autocast says so.

    None where they cannot, or somebody needs to see single steps.
    """
    if (
        not ONEDNN
        or not computed_now(x)
        or x.device.type != 'cpu'
        or x.dtype not in (torch.float32, torch.bfloat16)
        or x.numel() == 0
        or torch.is_grad_enabled()
    ):
        return None
    if not torch.is_autocast_enabled('cpu'):
        return torch.float32 if x.dtype == torch.float32 else None
    bf16 = torch.get_autocast_dtype('cpu') == torch.bfloat16 and _ops._is_mkldnn_bf16_supported()
    return torch.bfloat16 if bf16 else None


class PackedWeight:
    """Keeps a layer's weight in the layout that oneDNN computes in, until the weight changes."""

    if TYPE_CHECKING:  # else TorchScript would read it, and not those of the layers
        weight: Tensor
        _packed: tuple[Any, Any]
    _packed = (None, None)

    def packed(self, reorder: Callable[..., Tensor], dtype: torch.dtype, *args: Any) -> Tensor:
        weight = self.weight.detach()
        version = None if weight.is_inference() else self.weight._version
        key = (weight.data_ptr(), version, dtype)
        if self._packed[0] != key:
            # Packed in inference mode, it could not be used outside.
            with torch.inference_mode(False):
                weight = weight.clone() if weight.is_inference() else weight
                self._packed = (key, reorder(weight.to(dtype), *args))
        return self._packed[1]

    def __getstate__(self):
        return {key: value for key, value in self.__dict__.items() if key != '_packed'}


class FusedConv2d(PackedWeight, nn.Conv2d):
    """A convolution, then ReLU if ``relu``."""

    relu = False

    def forward(self, x: Tensor) -> Tensor:
        if not torch.jit.is_scripting():
            dtype = onednn_dtype(x)
            if dtype is not None:
                return self.by_onednn(x, dtype)
        x = F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
        return F.relu(x) if self.relu else x

    @torch.jit.ignore
    def by_onednn(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        settings = (self.padding, self.stride, self.dilation, self.groups)
        # For images like the first one; without a size oneDNN may guess a layout that it would
        # have to change in every call.
        weight = self.packed(_ops._reorder_convolution_weight, dtype, *settings, list(x.shape))
        bias = None if self.bias is None else self.bias.to(dtype)
        post = 'relu' if self.relu else 'none'
        return _ops._convolution_pointwise(x.to(dtype), weight, bias, *settings, post, [], '')


class FusedLinear(PackedWeight, nn.Linear):
    """A linear layer, then GELU if ``gelu`` and the addition of ``residual`` if there is one."""

    gelu = False

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if not torch.jit.is_scripting():
            dtype = onednn_dtype(x)
            if dtype is not None:
                return self.by_onednn(x, residual, dtype)
        x = F.linear(x, self.weight, self.bias)
        if self.gelu:
            x = F.gelu(x)
        return x if residual is None else x + residual

    @torch.jit.ignore
    def by_onednn(self, x: Tensor, residual: Tensor | None, dtype: torch.dtype) -> Tensor:
        weight = self.packed(_ops._reorder_linear_weight, dtype, None)
        x, bias = x.to(dtype), self.bias.to(dtype)
        if residual is not None:
            return _ops._linear_pointwise.binary(x, residual.to(dtype), weight, bias, 'add')
        return _ops._linear_pointwise(x, weight, bias, 'gelu' if self.gelu else 'none', [], 'none')


class FusedConvStage(ConvStage):
    """A conv stage that adds in place where nobody needs the summands."""

    def forward(self, x: Tensor) -> Tensor:
        # torch.jit.trace compares a trace with gradients with one without.
        summands_wanted = torch.is_grad_enabled() or torch.jit.is_tracing()
        for block in self.conv_blocks:
            x = x + block(x) if summands_wanted else block(x).add_(x)
        return self.downsample(x)


class FusedConvMLPBlock(nn.Module):
    """A :class:`ConvMLPBlock` for inference, on (N, H, W, dim)."""

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # the block's parts

    def __init__(self, block: nn.Module):
        super().__init__()
        for name, module in block.named_children():
            if name != 'drop_path':
                self.add_module(name, module)
        for mlp in (self.channel_mlp1, self.channel_mlp2):
            become(mlp.fc1, FusedLinear, gelu=True)
            become(mlp.fc2, FusedLinear)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[1:3]
        # In three dimensions a runtime to which this is exported cannot take the tensor for an
        # image, and turn it into another layout and back for every layer.
        x = x.flatten(1, 2)
        x = self.channel_mlp1.fc2(self.channel_mlp1.fc1(self.norm1(x)), x)
        x = self.connect_norm(x).unflatten(1, size).permute(0, 3, 1, 2)
        x = self.connect(x).permute(0, 2, 3, 1).flatten(1, 2)
        x = self.channel_mlp2.fc2(self.channel_mlp2.fc1(self.norm2(x)), x)
        return x.unflatten(1, size)


def become(layer: nn.Module, cls: type[nn.Module], **attributes: Any) -> None:
    """Turn ``layer`` into its subclass ``cls``, with the same parameters."""
    layer.__class__ = cls
    layer.__dict__.update(attributes)


def fold_norm(norm: nn.LayerNorm, mlp: Any) -> None:
    """Fold the norm's scale and shift into the linear layer behind it."""
    with torch.no_grad():
        mlp.fc1.bias.add_(mlp.fc1.weight @ norm.bias)
        mlp.fc1.weight.mul_(norm.weight)
    norm.elementwise_affine = False
    for name in ('weight', 'bias'):
        norm.register_parameter(name, None)


def fold_batch_norms(sequence: nn.Sequential) -> None:
    """Fold batch norms into the convolutions before them."""
    for i, (conv, norm) in enumerate(itertools.pairwise(list(sequence))):
        if not (isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm)):
            continue
        # Without statistics of its own a norm takes the batch's, and stays.
        if norm.running_mean is not None and norm.running_var is not None:
            conv.weight, conv.bias = fuse_conv_bn_weights(
                conv.weight,
                conv.bias,
                norm.running_mean,
                norm.running_var,
                norm.eps,
                norm.weight,
                norm.bias,
            )
            sequence[i + 1] = nn.Identity()


def fuse_relus(sequence: nn.Sequential) -> None:
    """Let convolutions do the ReLU behind them as well."""
    layers = list(sequence)
    for i, (conv, norm, relu) in enumerate(zip(layers, layers[1:], layers[2:], strict=False)):
        if (
            isinstance(conv, nn.Conv2d)
            and isinstance(norm, nn.Identity)
            and isinstance(relu, nn.ReLU)
        ):
            become(conv, FusedConv2d, relu=True)
            sequence[i + 2] = nn.Identity()


def fuse(model: Network, portable: bool = False) -> None:
    """Fold, and unless ``portable`` replace, in place, whatever the backbone ``model`` has."""
    sequences = [
        module
        for part in (model.tokenizer, model.conv_stages)
        for module in part.modules()
        if isinstance(module, nn.Sequential)
    ]
    for sequence in sequences:
        fold_batch_norms(sequence)
    stages: list[Any] = [stage.blocks for stage in model.stages if hasattr(stage, 'blocks')]
    for block in itertools.chain(*stages):
        fold_norm(block.norm1, block.channel_mlp1)
        fold_norm(block.norm2, block.channel_mlp2)
    if portable:
        return
    for sequence in sequences:
        fuse_relus(sequence)
    if model.last >= 1:
        become(model.conv_stages, FusedConvStage)
    for blocks in stages:
        for i, block in enumerate(blocks):
            blocks[i] = FusedConvMLPBlock(block)
    for layer in [m for m in model.modules() if type(m) is nn.Conv2d and m.groups == 1]:
        become(layer, FusedConv2d)


def fuse_model(model: nn.Module) -> nn.Module:
    """Make a whole detector, segmentor or classifier faster at inference, in place.

    Every ConvMLP in it is fused, see :meth:`convmlp_backbone.ConvMLP.fuse`; on a CPU, neck and head
    compute channels last where they can. Predictions stay the same up to rounding.

    Args:
        model (nn.Module): With its weights loaded, for inference from now on.

    Returns:
        nn.Module: ``model``.

    Raises:
        UserError: There is nothing to fuse in it.
    """
    backbones: list[Any] = [m for m in model.modules() if callable(getattr(m, 'fuse', None))]
    if not backbones:
        raise UserError(f'the {type(model).__name__} has no ConvMLP to fuse')
    for backbone in backbones:
        backbone.eval().fuse()
    # MMCV's operators, such as RoIAlign, read any tensor as if it lay in memory as (N, C, H, W).
    if next(model.parameters()).device.type == 'cpu' and not any(
        type(module).__module__.startswith('mmcv.ops')
        and not getattr(module, 'use_torchvision', False)
        for module in model.modules()
    ):
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
