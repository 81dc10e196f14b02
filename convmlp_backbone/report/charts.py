"""Figures as SVG in a page: they follow its colours, light or dark, and need no script."""

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

WIDTH, HEIGHT = 360, 240  # of a chart, in units of which a phone shows about as many as pixels
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 12, 34
COLOURS, DASHES = 8, ('', '6 3', '2 2', '8 2 2 2')  # in the style sheet; for who prints in grey
MOST_POINTS = 400
LEVELS = 10  # of a heat map


class Series(NamedTuple):
    """A curve; values that are not finite are gaps."""

    name: str
    x: ArrayLike
    y: ArrayLike
    marks: bool = False


class Html(str):
    """Markup that goes into a page as it is; every other text is escaped."""


def html(value: object) -> Html:
    """Markup as it is, anything else as the text that it is."""
    return value if isinstance(value, Html) else Html(escape(str(value)))


def number(value: float | None, digits: int = 3) -> str:
    """A number for a person: a dash where there is none."""
    return '–' if value is None or not math.isfinite(value) else f'{value:.{digits}f}'


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``."""
    step = 10 ** math.floor(math.log10((high - low) / most or 1))
    step *= next(f for f in (1, 2, 5, 10) if (high - low) / (f * step) <= most)
    return [i * step for i in range(math.ceil(low / step), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = (1, 2, 5) if len(decades) < 4 else (1,)
    return [f * 10.0**d for d in decades for f in fine if low <= f * 10.0**d <= high]


def thin(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As many points as one can see: of each bucket the least and the greatest."""
    if len(x) <= MOST_POINTS:
        return x, y
    keep = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), MOST_POINTS // 2):
        values = y[part]
        if np.isfinite(values).any():
            keep |= {int(part[np.nanargmin(values)]), int(part[np.nanargmax(values)])}
        keep |= set(part[~np.isfinite(values)][:1].tolist())
    chosen = sorted(keep)
    return x[chosen], y[chosen]


def line_chart(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str = '',
    log: bool = False,
    y_range: tuple[float, float] | None = None,
    x_range: tuple[float, float] | None = None,
    extra: str = '',
) -> Html:
    """Curves in one frame, '' where there is no finite point; ``extra`` is drawn in unit axes."""
    arrays = []
    for part in series:
        x, y = (np.asarray(v, float) for v in (part.x, part.y))
        y = np.where(np.isfinite(y) & (~np.array(log) | (y > 0)), y, np.nan)
        arrays.append(thin(x, y))
    finite = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in arrays]
    if not any(len(x) for x, _ in finite):
        return Html('')
    all_x, all_y = (np.concatenate([part[i] for part in finite]) for i in (0, 1))
    x0, x1 = x_range or (float(all_x.min()), float(all_x.max()))
    y0, y1 = y_range or (float(all_y.min()), float(all_y.max()))
    if not log and not y_range:
        y0 = min(0.0, y0)
    x1, y1 = (b if b > a else a + (abs(a) or 1) for a, b in ((x0, x1), (y0, y1)))

    def place_x(value):
        return LEFT + (value - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def place_y(value):
        part = math.log(value / y0) / math.log(y1 / y0) if log else (value - y0) / (y1 - y0)
        return HEIGHT - BOTTOM - part * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in log_ticks(y0, y1) if log else ticks(y0, y1):
        y = place_y(value)
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            f'<text x="{LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in ticks(x0, x1, 5):
        parts.append(
            f'<text x="{place_x(value):.1f}" y="{HEIGHT - BOTTOM + 14}" '
            f'text-anchor="middle">{value:g}</text>'
        )
    parts.append(
        f'<path class="frame" d="M{LEFT} {TOP}V{HEIGHT - BOTTOM}H{WIDTH - RIGHT}"/>'
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 4}" '
        f'text-anchor="middle">{escape(x_label)}</text>{extra}'
    )
    legend = []
    for index, (part, (xs, ys)) in enumerate(zip(series, arrays, strict=True)):
        path, pen = '', 'M'
        for x, y in zip(xs, ys, strict=True):
            if np.isfinite(y):
                path += f'{pen}{place_x(x):.1f} {place_y(y):.1f}'
                pen = 'L'
            else:
                pen = 'M'
        if not path:
            continue
        look = f'class="line c{index % COLOURS}"'
        dash = DASHES[index // COLOURS % len(DASHES)] if len(series) > COLOURS else ''
        parts.append(f'<path {look} stroke-dasharray="{dash}" d="{path}"/>')
        if part.marks or np.isfinite(ys).sum() == 1:
            parts += [
                f'<circle class="mark f{index % COLOURS}" cx="{place_x(x):.1f}" '
                f'cy="{place_y(y):.1f}" r="3"/>'
                for x, y in zip(xs, ys, strict=True)
                if np.isfinite(y)
            ]
        legend.append(
            f'<span><svg class="key" viewBox="0 0 18 8"><path {look} stroke-dasharray="{dash}" '
            f'd="M0 4H18"/></svg>{escape(part.name)}</span>'
        )
    return figure(
        title + (f' ({y_label})' if y_label else ''),
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>',
        f'<div class="legend">{"".join(legend)}</div>' if len(legend) > 1 else '',
    )


def figure(title: str, drawing: str, below: str = '') -> Html:
    return Html(f'<figure><figcaption>{escape(title)}</figcaption>{drawing}{below}</figure>')


def bar_chart(title: str, bars: Sequence[tuple[str, float, str]]) -> Html:
    """Horizontal bars of (name, length, text)."""
    longest = max((length for _, length, _ in bars), default=0) or 1
    name_width, row, room = 100, 24, 84
    parts = []
    for index, (name, length, text) in enumerate(bars):
        width = max(length, 0) / longest * (WIDTH - name_width - room)
        y = 4 + index * row
        parts.append(
            f'<text x="{name_width - 6}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
            f'<rect class="f0" x="{name_width}" y="{y + 3}" width="{width:.1f}" height="15"/>'
            f'<text x="{name_width + width + 5:.1f}" y="{y + 14}">{escape(text)}</text>'
        )
    height = 8 + row * len(bars)
    return figure(
        title,
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(title)}">{"".join(parts)}</svg>',
    )


