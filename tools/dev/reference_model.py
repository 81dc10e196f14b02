"""ConvMLP written plainly, as the paper describes it: what tools/dev/benchmark.py measures against.

Batch norms are computed one by one, images stay (N, C, H, W) until the first Conv-MLP stage, and
every level is permuted back. The names are those of the published checkpoints.
"""
import torch
from torch import nn


def conv_norm_relu(in_channels, out_channels, kernel_size, stride=1):
    return [nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, bias=False),
            nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)]


class Mlp(nn.Module):

    def __init__(self, dim, hidden_dim):
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(dim, hidden_dim), nn.GELU(), nn.Linear(
            hidden_dim, dim)

    def forward(self, x):
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):

    def __init__(self, dim, ratio):
        super().__init__()
        self.norm1, self.channel_mlp1 = nn.LayerNorm(dim), Mlp(dim, dim * ratio)
        self.connect_norm = nn.LayerNorm(dim)
        self.connect = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm2, self.channel_mlp2 = nn.LayerNorm(dim), Mlp(dim, dim * ratio)

    def forward(self, x):
        x = x + self.channel_mlp1(self.norm1(x))
        x = self.connect(self.connect_norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.channel_mlp2(self.norm2(x))


class Stage(nn.Module):

    def __init__(self, dim, out_dim, num_blocks, ratio):
        super().__init__()
        self.blocks = nn.ModuleList(Block(dim, ratio) for _ in range(num_blocks))
        self.downsample_mlp = nn.Module()
        if out_dim:
            self.downsample_mlp.downsample = nn.Conv2d(dim, out_dim, 3, stride=2, padding=1)

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        if hasattr(self.downsample_mlp, 'downsample'):
            x = self.downsample_mlp.downsample(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x


class ReferenceConvMLP(nn.Module):
    """The backbone of a size in :data:`convmlp_backbone.convmlp.ARCHS`, given as that dict."""

    def __init__(self, channels, conv_blocks, dims, mlp_blocks, mlp_ratio):
        super().__init__()
        self.tokenizer = nn.Module()
        self.tokenizer.block = nn.Sequential(
            *conv_norm_relu(3, channels // 2, 3, stride=2),
            *conv_norm_relu(channels // 2, channels // 2, 3),
            *conv_norm_relu(channels // 2, channels, 3), nn.MaxPool2d(3, stride=2, padding=1))
        self.conv_stages = nn.Module()
        self.conv_stages.conv_blocks = nn.ModuleList(
            nn.Sequential(*conv_norm_relu(channels, dims[0], 1),
                          *conv_norm_relu(dims[0], dims[0], 3),
                          *conv_norm_relu(dims[0], channels, 1)) for _ in range(conv_blocks))
        self.conv_stages.downsample = nn.Conv2d(channels, dims[0], 3, stride=2, padding=1)
        self.stages = nn.ModuleList(
            Stage(dim, out_dim, num_blocks, mlp_ratio)
            for dim, out_dim, num_blocks in zip(dims, (*dims[1:], None), mlp_blocks, strict=True))

    def forward(self, x):
        levels = [self.tokenizer.block(x)]
        x = levels[0]
        for block in self.conv_stages.conv_blocks:
            x = x + block(x)
        levels.append(self.conv_stages.downsample(x))
        x = levels[1].permute(0, 2, 3, 1)
        for stage in self.stages[:1]:
            x = stage(x)
        levels.append(x.permute(0, 3, 1, 2).contiguous())
        for stage in self.stages[1:]:
            x = stage(x)
        levels.append(x.permute(0, 3, 1, 2).contiguous())
        return tuple(levels)


def random_statistics(model, seed=0):
    """Give every norm statistics, scales and shifts that folding must respect."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            with torch.no_grad():
                module.weight.uniform_(0.8, 1.2, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1, generator=generator)
                    module.running_var.uniform_(0.8, 1.2, generator=generator)
