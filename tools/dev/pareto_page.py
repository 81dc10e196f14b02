"""What docs/pareto.md shows of what pareto.py measured: tables, and a figure of Pareto fronts.

A figure is the median of its turns, its spread half the distance between the quartiles, its ratio
the median of the reference's time over its own in the same turn.
"""

import itertools
import statistics
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from convmlp_backbone.commands.plot import COLORS
from convmlp_backbone.deploy.forms import ratio

REFERENCE = 'ResNet-50'
OURS = 'ConvMLP'
Points = dict[str, tuple[float, float]]  # time and score of every network


def figures(times: dict[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """``{network: (ms, relative spread, times as fast as the reference)}``."""
    found = {}
    for name, own in times.items():
        low, middle, high = statistics.quantiles(own, n=4, method='inclusive')
        found[name] = 1e3 * middle, (high - low) / 2 / middle, ratio(times, name, REFERENCE)
    return found


def points_of(times: dict[str, list[float]], rows: list[dict]) -> Points:
    measured = figures(times)
    return {
        row['name']: (measured[row['name']][0], row['score'])
        for row in rows
        if row['name'] in times
    }


def ahead(name: str, points: Points) -> list[str]:
    """Those at least as fast and as accurate, and one of both more; the fastest first. None is
    ahead of those on the Pareto front."""
    time, score = points[name]
    others = [
        n for n, (t, s) in points.items() if t <= time and s >= score and (t, s) != (time, score)
    ]
    return sorted(others, key=lambda n: points[n])


def verdict(name: str, points: Points) -> str:
    """In words, whether a network is on the front, else the fastest that is ahead of it."""
    others = ahead(name, points)
    if not others:
        return '**on the front**'
    (time, score), (least, more) = points[name], points[others[0]]
    return f'behind {len(others)}: {others[0]} {time / least:.2f} x as fast, {more - score:+.1f}'


def tables(found: dict, rows: list[dict]) -> str:
    """All that was measured, as Markdown."""
    text = ['', f'Measured on: {found["machine"]}.']
    if found.get('repeated'):
        text[-1] += (
            ' Against the run before, ratios differ by {:.1%} in the median, {:.0%} at most.'
        )
        text[-1] = text[-1].format(*found['repeated'])
    for title, by_precision in found['seconds'].items():
        measured = {p: figures(times) for p, times in by_precision.items()}
        points = {p: points_of(times, rows) for p, times in by_precision.items()}
        shown = sorted((r for r in rows if r['name'] in measured['f32']), key=lambda r: -r['score'])
        text += [
            '',
            f'## {title}',
            '',
            f'| | {" | ".join(points)} |',
            '|---' * (len(points) + 1) + '|',
        ]
        for name in [r['name'] for r in rows if r['name'].startswith(OURS) and r in shown]:
            text.append(f'| {name} | {" | ".join(verdict(name, own) for own in points.values())} |')
        text += ['', '| network | year | top-1 |' + ''.join(f' {p}, ms | ratio |' for p in points)]
        text.append('|---|---|---|' + '---:|---:|' * len(points))
        for row in shown:
            name, size = row['name'], row['size']
            mark = '†' * bool(row.get('extra')) + '‡' * (title.startswith('C') and size != 224)
            cells = [f'{name}{mark}', f'{row["year"]}', f'{row["score"]:.1f}']
            for precision, own in points.items():
                ms, spread, faster = measured[precision][name]
                bold = '' if ahead(name, own) else '**'
                cells += [f'{bold}{ms:.{int(ms < 100)}f}{bold} ± {spread:.0%}', f'{faster:.2f}']
            text.append(f'| {" | ".join(cells)} |')
    return '\n'.join([*text, '', ''])


def changes(new: dict, old: dict) -> tuple[float, float] | None:
    """By how much the ratios of two runs on one machine differ: the median, and the most."""
    if new['machine'] != old['machine']:
        return None
    found = [0.0]
    for title, by_precision in new['seconds'].items():
        for precision, times in by_precision.items():
            a, b = figures(times), figures(old['seconds'].get(title, {}).get(precision, {}))
            found += [abs(a[n][2] / b[n][2] - 1) for n in a if n in b and n != REFERENCE]
    return statistics.median(found), max(found)


def draw(found: dict, rows: list[dict], path: Path) -> None:
    """A panel for every size and precision at batch 1: score against time, and the front."""
    lines = {t: p for t, p in found['seconds'].items() if t.endswith('batch 1')}
    columns = max(map(len, lines.values()))
    figure = Figure(figsize=(6 * columns, 6 * len(lines)), layout='constrained', facecolor='w')
    panels = figure.subplots(len(lines), columns, squeeze=False, sharey=True)
    drawn = []
    for line, (title, by_precision) in zip(panels, lines.items(), strict=True):
        line[0].set_ylabel('published ImageNet-1k top-1, %')
        for axes, (precision, times) in zip(line, by_precision.items(), strict=False):
            points = points_of(times, rows)
            front = sorted(points[name] for name in points if not ahead(name, points))
            axes.step(*zip(*front, strict=True), where='post', color=COLORS[1], alpha=0.6)
            for name, point in points.items():
                own = name.startswith(OURS)
                axes.plot(*point, 'o', color=COLORS[0 if own else -1], ms=8 if own else 5)
            axes.set(xscale='log', title=f'{title}, {precision}', xlabel='ms')
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter('{x:g}')
            axes.xaxis.set_minor_formatter('')
            axes.margins(x=0.12, y=0.06)
            axes.grid(alpha=0.3)
            drawn.append((axes, points, front))
    figure.draw_without_rendering()  # which settles where points are
    for axes, points, front in drawn:
        label(axes, points, front)
    figure.savefig(path, dpi=100)


def label(axes: Axes, points: Points, front: list[tuple[float, float]]) -> None:
    """Write every name near its point, where it covers least of names, points and the front."""
    pixels = {name: axes.transData.transform(point) for name, point in points.items()}
    corners = axes.transData.transform(front)
    taken = [
        *((x - 5, y - 5, x + 5, y + 5) for x, y in pixels.values()),
        *((x, y - 1, far, y + 1) for (x, y), (far, _) in itertools.pairwise(corners)),
        *((x - 1, low, x + 1, y) for (_, low), (x, y) in itertools.pairwise(corners)),
    ]

    def common(a, b):
        sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
        return max(0, sides[0]) * max(0, sides[1])

    def covered(box):
        inside = common(box, axes.bbox.extents)
        return round(sum(common(box, other) for other in taken) - 9 * inside)

    for name, (x, y) in sorted(pixels.items(), key=lambda item: not item[0].startswith(OURS)):
        own = name.startswith(OURS)
        style = dict(color=COLORS[0], weight='bold') if own else dict(color='#333333')
        text = axes.annotate(
            name, points[name], (0, 0), textcoords='offset pixels', fontsize=8, va='center', **style
        )
        text.set_in_layout(False)
        width, height = (7.6 if own else 6.8) * len(name), 11
        boxes = [
            (left, middle - height / 2, left + width, middle + height / 2)
            for far in (0, 8, 16, 26, 38)
            for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
            for left in [x + dx * (9 + far) - width * (1 - dx) / 2]
            for middle in [y + dy * (11 + far)]
        ]
        best = min(boxes, key=covered)
        taken.append(best)
        text.set_position((best[0] - x, (best[1] + best[3]) / 2 - y))
