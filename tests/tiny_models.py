"""Models of every kind that is exported, small, with weights that find objects of all scores."""

import torch
from mmengine.config import Config

from convmlp_backbone.commands.models import build_from_config

ARCH = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2)
NECK = dict(in_channels=[8, 8, 16, 24], out_channels=8)
CLASSES = ('square', 'disc', 'star')
CHANGES = dict(
    retinanet=(
        'retinanet_convmlp_s_fpn_coins',
        dict(
            neck=NECK,
            test_cfg=dict(nms_pre=200),
            bbox_head=dict(in_channels=8, feat_channels=8, stacked_convs=1, num_classes=3),
        ),
    ),
    maskrcnn=(
        'maskrcnn_convmlp_s_fpn_coins',
        dict(
            neck=NECK,
            rpn_head=dict(in_channels=8, feat_channels=8),
            roi_head=dict(
                bbox_roi_extractor=dict(out_channels=8),
                mask_roi_extractor=dict(out_channels=8),
                bbox_head=dict(in_channels=8, fc_out_channels=16, num_classes=3),
                mask_head=dict(num_convs=1, in_channels=8, conv_out_channels=8, num_classes=3),
            ),
            test_cfg=dict(rpn=dict(nms_pre=200, max_per_img=50)),
        ),
    ),
    segmentor=(
        'fpn_convmlp_s_coins',
        dict(neck=NECK, decode_head=dict(in_channels=[8] * 4, channels=8, num_classes=3)),
    ),
    classifier=('convmlp_s_clothing', dict(head=dict(in_channels=24, num_classes=3))),
)


def tiny_config(kind, root, classes=CLASSES, **changes):
    """The config of a shipped model made small; ``changes`` of ``model``."""
    name, model = CHANGES[kind]
    cfg = Config.fromfile(root / f'configs/{name}.py')
    cfg.model.backbone = dict(
        type='ConvMLP', arch=ARCH, out_indices=(3,) if kind == 'classifier' else (0, 1, 2, 3)
    )
    for part in (model, changes):
        cfg.merge_from_dict(dict(model=part))
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].dataset.metainfo = dict(
            classes=classes, palette=[(255, 0, 0), (0, 255, 0), (0, 0, 255)][: len(classes)]
        )
    return cfg


def tiny_model(cfg, seed=0):
    torch.manual_seed(seed)
    model = build_from_config(cfg)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and 'backbone' not in name:
                parameter.normal_(std=0.7 * (parameter[0].numel() ** -0.5))
            elif parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        for part in ('bbox_head', 'rpn_head'):
            cls = getattr(getattr(model, part, None), 'retina_cls', None)
            if cls is not None:
                cls.bias.fill_(-2)
    return model
