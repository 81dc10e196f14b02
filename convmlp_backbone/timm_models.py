"""ConvMLP for timm: ``import convmlp_backbone``, then ``timm.create_model('convmlp_s')``, m or l.

The backbone's own modules with the published classifier: LayerNorm over the channels at every
location, mean over the locations, Linear. Parameter names are the published ones.
"""
import torch
from timm import models
from timm.layers import LayerNorm2d, create_classifier
from timm.models._features import feature_take_indices
from torch import nn

from . import recompute
from .checkpoints import BASE_URL, load, unwrap
from .network import Network, init_parameters


class TimmConvMLP(Network):
    """ConvMLP image classifier: images (N, in_chans, H, W) to logits (N, num_classes).

    Args:
        arch (str | dict): As of :class:`convmlp_backbone.ConvMLP`.
        num_classes (int): 0 for the pooled features instead of logits.
        in_chans (int): Channels of the images.
        global_pool (str): timm's name of a pooling over the locations; ``''``, which needs
            ``num_classes=0``, for none.
        drop_rate (float): Dropout before the last linear layer.
        drop_path_rate (float): As of :class:`convmlp_backbone.ConvMLP`.
    """

    def __init__(self, arch='s', num_classes=1000, in_chans=3, global_pool='avg', drop_rate=0.,
                 drop_path_rate=0.1):
        super().__init__(arch, in_chans, drop_path_rate)
        # These give (N, C, H, W), so that timm can tap them by a hook or by fx.
        modules = 'tokenizer', 'conv_stages', 'stages.0', 'stages.2'
        self.feature_info = [
            dict(num_chs=channels, reduction=stride, module=module)
            for channels, stride, module in zip(self.channels, self.STRIDES, modules, strict=True)]
        self.num_features = self.head_hidden_size = self.channels[-1]
        self.norm = LayerNorm2d(self.num_features, eps=1e-5)
        self.head_drop = nn.Dropout(drop_rate)
        recompute.apply(self)
        self.reset_classifier(num_classes, global_pool)

    def forward_features(self, x):
        """Images to the last level, normalised: (N, num_features, ceil(H / 32), ceil(W / 32))."""
        return self.norm(self.levels(x)[3])

    def forward_head(self, x, pre_logits: bool = False):
        x = self.head_drop(self.global_pool(x))
        return x if pre_logits else self.head(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(self, x, indices=None, norm=False, stop_early=False,
                              output_fmt='NCHW', intermediates_only=False):
        """The levels F1 to F4 that ``indices`` names, alone or as (final features, levels).

        Args:
            x (Tensor): Images.
            indices (int | Sequence[int], optional): The last so many levels, or these; None: all.
            norm (bool): Normalise F4.
            stop_early (bool): Nothing behind the last level is computed if only levels are wanted,
                and everything otherwise, whatever this says.
            output_fmt (str): Must be ``'NCHW'``.
            intermediates_only (bool): Return the list of levels instead of (features, levels).
        """
        if output_fmt != 'NCHW':
            raise ValueError(f'output_fmt={output_fmt!r}: expected NCHW')
        wanted, last = feature_take_indices(4, indices)
        if not intermediates_only:
            last = 3
        levels = self.levels(x, last)
        features = self.norm(levels[3]) if last == 3 else x
        if norm and last == 3:
            levels[3] = features
        levels = [levels[i] for i in wanted]
        return levels if intermediates_only else (features, levels)

    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        """Remove what the levels ``indices`` do not need; returns them counted from 0."""
        wanted, last = feature_take_indices(4, indices)
        if last < 1:
            self.conv_stages = nn.Identity()
        for i, level in enumerate((2, 3, 3)):
            if last < level:
                self.stages[i] = nn.Identity()
        if prune_norm or last < 3:
            self.norm = nn.Identity()
        if prune_head or last < 3:
            self.reset_classifier(0, '')
        return wanted

    def get_classifier(self):
        return self.head

    def reset_classifier(self, num_classes, global_pool=None):
        self.num_classes = num_classes
        if global_pool is None:
            global_pool = self.global_pool.pool_type
        self.global_pool, self.head = create_classifier(
            self.num_features, num_classes, pool_type=global_pool)
        init_parameters(self.head)
        like = next(self.parameters())
        self.head.to(like.device, like.dtype)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable=True):
        recompute.apply(self, with_cp=enable)

    @torch.jit.ignore
    def no_weight_decay(self):
        """timm leaves norms and biases out by itself; there is nothing else."""
        return set()

    @torch.jit.ignore
    def group_matcher(self, coarse=False):
        """Layers from the image to the head, as in :mod:`convmlp_backbone.layer_decay`."""
        if coarse:
            return dict(stem='^tokenizer', conv='^conv_stages', blocks=r'^stages\.(\d+)')
        previous = (99999,)  # timm's sign for: belongs to the layer before
        return dict(
            stem='^tokenizer',
            conv=[(r'^conv_stages\.conv_blocks\.(\d+)', None), ('^conv_stages', previous)],
            blocks=[(r'^stages\.(\d+)\.blocks\.(\d+)', None), (r'^stages\.(\d+)', previous),
                    ('^norm', previous)])


