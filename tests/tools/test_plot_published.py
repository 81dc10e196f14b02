"""Figures of published results."""

import plot_published as tool
import pytest
from PIL import Image

from convmlp_backbone.commands.get_flops import count
from convmlp_backbone.commands.models import build_model


def test_every_point_has_a_source():
    results, sources = tool.read_published()
    assert {len([r for r in task if r['family'] == 'ConvMLP']) for task in results.values()} == {3}
    for task in results.values():
        for result in task:
            assert result['source'] == 'paper' or sources[result['source']].startswith('https://')
            assert 30 < result['score'] < 90
    families = {result['family'] for result in results['classification']}
    assert len(families) == len(tool.COLORS) == len(tool.MARKERS)


@pytest.mark.parametrize(
    'model',
    [
        'resnet18',
        'deit_tiny_patch16_224',
        'resmlp_12_224',
        'mixer_b16_224',
        'tf_efficientnet_b3',
        'gmlp_s16_224',
    ],
)
def test_costs_are_counted(model):
    pytest.importorskip('timm')
    (result,) = (r for r in tool.read_published()[0]['classification'] if r['model'] == model)
    assert count(*build_model(model))[''] == (result['parameters'], result['macs'])


def test_program(call_tool, tmp_path):
    call_tool('dev/plot_published.py', '--out-dir', 'figures')
    for file in ('imagenet.png', 'downstream.png'):
        assert Image.open(tmp_path / 'figures' / file).width > 1000
