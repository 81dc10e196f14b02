"""Figures: what is drawn of values that no axis can take."""

import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from convmlp_backbone.report import charts
from convmlp_backbone.report.charts import Series, bar_chart, heat_map, line_chart


def paths(drawing):
    root = ET.fromstring(re.search(r'<svg class="chart".*?</svg>', drawing, re.S)[0])
    return [p.get('d') for p in root.iter('path') if p.get('class').startswith('line')]


@pytest.mark.parametrize(
    'y, log, lines',
    [
        ([1, 2, 3], False, 1),
        ([1, math.nan, 3, 4], False, 2),
        ([1, math.inf, 3, -math.inf, 5, 6], False, 3),
        ([1, 0, 10, 100], True, 2),  # nothing that is not positive has a logarithm
        ([5, 5, 5], False, 1),
        ([0, 0], False, 1),
        ([1e-12, 1e12], True, 1),
        ([-3, -1], False, 1),
    ],
)
def test_gaps(y, log, lines):
    (path,) = paths(line_chart('', [Series('', range(len(y)), y)], 'x', log=log))
    assert path.count('M') == lines
    numbers = [float(v) for v in re.findall(r'-?[\d.]+', path)]
    assert all(-1 <= v <= max(charts.WIDTH, charts.HEIGHT) for v in numbers)


@pytest.mark.parametrize('y', [[], [math.nan], [math.inf, math.nan]])
def test_nothing_to_draw(y):
    assert line_chart('', [Series('', range(len(y)), y)], 'x') == ''


def test_a_long_curve_keeps_its_peaks():
    y = np.zeros(100_000)
    y[[777, 54_321]] = 9, math.nan
    (path,) = paths(line_chart('', [Series('', np.arange(len(y)), y)], 'x'))
    assert path.count('M') == 2 and path.count('L') < 2 * charts.MOST_POINTS
    assert min(float(v) for v in re.findall(r' ([\d.]+)', path)) == charts.TOP


@pytest.mark.parametrize(
    'low, high, found',
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 7000, [0, 2000, 4000, 6000]),
        (3, 4, [3, 3.2, 3.4, 3.6, 3.8, 4]),
    ],
)
def test_ticks(low, high, found):
    assert charts.ticks(low, high) == pytest.approx(found)


def test_names_are_text():
    name = '<script>"&'
    for drawing in (
        line_chart(name, [Series(name, [0, 1], [0, 1]), Series('b', [0], [1])], name),
        bar_chart(name, [(name, 1, name)]),
        heat_map(name, np.eye(2), [name, 'b'], [name, 'b']),
    ):
        assert '<script' not in drawing
        ET.fromstring(f'<r>{drawing}</r>')


@pytest.mark.parametrize(
    'value, text', [(0, '0'), (999, '999'), (1000, '1.0k'), (99_960, '100k'), (3e7, '30M')]
)
def test_counts_in_cells(value, text):
    assert charts.compact(value) == text
