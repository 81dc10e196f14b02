"""ConvMLP for timm: ``import convmlp_backbone``, then ``timm.create_model('convmlp_s')``, m or l.

The backbone's own modules with the published classifier: LayerNorm over the channels at every
location, mean over the locations, Linear. Parameter names are the published ones.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, List, Optional, Tuple, Union  # noqa: UP035  TorchScript reads these

import torch
from timm import models
from timm.layers import LayerNorm2d, create_classifier
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from . import recompute
from .checkpoints import BASE_URL, load, unwrap
from .initialisation import init_parameters
from .network import Network


def dilate(network: Network, output_stride: int) -> None:
    """Keep the levels at ``output_stride`` by dilation instead of strides, as DeepLab does."""
    if output_stride not in (8, 16, 32):
        raise ValueError(f'output_stride={output_stride!r}: expected 8, 16 or 32')
    dilation = 1
    stages: Iterable[Any] = network.stages
    for stage, stride in zip(stages, (16, 32, 32), strict=True):
        convs = [*(block.connect for block in stage.blocks), *stage.downsample_mlp]
        if output_stride < 32 and not all(isinstance(conv, nn.Conv2d) for conv in convs):
            raise ValueError(
                f'output_stride={output_stride}: expected 32 for an arch without '
                'strided or depthwise convolutions'
            )
        for conv in convs if dilation > 1 else ():
            conv.dilation = conv.padding = (dilation, dilation)
        if stride > output_stride:
            for conv in stage.downsample_mlp:
                conv.stride = (1, 1)
                dilation *= 2


class TimmConvMLP(Network):
    """ConvMLP image classifier: images (N, in_chans, H, W) to logits (N, num_classes).

    Args:
        arch (str | dict): As of :class:`convmlp_backbone.ConvMLP`.
        num_classes (int): 0 for the pooled features instead of logits.
        in_chans (int): Channels of the images.
        global_pool (str): timm's name of a pooling over the locations; ``''``, which needs
            ``num_classes=0``, for none.
        output_stride (int): 32, or 16 or 8: then deeper levels stay at that stride, by dilation.
        drop_rate (float): Dropout before the last linear layer.
        drop_path_rate (float): As of :class:`convmlp_backbone.ConvMLP`.
        device, dtype: Of the parameters.
    """

    def __init__(
        self,
        arch: str | dict = 's',
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = 'avg',
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.1,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        with nullcontext() if device is None else torch.device(device):
            super().__init__(arch, in_chans, drop_path_rate)
            self.norm: nn.Module = LayerNorm2d(self.channels[-1], eps=1e-5)
        dilate(self, output_stride)
        self.in_chans = in_chans
        self.num_features = self.channels[-1]
        # These give (N, C, H, W), so that timm can tap them by a hook or by fx.
        modules = 'tokenizer', 'conv_stages', 'stages.0', 'stages.2'
        self.feature_info = [
            dict(num_chs=channels, reduction=min(stride, output_stride), module=module)
            for channels, stride, module in zip(self.channels, self.STRIDES, modules, strict=True)
        ]
        self.head_drop = nn.Dropout(drop_rate)
        recompute.apply(self)
        self.to(dtype=dtype)
        self.reset_classifier(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images to the last level, normalised: (N, num_features, ceil(H / 32), ceil(W / 32))."""
        return self.norm(self.levels(x, self.last)[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.global_pool(x))
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: Optional[Union[int, List[int]]] = None,  # noqa: UP006, UP007, UP045
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = 'NCHW',
        intermediates_only: bool = False,
    ) -> Union[List[Tensor], Tuple[Tensor, List[Tensor]]]:  # noqa: UP006, UP007
        """The levels F1 to F4 that ``indices`` names, alone or as (final features, levels).

        Args:
            x (Tensor): Images.
            indices (int | Sequence[int], optional): The last so many levels, or these; None: all.
            norm (bool): Normalise F4.
            stop_early (bool): Compute nothing behind the last level that is wanted; so it is
                anyway where only levels are.
            output_fmt (str): Must be ``'NCHW'``.
            intermediates_only (bool): Return the list of levels instead of (features, levels).
        """
        if output_fmt != 'NCHW':
            raise ValueError(f'output_fmt={output_fmt}: expected NCHW')
        wanted, last = feature_take_indices(self.last + 1, indices)
        if not (stop_early or intermediates_only):
            last = self.last
        levels = self.levels(x, last)
        features = self.norm(levels[-1]) if last == self.last else levels[-1]
        if norm and last == 3:
            levels[3] = features
        levels = [levels[i] for i in wanted]
        if intermediates_only:
            return levels
        return features, levels

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove what the levels ``indices`` do not need; returns them counted from 0."""
        wanted, last = feature_take_indices(self.last + 1, indices)
        nothing = nn.Identity().train(self.training)
        if last < 1:
            self.conv_stages = nothing
        for i, level in enumerate((2, 3, 3)):
            if last < level:
                self.stages[i] = nothing
        if prune_norm or last < self.last:
            self.norm = nothing
        if prune_head or last < self.last:
            self.last, self.num_features = last, self.channels[last]
            self.reset_classifier(0, '')
        return wanted

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        if global_pool is None:
            global_pool = self.global_pool.pool_type
        like = next(self.parameters())
        with like.device:
            pool, self.head = create_classifier(
                self.num_features, num_classes, pool_type=global_pool
            )
            init_parameters(self.head)
        self.global_pool: Any = pool
        self.head_hidden_size = self.num_features * self.global_pool.feat_mult()
        self.head.to(dtype=like.dtype).train(self.training)
        self.global_pool.train(self.training)

    @torch.jit.ignore
    def init_weights(self) -> None:
        self.apply(init_parameters)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        recompute.apply(self, with_cp=enable)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """timm leaves norms and biases out by itself; there is nothing else."""
        return set()

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers from the image to the head, as in :mod:`convmlp_backbone.layer_decay`."""
        if coarse:
            return dict(stem='^tokenizer', conv='^conv_stages', blocks=r'^stages\.(\d+)')
        previous = (99999,)  # timm's sign for: belongs to the layer before
        return dict(
            stem='^tokenizer',
            conv=[(r'^conv_stages\.conv_blocks\.(\d+)', None), ('^conv_stages', previous)],
            blocks=[
                (r'^stages\.(\d+)\.blocks\.(\d+)', None),
                (r'^stages\.(\d+)', previous),
                ('^norm', previous),
            ],
        )


