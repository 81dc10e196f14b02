from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from convmlp_backbone import ConvMLP
from convmlp_backbone.layer_decay import backbone_layers

TINY = dict(channels=8, conv_blocks=2, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2)


def test_layers():
    layers = backbone_layers(ConvMLP(TINY))
    first_of_layer = {layer: name for name, layer in reversed(layers.items())}
    assert [first_of_layer[i].rsplit('.', 2)[0] for i in range(7)] == [
        'tokenizer.block',
        'conv_stages.conv_blocks.0',
        'conv_stages.conv_blocks.1',
        'stages.0.blocks.0',
        'stages.1.blocks.0',
        'stages.1.blocks.1',
        'stages.2.blocks.0',
    ]
    assert list(layers.values()) == sorted(layers.values()) and max(layers.values()) == 6
    assert layers['conv_stages.downsample.weight'] == 2
    assert layers['stages.1.downsample_mlp.downsample.bias'] == 5


def test_layers_of_size_s():
    assert max(backbone_layers(ConvMLP('s')).values()) == 2 + 2 + 4 + 2


class Detector(nn.Module):
    def __init__(self, **kwargs):
        super().__init__()
        self.backbone = ConvMLP(TINY, **kwargs)
        self.neck = nn.Conv2d(24, 8, 1)
        self.head = nn.Linear(8, 2)


def build(model, **paramwise_cfg):
    """``{name: group}`` of an optimizer at lr 0.1, weight decay 0.01."""
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor='ConvMLPLayerDecay',
            optimizer=dict(type='AdamW', lr=0.1, weight_decay=0.01),
            paramwise_cfg=paramwise_cfg,
        ),
    )
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: group for group in wrapper.optimizer.param_groups for p in group['params']
    }


def test_rates():
    model = Detector()
    groups = build(model, layer_decay_rate=0.5)
    assert set(groups) == {name for name, _ in model.named_parameters()}
    assert groups['head.weight']['lr'] == groups['neck.bias']['lr'] == 0.1
    assert groups['backbone.stages.2.blocks.0.norm1.weight']['lr'] == pytest.approx(0.1 / 2)
    assert groups['backbone.stages.1.downsample_mlp.downsample.weight']['lr'] == pytest.approx(
        0.1 / 4
    )
    assert groups['backbone.tokenizer.block.0.weight']['lr'] == pytest.approx(0.1 / 2**7)
    assert {group['weight_decay'] for group in groups.values()} == {0.01}


def test_options_of_the_default_constructor():
    groups = build(
        Detector(),
        layer_decay_rate=0.5,
        norm_decay_mult=0,
        bias_decay_mult=0,
        custom_keys={'head': dict(lr_mult=3)},
    )
    assert groups['backbone.tokenizer.block.1.weight']['weight_decay'] == 0
    assert groups['backbone.conv_stages.downsample.bias']['weight_decay'] == 0
    assert groups['backbone.conv_stages.downsample.weight']['weight_decay'] == 0.01
    assert groups['head.weight']['lr'] == pytest.approx(0.3)


def test_frozen_parameters_are_left_out():
    groups = build(Detector(frozen_stages=1), layer_decay_rate=0.5)
    assert not any(name.startswith(('backbone.tokenizer', 'backbone.conv')) for name in groups)


def test_fewer_levels():
    model = nn.Sequential(ConvMLP(TINY, out_indices=(0, 1)))
    assert build(model, layer_decay_rate=0.5)['0.tokenizer.block.0.weight']['lr'] == pytest.approx(
        0.1 / 2**3
    )


def test_wrong_use():
    with pytest.raises(ValueError, match='no ConvMLP in this Linear'):
        build(nn.Linear(2, 2), layer_decay_rate=0.5)
    for wrong in ({}, {'layer_decay_rate': 0}, {'layer_decay_rate': 1.5}):
        with pytest.raises(ValueError, match='layer_decay_rate'):
            build(Detector(), **wrong)


CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
OF_TOOLBOX = {
    'mmdet': 'retinanet_convmlp_s_fpn_1x_coco.py',
    'mmseg': 'fpn_convmlp_s_512x512_40k_ade20k.py',
    'mmpretrain': 'convmlp_s_imagenet.py',
}


@pytest.mark.parametrize('toolbox', OF_TOOLBOX)
def test_every_toolbox(toolbox):
    pytest.importorskip(toolbox)
    cfg = Config.fromfile(CONFIGS / OF_TOOLBOX[toolbox])
    cfg.model.backbone.update(arch=TINY, init_cfg=None)
    init_default_scope(toolbox)
    groups = build(MODELS.build(cfg.model), layer_decay_rate=0.5)
    assert groups['backbone.stages.2.blocks.0.norm1.weight']['lr'] == pytest.approx(0.1 / 2)
    assert {group['lr'] for name, group in groups.items() if 'backbone' not in name} == {0.1}


def test_trains():
    model = Detector()
    groups = build(model, layer_decay_rate=0.5)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    wrapper = build_optim_wrapper(
        model,
        dict(
            type='OptimWrapper',
            constructor='ConvMLPLayerDecay',
            optimizer=dict(type='SGD', lr=0.1),
            paramwise_cfg=dict(layer_decay_rate=0.5),
        ),
    )
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    wrapper.step()
    for name, p in model.named_parameters():
        torch.testing.assert_close(before[name] - p, torch.full_like(p, groups[name]['lr']))
