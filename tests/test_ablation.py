"""The switches of the paper's ablation, which are optional keys of an arch."""

import pytest
import torch
from torch import nn

from convmlp_backbone import ConvMLP
from convmlp_backbone.archs import ARCHS

TINY = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2)
SWITCHES = {
    'conv stage': dict(conv_blocks=0),
    'conv downsampling': dict(conv_downsample=False),
    'depthwise': dict(depthwise=False),
    'all, Pure-MLP': dict(conv_blocks=0, conv_downsample=False, depthwise=False),
}


@pytest.mark.parametrize('off', SWITCHES)
@pytest.mark.parametrize('size', [(1, 1), (33, 47), (64, 96)])
def test_sizes_and_gradients(off, size):
    model = ConvMLP({**TINY, **SWITCHES[off]})
    levels = model(torch.randn(2, 3, *size))
    for level, channels, stride in zip(levels, (8, 8, 16, 24), (4, 8, 16, 32), strict=True):
        assert level.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
    sum(level.square().mean() for level in levels).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def parameters(**switches):
    with torch.device('meta'):
        return sum(p.numel() for p in ConvMLP({**ARCHS['s'], **switches}).parameters())


def test_parameters_of_size_s():
    whole = parameters()
    assert whole == parameters(conv_downsample=True, depthwise=True) == 8_508_896
    # Two blocks of 64 -> 128 -> 128 -> 64 channels with three batch norms.
    assert whole - parameters(conv_blocks=0) == 2 * (
        64 * 128 + 9 * 128 * 128 + 128 * 64 + 2 * (128 + 128 + 64)
    )
    # 3x3 against LayerNorm and Linear of 2x2 pixels, from 64, 128, 256 channels to 128, 256, 512.
    assert whole - parameters(conv_downsample=False) == sum(
        9 * c * 2 * c + 2 * c - (2 * 4 * c + 4 * c * 2 * c) for c in (64, 128, 256)
    )
    # A LayerNorm and a 3x3 filter for every channel.
    assert whole - parameters(depthwise=False) == (2 + 9) * (2 * 128 + 4 * 256 + 2 * 512)


def test_pure_mlp_has_no_convolution_behind_the_tokenizer():
    model = ConvMLP({**TINY, **SWITCHES['all, Pure-MLP']})
    convs = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    assert convs and all(name.startswith('tokenizer.') for name in convs)


def test_patch_merging_sees_exactly_its_four_pixels():
    stage = ConvMLP({**TINY, **SWITCHES['all, Pure-MLP']}).eval().conv_stages
    x = torch.randn(1, 8, 6, 6)
    changed = x.clone()
    changed[:, :, 2, 3] += 1
    moved = (stage(x) - stage(changed)).abs().sum(1)[0] > 0
    assert moved.nonzero().tolist() == [[1, 1]]


def test_names_are_unchanged():
    assert (
        ConvMLP({**TINY, 'depthwise': True}).state_dict().keys()
        == ConvMLP(TINY).state_dict().keys()
    )


def test_unknown_switch():
    with pytest.raises(ValueError, match='conv_downsample.*depthwise'):
        ConvMLP({**TINY, 'depth_wise': False})
