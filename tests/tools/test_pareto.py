"""The page of published accuracy against measured speed, and the program that makes it."""

import copy
import json
import re

import numpy as np
import pareto
import pareto_page as page
import pytest
import timm
import yaml
from conftest import ROOT
from PIL import Image

from convmlp_backbone.deploy.forms import Form, seconds_in_turns

POINTS = {
    'ConvMLP-S': (20.0, 76.8),
    'ResNet-50': (40.0, 80.8),
    'fast': (10.0, 77.0),
    'twin': (20.0, 76.8),
    'slow': (50.0, 70.0),
}


@pytest.mark.parametrize(
    'name, others',
    [
        ('fast', []),
        ('ResNet-50', []),
        ('ConvMLP-S', ['fast']),
        ('twin', ['fast']),
        ('slow', ['fast', 'ConvMLP-S', 'twin', 'ResNet-50']),
    ],
)
def test_who_is_ahead(name, others):
    assert page.ahead(name, POINTS) == others
    words = page.verdict(name, POINTS)
    assert words.startswith(f'behind {len(others)}: fast ' if others else '**on the front**')


def test_verdict_tells_by_how_much():
    assert page.verdict('ConvMLP-S', POINTS) == 'behind 1: fast 2.00 x as fast, +0.2'


def test_networks_have_sources():
    rows = pareto.networks()
    published = yaml.safe_load((ROOT / 'tools/dev/published_results.yml').read_text())
    assert [row['score'] for row in rows[:3]] == [76.8, 79.0, 80.2]
    assert len({row['name'] for row in rows}) == len(rows)
    assert sum(2019 <= row['year'] <= 2026 for row in rows[3:]) >= 12
    for row in rows:
        assert row['source'] == 'paper' or row['source'] in published['sources']
    assert {row['weights'] for row in rows[3:]} <= set(timm.list_pretrained())


def test_page_is_what_the_program_makes_of_the_raw_numbers():
    """If this fails: python tools/dev/pareto.py --draw."""
    found, rows = json.loads((pareto.DOCS / 'pareto.json').read_text()), pareto.networks()
    text = (pareto.DOCS / 'pareto.md').read_text()
    assert pareto.with_tables(text, found, rows) == text
    for by_precision in found['seconds'].values():
        for times in by_precision.values():
            assert set(times) == {row['name'] for row in rows}


@pytest.mark.parametrize('warm, calls', [(False, 3), (True, 6)])
def test_a_turn_is_one_call_or_a_second_one(warm, calls):
    images = []
    forms = [Form('one', images.append, None, 0)]
    assert len(seconds_in_turns(forms, np.empty(0), 2, int, warm)['one']) == 2
    assert len(images) == calls


def test_measure_and_draw(tmp_path):
    row = dict(name=page.REFERENCE, year=2024, weights='test_resnet', size=32, score=50.0)
    task = pareto.Task('Levels, 64x96, batch 1', (64, 96), 1, 2, 1)
    found = pareto.measure([row], [task], ['f32'], tmp_path)
    times = found['seconds'][task.title]['f32']
    assert len(times[page.REFERENCE]) == 2 and min(times[page.REFERENCE]) > 0
    assert pareto.measure([row], [task], ['f32'], tmp_path) == found  # goes on, here with nothing

    rows = [row, dict(row, name='ConvMLP-S', score=51.0, extra='teacher')]
    times['ConvMLP-S'] = [second / 2 for second in times[page.REFERENCE]]
    table = page.tables(found, rows)
    assert re.search(r'\| ConvMLP-S† \| 2024 \| 51.0 \| \*\*[\d.]+\*\* ± \d+% \| 2.00 \|', table)
    slower = copy.deepcopy(found)
    slower['seconds'][task.title]['f32']['ConvMLP-S'] = times[page.REFERENCE]
    assert page.changes(found, found) == (0, 0) and page.changes(found, slower) == (0.5, 1)
    page.draw(found, rows, tmp_path / 'pareto.png')
    assert Image.open(tmp_path / 'pareto.png').width == 600


def test_what_the_page_says_of_convmlp_holds():
    """If this fails, the text above the tables is out of date."""
    found, rows = json.loads((pareto.DOCS / 'pareto.json').read_text()), pareto.networks()
    for title, by_precision in found['seconds'].items():
        for times in by_precision.values():
            points = page.points_of(times, rows)
            ms = {name: time for name, (time, _) in points.items()}
            assert all(page.ahead(f'ConvMLP-{size}', points) for size in 'SML')
            assert 'ResNet-50' in page.ahead('ConvMLP-L', points)
            if title.startswith('Levels'):
                assert ms['ConvMLP-S'] < min(ms['ResNet-50'], ms['ConvNeXt-T'], ms['Swin-T'])