# The published files of every size. register_model reads default_cfgs, so it stands before it.
TAGS = {
    'in1k': dict(file='imagenet', num_classes=1000, crop_pct=0.9, mean=(0.485, 0.456, 0.406),
                 std=(0.229, 0.224, 0.225)),
    'cifar10': dict(file='cifar10', num_classes=10, mean=(0.4914, 0.4822, 0.4465),
                    std=(0.2470, 0.2435, 0.2616)),
    'cifar100': dict(file='cifar100', num_classes=100, mean=(0.5071, 0.4867, 0.4408),
                     std=(0.2675, 0.2565, 0.2761)),
    'flowers102': dict(file='flowers102', num_classes=102, mean=(0.4353, 0.3773, 0.2872),
                       std=(0.2966, 0.2455, 0.2698)),
}


def _cfg(size, file, crop_pct=1.0, **facts):
    return dict(
        url=f'{BASE_URL}convmlp_{size}_{file}.pth', input_size=(3, 224, 224), pool_size=(7, 7),
        crop_pct=crop_pct, interpolation='bicubic', first_conv='tokenizer.block.0',
        classifier='head', license='apache-2.0', paper_ids='arXiv:2109.04454',
        paper_name='ConvMLP: Hierarchical Convolutional MLPs for Vision',
        origin_url='https://github.com/SHI-Labs/Convolutional-MLPs', **facts)


default_cfgs = models.generate_default_cfgs({
    f'convmlp_{size}.{tag}': _cfg(size, **facts) for size in 'sml' for tag, facts in TAGS.items()})


def _create(name, pretrained, pretrained_cfg=None, pretrained_cfg_overlay=None, **kwargs):
    overlay = dict(pretrained_cfg_overlay or {})
    cfg = models.resolve_pretrained_cfg(name, pretrained_cfg, overlay)
    # Read here: an old timm would run what it does not know, and none looks into
    # CONVMLP_CHECKPOINTS.
    source = cfg.file or (cfg.url if (cfg.url or '').startswith(BASE_URL) else None)
    if pretrained and source and not (cfg.source or cfg.state_dict):
        overlay['state_dict'] = {
            name.removeprefix('module.'): v for name, v in unwrap(load(source))[1].items()}
    model = models.build_model_with_cfg(
        TimmConvMLP, name, pretrained, pretrained_cfg, overlay,
        feature_cfg=dict(out_indices=(0, 1, 2, 3), feature_cls='getter'), **kwargs)
    for part in model.modules():
        getattr(part, 'pretrained_cfg', {}).pop('state_dict', None)
    return model


@models.register_model
def convmlp_s(pretrained=False, **kwargs):
    return _create('convmlp_s', pretrained, **{'arch': 's', **kwargs})


@models.register_model
def convmlp_m(pretrained=False, **kwargs):
    return _create('convmlp_m', pretrained, **{'arch': 'm', **kwargs})


@models.register_model
def convmlp_l(pretrained=False, **kwargs):
    return _create('convmlp_l', pretrained, **{'arch': 'l', **kwargs})