# The published files of every size. register_model reads default_cfgs, so it stands before it.
TAGS = {
    'in1k': dict(
        file='imagenet',
        num_classes=1000,
        crop_pct=0.9,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    'cifar10': dict(
        file='cifar10', num_classes=10, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616)
    ),
    'cifar100': dict(
        file='cifar100',
        num_classes=100,
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
    ),
    'flowers102': dict(
        file='flowers102',
        num_classes=102,
        mean=(0.4353, 0.3773, 0.2872),
        std=(0.2966, 0.2455, 0.2698),
    ),
}


def _cfg(size, file, crop_pct=1.0, **facts):
    return dict(
        url=f'{BASE_URL}convmlp_{size}_{file}.pth',
        input_size=(3, 224, 224),
        pool_size=(7, 7),
        crop_pct=crop_pct,
        interpolation='bicubic',
        first_conv='tokenizer.block.0',
        classifier='head',
        license='apache-2.0',
        paper_ids='arXiv:2109.04454',
        paper_name='ConvMLP: Hierarchical Convolutional MLPs for Vision',
        origin_url='https://github.com/SHI-Labs/Convolutional-MLPs',
        **facts,
    )


default_cfgs = models.generate_default_cfgs(
    {f'convmlp_{size}.{tag}': _cfg(size, **facts) for size in 'sml' for tag, facts in TAGS.items()}
)


# As the authors' YAML files call them.
AUTHORS_NAMES: dict[str, str | None] = {
    f'convmlp_{size}_classification': f'convmlp_{size}' for size in 'sml'
}


def _create(name, pretrained, pretrained_cfg=None, pretrained_cfg_overlay=None, **kwargs):
    overlay = dict(pretrained_cfg_overlay or {})
    cfg = models.resolve_pretrained_cfg(name, pretrained_cfg, overlay)
    if cfg.architecture in AUTHORS_NAMES:  # timm 1.0.31's scripts look by these, and find nothing
        pretrained_cfg, cfg = None, models.resolve_pretrained_cfg(name, None, overlay)
    # Read here: an old timm would run what it does not know, and none looks into
    # CONVMLP_CHECKPOINTS.
    source = str(cfg.file or cfg.url or '')
    ours = cfg.file or source.startswith(BASE_URL)
    if pretrained and ours and not (cfg.source or cfg.state_dict):
        overlay['state_dict'] = {
            name.removeprefix('module.'): v for name, v in unwrap(load(source))[1].items()
        }
    model = models.build_model_with_cfg(
        TimmConvMLP,
        name,
        pretrained,
        pretrained_cfg,
        overlay,
        feature_cfg=dict(out_indices=(0, 1, 2, 3), feature_cls='getter'),
        **kwargs,
    )
    for part in model.modules():
        if own := getattr(part, 'pretrained_cfg', None):
            own.pop('state_dict', None)
            _adapt(own, kwargs.get('in_chans') or own['input_size'][0])
    return model


def _adapt(cfg, in_chans):
    """What the model says of its images, from which timm makes its loaders; not before loading."""
    channels, *size = cfg['input_size']
    if in_chans != channels:
        cfg.update(
            input_size=(in_chans, *size),
            **{key: (sum(cfg[key]) / channels,) * in_chans for key in ('mean', 'std')},
        )


@models.register_model
def convmlp_s(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> TimmConvMLP:
    return _create('convmlp_s', pretrained, **{'arch': 's', **kwargs})


@models.register_model
def convmlp_m(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> TimmConvMLP:
    return _create('convmlp_m', pretrained, **{'arch': 'm', **kwargs})


@models.register_model
def convmlp_l(pretrained: bool = False, progress: bool = True, **kwargs: Any) -> TimmConvMLP:
    return _create('convmlp_l', pretrained, **{'arch': 'l', **kwargs})


models.register_model_deprecations(__name__, AUTHORS_NAMES)
