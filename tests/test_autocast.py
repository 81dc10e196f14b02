"""Mixed precision: all sizes stay finite, forward and backward."""
import pytest
import torch

from convmlp_backbone import ConvMLP
from convmlp_backbone.convmlp import ARCHS


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('arch', ARCHS)
def test_finite(arch, dtype):
    torch.manual_seed(0)
    model = ConvMLP(arch)
    images = torch.randn(2, 3, 33, 50) * 3  # beyond the range of normalised pixels
    with torch.autocast('cpu', dtype=dtype):
        levels = model(images)
        exact = [level.float() for level in levels]
    assert all(level.dtype == dtype and level.isfinite().all() for level in levels)
    sum(level.square().mean() for level in exact).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())
