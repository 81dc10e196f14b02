"""The ConvMLP backbone of the mm toolboxes: :mod:`~convmlp_backbone.network` with its policies."""

import copy
from functools import partial
from typing import Self

from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from . import memory_format, recompute
from .archs import expect, is_whole
from .checkpoints import load_backbone
from .fused import fuse
from .initialisation import init_parameters
from .network import Network
from .norms import norm_layer


@MODELS.register_module()
class ConvMLP(Network, BaseModule):
    """ConvMLP backbone: an image of any size to its feature pyramid.

    F1 to F4 have strides 4, 8, 16, 32 and 64, 128, 256, 512 channels in sizes s and m, 96, 192,
    384, 768 in size l. What lies behind the last wanted level is not built.

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
            backward pass. Forward hooks inside the blocks are called then, too.
        init_cfg (dict, optional): ``dict(type='Pretrained', checkpoint=...)`` loads weights, see
            :func:`convmlp_backbone.checkpoints.load_backbone`.

    Attributes:
        out_channels (tuple[int]): Channels of the returned levels.
        out_strides (tuple[int]): Strides of the returned levels, in pixels.
        channels_last (bool, optional): Whether to compute as (N, H, W, C) in memory; None: where
            that pays. Levels come out as (N, C, H, W) all the same.
    """

    channels_last = None
    fused = False
    _empty = False

    def __init__(
        self,
        arch: str | dict = 's',
        in_channels: int = 3,
        out_indices: tuple[int, ...] = (0, 1, 2, 3),
        drop_path_rate: float = 0.1,
        norm_cfg: dict = dict(type='BN'),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ):
        expect(is_whole(in_channels, 1), 'in_channels', in_channels, 'a positive integer')
        holds = isinstance(drop_path_rate, (int, float)) and 0 <= drop_path_rate < 1
        expect(holds, 'drop_path_rate', drop_path_rate, '0 <= rate < 1')
        holds = is_whole(frozen_stages, -1) and frozen_stages < 4
        expect(holds, 'frozen_stages', frozen_stages, '-1 (none), 0, 1, 2 or 3')
        levels = out_indices if isinstance(out_indices, (tuple, list)) else ()
        holds = 0 < len(levels) == sum(level in levels for level in range(4))
        expect(holds, 'out_indices', out_indices, 'some of 0, 1, 2, 3, each at most once')
        norm = partial(norm_layer, norm_cfg)
        super().__init__(arch, in_channels, drop_path_rate, norm, max(out_indices))
        self.init_cfg = copy.deepcopy(init_cfg)
        self.in_channels, self.out_indices = in_channels, tuple(out_indices)
        self.out_channels = tuple(self.channels[i] for i in out_indices)
        self.out_strides = tuple(self.STRIDES[i] for i in out_indices)
        self.frozen_stages, self.norm_eval = frozen_stages, norm_eval
        recompute.apply(self, with_cp)
        self.train()

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``, if it names one, and raise where it does not fit.

        Else the values of the constructor stay, if there are any: the meta device holds none.
        """
        if self._empty:
            self.apply(init_parameters)
            self._empty = False
        if isinstance(self.init_cfg, dict) and self.init_cfg.get('type') == 'Pretrained':
            load_backbone(self, self.init_cfg['checkpoint'])
            self._is_init = True
        else:
            super().init_weights()

    def _apply(self, fn, recurse=True):
        parameter = next(self.parameters())
        super()._apply(fn, recurse)
        self._empty |= parameter.is_meta and not next(self.parameters()).is_meta  # to_empty()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, in_channels, H, W) of any size from 1x1 to the wanted levels.

        The k-th is (N, out_channels[k], ceil(H / out_strides[k]), ceil(W / out_strides[k])).
        ValueError: ``x`` has another number of dimensions or channels.
        """
        if isinstance(x, Tensor) and (x.dim() != 4 or x.shape[1] != self.in_channels):
            shape, expected = tuple(x.shape), f'(N, {self.in_channels}, H, W)'
            raise ValueError(f'ConvMLP expects images of shape {expected}, got {shape}')
        levels = self.levels(memory_format.enter(x, self.channels_last), self.last)
        return tuple(memory_format.leave(levels[i]) for i in self.out_indices)

    def fuse(self, portable: bool = False) -> 'ConvMLP':
        """Fold norms into the layers beside them, for inference, and return ``self``.

        On a CPU, activations and additions are done in the same pass over the memory; ``portable``
        leaves PyTorch's own layers, as FLOP counters and quantisers know them. Outputs stay the
        same up to rounding, parameters that remain keep their names. RuntimeError: in training.
        """
        if self.training:
            raise RuntimeError('fuse() is for inference only: call eval() first')
        if not self.fused:
            fuse(self, portable)
            self.fused = True
        return self

    def train(self, mode: bool = True) -> Self:
        if mode and self.fused:
            raise RuntimeError('a fused ConvMLP cannot be trained: build it anew')
        super().train(mode)
        parts = self.tokenizer, self.conv_stages, self.stages[0], self.stages[1:]
        for part in parts[: self.frozen_stages + 1]:
            part.eval().requires_grad_(False)
        if self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self
