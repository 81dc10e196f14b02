"""Half the size without a convolution: of the paper's ablation and its Pure-MLP baseline."""

from torch import Tensor, nn
from torch.nn import functional as F


class PatchMerging(nn.Module):
    """Half the size without a convolution, as in Swin (https://arxiv.org/abs/2103.14030)."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(4 * in_channels)
        self.reduction = nn.Linear(4 * in_channels, out_channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, x.shape[3] % 2, 0, x.shape[2] % 2))
        x = self.norm(F.pixel_unshuffle(x, 2).permute(0, 2, 3, 1))
        return self.reduction(x).permute(0, 3, 1, 2)