def reliability_chart(title: str, bins: Sequence[dict]) -> Html:
    """How often what has a score is right: ``bins`` are hotcoco's of a calibration curve."""
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    bars = ''.join(
        f'<rect class="f0" x="{LEFT + b["bin_lower"] * wide + 1:.1f}" '
        f'y="{HEIGHT - BOTTOM - b["avg_accuracy"] * high:.1f}" '
        f'width="{(b["bin_upper"] - b["bin_lower"]) * wide - 2:.1f}" '
        f'height="{b["avg_accuracy"] * high:.1f}"><title>{b["count"]} with a score of '
        f'{b["avg_confidence"]:.2f}: {b["avg_accuracy"]:.0%} right</title></rect>'
        for b in bins
        if b['count']
    )
    return line_chart(
        title,
        [Series('share', [], []), Series('as many as the score', [0, 1], [0, 1])],
        'score',
        y_range=(0, 1),
        x_range=(0, 1),
        extra=bars,
    )


def short(name: str, most: int = 18) -> str:
    return name if len(name) <= most else name[: most - 1] + '…'


def heat_map(title: str, counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Html:
    """A confusion matrix, each row as shares of its sum; numbers in the cells where they fit.

    The cells of a shade are one path, so that a matrix of hundreds of classes stays small.
    """
    counts = np.asarray(counts, float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    numbers = len(columns) <= 25
    cell, font = (34, 10) if numbers else (12, 9)
    left, top = 112, 96
    width, height = left + cell * len(columns) + 40, top + cell * len(rows) + 4
    levels = np.ceil(shares * LEVELS).astype(int)
    parts = [
        f'<path class="heat" fill-opacity="{level / LEVELS:g}" d="'
        + ''.join(
            f'M{left + c * cell} {top + r * cell}h{cell}v{cell}h-{cell}z'
            for r, c in np.argwhere(levels == level)
        )
        + '"/>'
        for level in range(1, LEVELS + 1)
        if (levels == level).any()
    ]
    parts.append(
        f'<path class="frame" d="M{left} {top}h{cell * len(columns)}v{cell * len(rows)}'
        f'h-{cell * len(columns)}z"/>'
    )
    for r, name in enumerate(rows):
        parts.append(
            f'<text x="{left - 4}" y="{top + (r + 0.5) * cell + 3:.1f}" text-anchor="end">'
            f'{escape(short(name))}<title>{escape(name)}</title></text>'
        )
    for c, name in enumerate(columns):
        parts.append(
            f'<text transform="translate({left + (c + 0.5) * cell + 3:.1f} {top - 5}) rotate(-50)">'
            f'{escape(short(name))}<title>{escape(name)}</title></text>'
        )
    if numbers:
        parts += [
            f'<text class="{"on" if shares[r, c] > 0.55 else ""}" text-anchor="middle" '
            f'x="{left + (c + 0.5) * cell}" y="{top + (r + 0.5) * cell + 3.5}">'
            f'{compact(counts[r, c])}</text>'
            for r, c in np.argwhere(counts)
        ]
    return figure(
        title,
        f'<div class="wide"><svg class="map" style="width:{width}px;font-size:{font}px" '
        f'viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
        f'{"".join(parts)}</svg></div>',
    )


def compact(value: float) -> str:
    """A count in four characters."""
    for unit, name in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if value >= unit * 0.9995:
            return f'{value / unit:.{0 if value >= 9.95 * unit else 1}f}{name}'
    return f'{value:.0f}'
