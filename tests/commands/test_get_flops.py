"""Parameters and MACs, counted."""

import csv
import io

import pytest
from conftest import ROOT
from torch import nn

from convmlp_backbone.commands.get_flops import ablation_table, count, format_table
from convmlp_backbone.commands.models import build_model
from convmlp_backbone.errors import UserError

# The design's table: parameters of the backbone and GMACs at 224x224, to three digits.
SIZES = dict(s=(8_508_896, 2.385), m=(16_896_480, 3.929), l=(41_957_904, 9.870))


@pytest.mark.parametrize('size', SIZES)
def test_sizes(size):
    model, shape = build_model(size)
    parameters, macs = count(model, shape)['']
    assert parameters == SIZES[size][0]
    assert macs / 1e9 == pytest.approx(SIZES[size][1], abs=1e-3)


def test_every_mac_of_a_small_network():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 4 * 5, 7)
    )
    table = count(model, (4, 5))
    convolution, linear = 4 * 5 * 8 * 3 * 9, 8 * 4 * 5 * 7
    assert table['0'] == (3 * 8 * 9 + 8, convolution) and table['3'][1] == linear
    assert table['1'] == (16, 0) and table[''][1] == convolution + linear


@pytest.mark.parametrize(
    'config',
    [
        'retinanet_convmlp_s_fpn_coins',
        'maskrcnn_convmlp_s_fpn_coins',
        'fpn_convmlp_s_coins',
        'convmlp_s_cifar10',
    ],
)
def test_parts_of_a_config_add_up(config):
    if config.startswith('convmlp_'):
        pytest.importorskip('mmpretrain')
    model, _ = build_model(config)
    table = count(model, (64, 64))
    parts = [table[name] for name, _ in model.named_children() if name in table]
    assert tuple(map(sum, zip(*parts, strict=True))) == table['']
    assert table['backbone'] == count(build_model('s')[0], (64, 64))['']
    head = next(name for name in ('bbox_head', 'roi_head', 'decode_head', 'head') if name in table)
    assert table[head][1] > 0


def test_number_of_proposals_comes_from_the_config():
    model, _ = build_model('maskrcnn_convmlp_s_fpn_coins')
    boxes = model.test_cfg.rpn.max_per_img
    shared = count(model, (64, 64))['roi_head.bbox_head.shared_fcs.0']
    assert shared[1] == boxes * 256 * 7 * 7 * model.roi_head.bbox_head.fc_out_channels


def test_timm_models():
    pytest.importorskip('timm')
    model, shape = build_model('mixer_b16_224')
    parameters, macs = count(model, shape)['']
    # MMPretrain's table (configs/mlp_mixer/README.md): 59.88 M, 12.61 G with the norms.
    assert (round(parameters / 1e6, 2), round(macs / 1e9, 1)) == (59.88, 12.6)
    with pytest.raises(UserError, match='256x256.*224'):
        count(model, (256, 256))


def test_table_in_the_docs_is_what_the_tool_prints():
    table = format_table(*ablation_table('s', None)[:2], markdown=True)
    assert '\n'.join(table) in (ROOT / 'docs/classification.md').read_text()


def test_program(call_tool):
    rows = list(csv.reader(io.StringIO(call_tool('get_flops', 's', '--csv', '--depth', 1))))
    assert rows[0] == ['module', 'parameters', 'MACs'] and rows[1][:2] == ['ConvMLP', '8508896']
    assert [row[0] for row in rows[2:]] == ['tokenizer', 'conv_stages', 'stages']
    text = call_tool('get_flops', 'm-pure-mlp', '--shape', 64)
    assert 'Input 3x64x64' in text and 'Not counted' in text
    assert call_tool('get_flops', 'retinanet_s').startswith('error: retinanet_s is no timm')
    assert call_tool('get_flops', 's', '--shape', 1, 2, 3).startswith('error: --shape 1 2 3')
