import pytest
import torch
from tiny_models import ARCH
from torch import nn

from convmlp_backbone import ConvMLP
from convmlp_backbone.archs import NAMES
from convmlp_backbone.commands.models import build_model
from convmlp_backbone.tiling.reach import reach_of

# Without depthwise convolutions the conv stage is what sees farthest.
HALOS = {'s': 192, 'm': 288, 'l': 320, 's-pure-mlp': 32}


@pytest.mark.parametrize('name', HALOS)
def test_halo_of_a_size(name):
    assert name in NAMES
    model = build_model(name)[0]
    assert reach_of(model, model)[:2] == (32, HALOS[name])


@pytest.mark.parametrize(
    'changes',
    [
        {},
        dict(conv_blocks=3, mlp_blocks=(0, 1, 3)),
        dict(mlp_blocks=(3, 0, 1)),
        dict(conv_downsample=False),
        dict(depthwise=False, conv_blocks=2),
    ],
)
@torch.no_grad()
def test_tiles_have_the_features_of_the_whole_image(changes):
    """With the halo, and not with less; in float64, lest rounding is taken for a difference."""
    torch.manual_seed(0)
    model = ConvMLP({**ARCH, **changes}).eval()
    step, halo, _ = reach_of(model, model)
    model, size = model.double(), 64
    images = torch.randn(1, 3, 2 * halo + 2 * size, 2 * halo + 2 * size, dtype=torch.float64)
    start, up_to = halo + 32, halo + 32 + size

    def differences(halo):
        low, high = start - halo, up_to + halo
        for stride, all_, own in zip(
            model.out_strides, model(images), model(images[:, :, low:high, low:high]), strict=True
        ):
            whole = all_[:, :, start // stride : up_to // stride, start // stride : up_to // stride]
            first, number = halo // stride, size // stride
            yield (whole - own[:, :, first : first + number, first : first + number]).abs().max()

    assert max(differences(halo)) < 1e-12
    assert max(differences(halo - step)) > 1e-10


@pytest.mark.parametrize(
    'layer, sees_all',
    [
        (nn.Conv2d(4, 4, 5, padding=2), False),
        (nn.Conv2d(4, 4, (1, 9), padding=(0, 4)), False),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Upsample(size=(8, 8))), True),
        (nn.GroupNorm(2, 4), True),
        (nn.BatchNorm2d(4, track_running_stats=False), True),
    ],
)
def test_layers_that_see_the_whole_image_are_named(layer, sees_all):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.layer = nn.Conv2d(3, 4, 4, 4), layer

        def forward(self, images):
            return [self.layer(self.stem(images))]

    model = Net().eval()
    found = reach_of(model, model, steps=(4,))
    if sees_all:
        assert found.halo is None and found.culprit.startswith('layer')
    else:
        assert found.halo == (8 if layer.kernel_size == (5, 5) else 16)
