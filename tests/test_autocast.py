"""Mixed precision: all sizes stay finite."""

import pytest
import torch

from convmlp_backbone import ConvMLP
from convmlp_backbone.archs import ARCHS


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('arch', ARCHS)
def test_levels_and_gradients_are_finite(arch, dtype):
    torch.manual_seed(0)
    model = ConvMLP(arch)
    images = torch.randn(2, 3, 9, 17) * 3  # beyond the range of normalised pixels
    with torch.set_grad_enabled(arch == 's'), torch.autocast('cpu', dtype=dtype):
        levels = model(images)
    assert all(level.dtype == dtype and level.isfinite().all() for level in levels)
    if arch == 's':
        sum(level.float().square().mean() for level in levels).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters())
