"""ConvMLP: Hierarchical Convolutional MLPs for Vision (Li, Hassani, Walton, Shi).

Paper: https://arxiv.org/abs/2109.04454. The whole network, in the order in which an image passes
through it: tokenizer, conv stage, three Conv-MLP stages. Module names are those of the published
checkpoints (https://github.com/SHI-Labs/Convolutional-MLPs). Needs PyTorch alone.
"""

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from .archs import resolve_arch
from .initialisation import init_parameters
from .patch_merging import PatchMerging

Norm = Callable[[int], nn.Module]  # makes one for a number of channels


def conv_norm_relu(
    in_channels: int, channels: int, kernel_size: int, norm: Norm, stride: int = 1
) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(in_channels, channels, kernel_size, stride, kernel_size // 2, bias=False)
    return conv, norm(channels), nn.ReLU(inplace=True)


def downsample(in_channels: int, out_channels: int, conv: bool) -> nn.Module:
    if conv:
        return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)
    return PatchMerging(in_channels, out_channels)


class Tokenizer(nn.Module):
    """Image (N, in_channels, H, W) to F1 (N, channels, ceil(H / 4), ceil(W / 4))."""

    def __init__(self, in_channels: int, channels: int, norm: Norm):
        super().__init__()
        self.block = nn.Sequential(
            *conv_norm_relu(in_channels, channels // 2, 3, norm, stride=2),
            *conv_norm_relu(channels // 2, channels // 2, 3, norm),
            *conv_norm_relu(channels // 2, channels, 3, norm),
            nn.MaxPool2d(3, 2, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class ConvStage(nn.Module):
    """Residual bottleneck blocks of convolutions, F1 to F2 (half the size); paper, section 3.3."""

    def __init__(self, channels: int, out_channels: int, norm: Norm, parts: dict):
        super().__init__()
        self.conv_blocks = nn.ModuleList(
            nn.Sequential(
                *conv_norm_relu(channels, out_channels, 1, norm),
                *conv_norm_relu(out_channels, out_channels, 3, norm),
                *conv_norm_relu(out_channels, channels, 1, norm),
            )
            for _ in range(parts['conv_blocks'])
        )
        self.downsample = downsample(channels, out_channels, parts['conv_downsample'])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.conv_blocks:
            x = x + block(x)
        return self.downsample(x)


class DropPath(nn.Module):
    """In training, zeroes whole samples with probability ``p`` (https://arxiv.org/abs/1603.09382)."""

    def __init__(self, p: float):
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if self.p == 0 or not self.training:
            return x
        keep = x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(1 - self.p)
        return x * keep.div_(1 - self.p)

    def extra_repr(self) -> str:
        return f'p={self.p:.3f}'


def mlp(dim: int, hidden: int) -> nn.Sequential:
    """Two linear layers over the channels, the last dimension."""
    return nn.Sequential(
        OrderedDict(fc1=nn.Linear(dim, hidden), act=nn.GELU(), fc2=nn.Linear(hidden, dim))
    )


class ConvMLPBlock(nn.Module):
    """MLP, depthwise convolution (no residual), MLP on (N, H, W, dim); paper, section 3.4."""

    def __init__(self, dim: int, mlp_ratio: float, depthwise: bool, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.channel_mlp1 = mlp(dim, int(dim * mlp_ratio))
        self.connect_norm: nn.Module = nn.Identity()
        self.connect: nn.Module = nn.Identity()
        if depthwise:
            self.connect_norm = nn.LayerNorm(dim)
            self.connect = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm2 = nn.LayerNorm(dim)
        self.channel_mlp2 = mlp(dim, int(dim * mlp_ratio))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.channel_mlp1(self.norm1(x)))
        x = self.connect(self.connect_norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.drop_path(self.channel_mlp2(self.norm2(x)))


class ConvMLPStage(nn.Module):
    """Conv-MLP blocks, channels last inside, then half the size unless ``out_dim`` is None."""

    def __init__(
        self, dim: int, out_dim: int | None, num_blocks: int, drop_path: float, parts: dict
    ):
        super().__init__()
        # The drop path rises from 0 to its rate within every stage, as in the authors' code.
        rates = [drop_path * i / max(1, num_blocks - 1) for i in range(num_blocks)]
        kind = parts['mlp_ratio'], parts['depthwise']
        self.blocks = nn.Sequential(*(ConvMLPBlock(dim, *kind, rate) for rate in rates))
        self.downsample_mlp = nn.Sequential()
        if out_dim:
            self.downsample_mlp.downsample = downsample(dim, out_dim, parts['conv_downsample'])

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(x.permute(0, 2, 3, 1).contiguous())
        return self.downsample_mlp(x.permute(0, 3, 1, 2))


class Network(nn.Module):
    """Images (N, in_channels, H, W) of any size from 1x1 to the levels F1 to F4.

    Level i is (N, channels[i], ceil(H / STRIDES[i]), ceil(W / STRIDES[i])).

    Args:
        arch (str | dict): See :func:`convmlp_backbone.archs.resolve_arch`.
        norm (Callable): Makes the norm of the convolutions for a number of channels.
        last (int): The last level wanted, 0 to 3; what lies behind it is not built.
    """

    STRIDES = 4, 8, 16, 32

    def __init__(
        self,
        arch: str | dict = 's',
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        norm: Norm = nn.BatchNorm2d,
        last: int = 3,
    ):
        super().__init__()
        parts = resolve_arch(arch)
        self.last = last
        c1, c2, c3, c4 = self.channels = (parts['channels'], *parts['dims'])
        blocks = parts['mlp_blocks']
        self.tokenizer = Tokenizer(in_channels, c1, norm)
        self.conv_stages: nn.Module = nn.Identity()
        self.stages = nn.ModuleList(nn.Identity() for _ in range(3))
        if last >= 1:
            self.conv_stages = ConvStage(c1, c2, norm, parts)
        if last >= 2:
            self.stages[0] = ConvMLPStage(c2, c3, blocks[0], drop_path_rate, parts)
        if last >= 3:
            self.stages[1] = ConvMLPStage(c3, c4, blocks[1], drop_path_rate, parts)
            self.stages[2] = ConvMLPStage(c4, None, blocks[2], drop_path_rate, parts)
        self.apply(init_parameters)

    def levels(self, x: Tensor, last: int = 3) -> list[Tensor]:
        """The levels up to ``last``, from F1 on; F3 and F4 are permuted views."""
        levels = [self.tokenizer(x)]
        if last >= 1:
            levels.append(self.conv_stages(levels[0]))
        if last >= 2:
            levels.append(self.stages[0](levels[1]))
        if last >= 3:
            levels.append(self.stages[2](self.stages[1](levels[2])))
        return levels

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(level.contiguous() for level in self.levels(x, self.last))
