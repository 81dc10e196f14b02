"""model-index.yml against what it describes, and the tables made from it."""

import re

import pytest
from conftest import ROOT
from make_model_tables import pages, read_models, with_tables

from convmlp_backbone.checkpoints import BASE_URL, PUBLISHED
from convmlp_backbone.commands.get_flops import count
from convmlp_backbone.commands.models import build_model

MODELS = {model['Name']: model for model in read_models()}
# M and L differ from S only in the backbone.
COUNTED = [name for name in MODELS if '_s_' in name or 'imagenet' in name or 'fpn_conv' in name]


@pytest.mark.parametrize('name', COUNTED)
def test_parameters_and_macs(name):
    if name.startswith('convmlp_'):
        pytest.importorskip('mmpretrain')
    facts = MODELS[name]['Metadata']
    model, shape = build_model(name)
    assert facts['Input'] == f'3x{shape[0]}x{shape[1]}'
    assert count(model, shape)[''] == (facts['Parameters'], facts['MACs'])


@pytest.mark.parametrize('name', [name for name in MODELS if name not in COUNTED])
def test_larger_sizes_add_to_the_small_one(name):
    size = name.split('_')[name.split('_').index('convmlp') + 1]
    small, large = MODELS[name.replace(f'_{size}_', '_s_')]['Metadata'], MODELS[name]['Metadata']
    for key in ('Parameters', 'MACs'):
        assert 1 < large[key] / small[key] < 5


def test_configs_and_addresses():
    assert len(MODELS) == 21
    for name, model in MODELS.items():
        assert model['Config'] == f'configs/{name}.py' and (ROOT / model['Config']).exists()
    # Every published file, each once.
    assert sorted(m['Weights'] for m in MODELS.values()) == sorted(BASE_URL + p for p in PUBLISHED)
    for name, model in MODELS.items():
        words = set(re.findall(r'[a-z0-9]+', name)) - {'1x', '512x512', '40k', 'fpn'}
        assert words <= set(re.findall(r'[a-z0-9]+', model['Weights'])), model['Weights']


def test_scores_are_marked_as_the_papers():
    assert all(result['Source'] == 'paper' for m in MODELS.values() for result in m['Results'])
    found = {
        (name, key): value
        for name, model in MODELS.items()
        for result in model['Results']
        for key, value in result['Metrics'].items()
    }
    assert found['retinanet_convmlp_l_fpn_1x_coco', 'box AP75'] == 43.3
    assert found['maskrcnn_convmlp_m_fpn_1x_coco', 'mask AP'] == 37.2
    assert found['convmlp_l_cifar100', 'Top 1 Accuracy'] == 88.6


def test_tables_are_up_to_date():
    """If this fails: python tools/make_model_tables.py."""
    assert {page.name for page in pages()} == {'README.md', 'classification.md'}
    for page in pages():
        assert with_tables(page) == page.read_text()
