"""ConvMLP: Hierarchical Convolutional MLPs for Vision (Li, Hassani, Walton, Shi).

Paper: https://arxiv.org/abs/2109.04454. The whole network, in the order in which an image passes
through it: tokenizer, conv stage, three Conv-MLP stages. Module names are those of the published
checkpoints (https://github.com/SHI-Labs/Convolutional-MLPs).
"""
from contextlib import contextmanager, nullcontext

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from .archs import resolve_arch

AVX512 = torch.backends.cpu.get_cpu_capability() == 'AVX512'


def norm_layer(cfg, channels):
    """The norm layer that ``norm_cfg`` asks for; types other than plain BN need mmcv."""
    if cfg == dict(type='BN'):
        return nn.BatchNorm2d(channels)
    from mmcv.cnn import build_norm_layer
    return build_norm_layer(cfg, channels)[1]


def conv_norm_relu(in_channels, out_channels, kernel_size, norm_cfg, stride=1):
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=False)
    return conv, norm_layer(norm_cfg, out_channels), nn.ReLU(inplace=True)


class PatchMerging(nn.Module):
    """Half the size without a convolution, as in Swin (https://arxiv.org/abs/2103.14030)."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, out_channels, bias=False)

    def forward(self, x):
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        x = F.pixel_unshuffle(x, 2).permute(0, 2, 3, 1)
        return self.reduction(self.norm(x)).permute(0, 3, 1, 2)


def downsample(in_channels, out_channels, conv):
    if conv:
        return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
    return PatchMerging(in_channels, out_channels)


@contextmanager
def _batch_norm_statistics_kept(module):
    """Inside, batch norms normalise as in training but leave their running statistics alone."""
    kept = [(m, m.momentum, m.num_batches_tracked) for m in module.modules()
            if isinstance(m, _BatchNorm) and m.training]
    for norm, _, _ in kept:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, count in kept:
            norm.momentum, norm.num_batches_tracked = momentum, count


def run_checkpointed(block, x):
    """``block(x)``, with its activations computed again in the backward pass instead of kept."""
    if not torch.is_grad_enabled():
        return block(x)
    # The second forward pass must not update the running statistics a second time.
    return checkpoint(block, x, use_reentrant=False,
                      context_fn=lambda: (nullcontext(), _batch_norm_statistics_kept(block)))


def recomputing_pays(module, x):
    """Whether training computes norms and activations again instead of keeping their outputs.

    On a CPU that is no slower if they are large: memory of 4 MB and more, Linux clears first.
    """
    return (type(x) is torch.Tensor  # torch.fx passes something else
            and x.device.type == 'cpu' and x.numel() >= 2**20
            and module.training and torch.is_grad_enabled() and not torch.compiler.is_compiling())


class ConvSequence(nn.Sequential):
    """Three convolutions, each with norm and ReLU, and what follows those."""

    def forward(self, x):
        if not torch.jit.is_scripting():
            if recomputing_pays(self, x):
                layers = list(self)
                x = layers[0](x)
                # Computing again ends before a part's convolution: that needs its input only.
                for start in (1, 4, 7):
                    x = run_checkpointed(nn.Sequential(*layers[start:start + 3]), x)
                return x
        for layer in self:
            x = layer(x)
        return x


class Tokenizer(nn.Module):
    """Image (N, in_channels, H, W) to F1 (N, channels, ceil(H / 4), ceil(W / 4))."""

    def __init__(self, in_channels, channels, norm_cfg, with_cp):
        super().__init__()
        self.with_cp = with_cp
        self.block = ConvSequence(
            *conv_norm_relu(in_channels, channels // 2, 3, norm_cfg, stride=2),
            *conv_norm_relu(channels // 2, channels // 2, 3, norm_cfg),
            *conv_norm_relu(channels // 2, channels, 3, norm_cfg),
            nn.MaxPool2d(3, stride=2, padding=1))

    def forward(self, x):
        if self.with_cp and not torch.jit.is_scripting():
            return run_checkpointed(self.block, x)
        return self.block(x)


class ConvStage(nn.Module):
    """Residual bottleneck blocks of convolutions, F1 to F2 (half the size); paper, section 3.3."""

    def __init__(self, channels, hidden_channels, out_channels, num_blocks, norm_cfg,
                 conv_downsample, with_cp):
        super().__init__()
        self.with_cp = with_cp
        self.conv_blocks = nn.ModuleList(
            ConvSequence(
                *conv_norm_relu(channels, hidden_channels, 1, norm_cfg),
                *conv_norm_relu(hidden_channels, hidden_channels, 3, norm_cfg),
                *conv_norm_relu(hidden_channels, channels, 1, norm_cfg))
            for _ in range(num_blocks))
        self.downsample = downsample(channels, out_channels, conv_downsample)

    def forward(self, x):
        for block in self.conv_blocks:
            if self.with_cp and not torch.jit.is_scripting():
                x = x + run_checkpointed(block, x)
            elif torch.is_grad_enabled():
                x = x + block(x)
            else:
                x = block(x).add_(x)
        return self.downsample(x)


class DropPath(nn.Module):
    """Stochastic depth (https://arxiv.org/abs/1603.09382).

    In training, a whole sample becomes zero with probability ``p``; the others are scaled up.
    """

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if self.p == 0 or not self.training:
            return x
        keep = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(1 - self.p)
        return x * keep.div_(1 - self.p)

    def extra_repr(self):
        return f'p={self.p:.3f}'


class MLP(nn.Module):
    """Two linear layers over the channels, the last dimension."""

    def __init__(self, dim, hidden_dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x):
        x = self.fc1(x)
        if not torch.jit.is_scripting():
            if recomputing_pays(self, x):
                return run_checkpointed(nn.Sequential(self.act, self.fc2), x)
        return self.fc2(self.act(x))


class ConvMLPBlock(nn.Module):
    """Channel MLP, depthwise 3x3 convolution, channel MLP on (N, H, W, dim); paper, section 3.4.

    Only the MLPs have a residual connection; the convolution has none.
    """

    def __init__(self, dim, mlp_ratio, depthwise, drop_path):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.channel_mlp1 = MLP(dim, int(dim * mlp_ratio))
        self.connect_norm = nn.LayerNorm(dim) if depthwise else nn.Identity()
        self.connect = (nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False) if depthwise
                        else nn.Identity())
        self.norm2 = nn.LayerNorm(dim)
        self.channel_mlp2 = MLP(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x):
        x = x + self.drop_path(self.channel_mlp1(self.norm1(x)))
        x = self.connect(self.connect_norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.drop_path(self.channel_mlp2(self.norm2(x)))


class ConvDownsample(nn.Module):
    """Half the size of (N, H, W, in_channels)."""

    def __init__(self, in_channels, out_channels, conv):
        super().__init__()
        self.downsample = downsample(in_channels, out_channels, conv)

    def forward(self, x):
        return self.downsample(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class ConvMLPStage(nn.Module):
    """Conv-MLP blocks, then a downsampling unless ``out_dim`` is None; channels last in and out."""

    def __init__(self, dim, out_dim, num_blocks, mlp_ratio, depthwise, conv_downsample,
                 drop_path_rate, with_cp):
        super().__init__()
        self.with_cp = with_cp
        # The drop path rises from 0 to its rate within every stage, as in the authors' code.
        rates = torch.linspace(0, drop_path_rate, num_blocks, device='cpu').tolist()
        self.blocks = nn.ModuleList(
            ConvMLPBlock(dim, mlp_ratio, depthwise, rate) for rate in rates)
        self.downsample_mlp = (nn.Identity() if out_dim is None
                               else ConvDownsample(dim, out_dim, conv_downsample))

    def forward(self, x):
        for block in self.blocks:
            if self.with_cp and not torch.jit.is_scripting():
                x = run_checkpointed(block, x)
            else:
                x = block(x)
        return self.downsample_mlp(x)


def channels_last_pays(x):
    """Whether the whole backbone computes channels last: as (N, H, W, C) in memory.

    Then the step from convolutions to MLPs costs no copy, and the kernels are faster: inference
    on a CPU, training on one with AVX-512, mixed precision on a GPU.
    """
    if x.is_cuda:
        return torch.is_autocast_enabled('cuda')
    if x.device.type != 'cpu' or torch.compiler.is_exporting():
        return False  # where a program is exported to, the runtime decides
    return AVX512 or not torch.is_grad_enabled()


class ContiguousLevel(torch.autograd.Function):
    """A level as it is returned, contiguous, with a gradient that is channels last again.

    MMCV's RoIAlign reads any tensor as if it lay in memory as (N, C, H, W). A gradient that does
    would have max pooling copy the largest tensors of the network.
    """

    @staticmethod
    def forward(ctx, level):
        return level.contiguous()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.contiguous(memory_format=torch.channels_last)


def init_parameters(module):
    """Initialise one layer as the authors do."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
    if isinstance(module, (nn.Linear, nn.Conv2d)) and module.bias is not None:
        nn.init.zeros_(module.bias)


@MODELS.register_module()
class ConvMLP(BaseModule):
    """ConvMLP backbone: an image of any size to its feature pyramid.

    The levels F1 to F4 have strides 4, 8, 16, 32 and 64, 128, 256, 512 channels in sizes s and m,
    96, 192, 384, 768 in size l. What lies behind the last wanted level is not built.

    Args:
        arch (str | dict): ``'s'``, ``'m'``, ``'l'``, or a dict with the keys of those in
            :data:`convmlp_backbone.archs.ARCHS` and, optionally, of ``ABLATION`` there.
        in_channels (int): Channels of the image.
        out_indices (Sequence[int]): The levels to return, 0 (F1) to 3 (F4), in this order.
        drop_path_rate (float): Stochastic depth of every Conv-MLP stage's last block, in [0, 1).
        norm_cfg (dict): Norm layers of the tokenizer and the conv stage.
        frozen_stages (int): Freeze all that produces the levels up to this index, BN statistics
            included; -1: nothing.
        norm_eval (bool): Keep the statistics of all batch norms still in training.
        with_cp (bool): Save memory in training: compute the blocks' activations again in the
            backward pass.
        init_cfg (dict, optional): ``dict(type='Pretrained', checkpoint=...)`` loads weights, see
            :func:`convmlp_backbone.checkpoints.load_backbone`.

    Attributes:
        out_channels (tuple[int]): Channels of the returned levels.
        out_strides (tuple[int]): Strides of the returned levels, in pixels.
    """

    fused = False

    def __init__(self, arch='s', in_channels=3, out_indices=(0, 1, 2, 3), drop_path_rate=0.1,
                 norm_cfg=dict(type='BN'), frozen_stages=-1, norm_eval=False, with_cp=False,
                 init_cfg=None):
        super().__init__(init_cfg)
        arch = resolve_arch(arch)
        if not (isinstance(in_channels, int) and in_channels > 0):
            raise ValueError(f'in_channels={in_channels!r}: expected a positive integer')
        if not 0 <= drop_path_rate < 1:
            raise ValueError(f'drop_path_rate={drop_path_rate!r}: expected 0 <= rate < 1')
        if frozen_stages not in range(-1, 4):
            raise ValueError(f'frozen_stages={frozen_stages!r}: expected -1 (none), 0, 1, 2 or 3')
        if (not isinstance(out_indices, (tuple, list)) or not out_indices
                or any(i not in range(4) for i in out_indices)
                or len(set(out_indices)) < len(out_indices)):
            raise ValueError(f'out_indices={out_indices!r}: expected a tuple of one or more of '
                             '0, 1, 2, 3, each at most once')

        channels, dims = arch['channels'], arch['dims']
        self.in_channels = in_channels
        self.out_indices = tuple(out_indices)
        self.out_channels = tuple((channels, *dims)[i] for i in out_indices)
        self.out_strides = tuple((4, 8, 16, 32)[i] for i in out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        last = max(out_indices)
        self.tokenizer = Tokenizer(in_channels, channels, norm_cfg, with_cp)
        if last >= 1:
            self.conv_stages = ConvStage(
                channels, dims[0], dims[0], arch['conv_blocks'], norm_cfg,
                arch['conv_downsample'], with_cp)
        self.stages = nn.ModuleList(
            ConvMLPStage(dims[i], dims[i + 1] if i < 2 else None, arch['mlp_blocks'][i],
                         arch['mlp_ratio'], arch['depthwise'], arch['conv_downsample'],
                         drop_path_rate, with_cp)
            for i in range((0, 0, 1, 3)[last]))
        self.apply(init_parameters)
        self._freeze()

    def init_weights(self):
        """Load the checkpoint of ``init_cfg``, if it names one, and raise where it does not fit."""
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            from .checkpoints import load_backbone
            load_backbone(self, self.init_cfg['checkpoint'])
            self._is_init = True
        else:
            super().init_weights()

    def forward(self, x):
        """Compute the feature pyramid.

        Args:
            x (Tensor): Images (N, in_channels, H, W) of any size from 1x1.

        Returns:
            tuple[Tensor]: A level (N, out_channels[k], ceil(H / out_strides[k]),
            ceil(W / out_strides[k])) for every k-th entry of ``out_indices``.

        Raises:
            ValueError: If ``x`` has another number of dimensions or channels.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise ValueError(f'ConvMLP expects images of shape (N, {self.in_channels}, H, W), '
                             f'got {tuple(x.shape)}')
        if channels_last := channels_last_pays(x):
            x = x.contiguous(memory_format=torch.channels_last)
        last = max(self.out_indices)
        levels = [self.tokenizer(x)]
        if last >= 1:
            levels.append(self.conv_stages(levels[0]))
        if last >= 2:
            x = self.stages[0](levels[1].permute(0, 2, 3, 1).contiguous())
            levels.append(x.permute(0, 3, 1, 2))
        if last == 3:
            x = self.stages[2](self.stages[1](x))
            levels.append(x.permute(0, 3, 1, 2))
        contiguous = (ContiguousLevel.apply if channels_last and torch.is_grad_enabled()
                      else torch.Tensor.contiguous)
        return tuple(contiguous(levels[i]) for i in self.out_indices)

    def fuse(self):
        """Fold all that folds exactly, for inference, and return ``self``.

        Batch norms go into the convolutions, the scale and shift of layer norms into the linear
        layers behind them; on a CPU, activations and residual additions are done in the same pass.
        Outputs stay the same up to rounding, the names of the parameters that remain too.

        Raises:
            RuntimeError: If the model is in training mode.
        """
        if self.training:
            raise RuntimeError('fuse() is for inference only: call eval() first')
        if not self.fused:
            from .fused import fuse
            fuse(self)
            self.fused = True
        return self

    def train(self, mode=True):
        if mode and self.fused:
            raise RuntimeError('a fused ConvMLP cannot be trained: build it anew')
        super().train(mode)
        self._freeze()
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze(self):
        level = {'tokenizer': 0, 'conv_stages': 1, 'stages.0': 2, 'stages.1': 3, 'stages.2': 3}
        for name, module in self.named_modules():
            if level.get(name, 4) <= self.frozen_stages:
                module.eval().requires_grad_(False)
