"""Two trainings beside each other, with the intervals that chance alone would make."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from .bootstrap import weights_of
from .charts import Html, number
from .detection import Detections
from .evaluation import Evidence
from .page import Section, page, table, text
from .training_sections import curves, essence
from .work_dir import WorkDir, run_name

FEWEST = 10  # images from which an interval means something
CONFIDENCE = 0.95


class Difference(NamedTuple):
    """A metric of two runs; the interval is that of the second less the first."""

    name: str
    first: float
    second: float
    lower: float | None
    upper: float | None

    @property
    def verdict(self) -> str:
        if self.lower is None or self.upper is None:
            return 'too few images'
        return 'better' if self.lower > 0 else 'worse' if self.upper < 0 else 'within chance'


def require_same(first: Evidence, second: Evidence) -> None:
    """Raise where two runs were not judged on the same validation set."""
    if type(first) is not type(second):
        raise UserError('the two trainings are for different tasks')
    ours, theirs = ([path.rpartition('/')[2] for path in part.paths] for part in (first, second))
    if ours != theirs:
        raise UserError(
            f'the validation sets differ: {len(ours)} and {len(theirs)} images'
            + (
                f', such as {next(a for a, b in zip(ours, theirs, strict=True) if a != b)}'
                if len(ours) == len(theirs)
                else ''
            )
        )
    if first.truth_key() != second.truth_key():
        raise UserError('the validation sets differ: the same images, other labels or classes')
    if first.left_out.keys() != second.left_out.keys():
        raise UserError('not the same images of the validation set could be read in both')


def differences(
    first: Evidence, second: Evidence, samples: int
) -> tuple[list[Difference], list[Difference]]:
    """Metrics of both, and the main score of each class; the same images are drawn for both."""
    if isinstance(first, Detections) and isinstance(second, Detections):
        first.masks = second.masks = first.masks and second.masks  # else boxes are compared
    judged = len(first.paths) - len(first.left_out)
    drawn = np.ones((1, len(first.paths)), int)  # the scores themselves, then the samples
    if judged >= FEWEST:
        drawn = np.concatenate([drawn, weights_of(len(first.paths), samples)])
    ours, theirs = first.sample(drawn), second.sample(drawn)
    return (
        [difference(name, ours.metrics[name], theirs.metrics[name]) for name in ours.metrics],
        [
            difference(name, a, b)
            for name, a, b in zip(first.classes, ours.classes.T, theirs.classes.T, strict=True)
        ],
    )


def difference(name: str, first: np.ndarray, second: np.ndarray) -> Difference:
    """Of scores, and those of samples behind them; no interval where one of them is missing."""
    change = (second - first)[1:]
    if not len(change) or np.isnan(change).any():
        return Difference(name, float(first[0]), float(second[0]), None, None)
    tail = (1 - CONFIDENCE) / 2
    lower, upper = map(float, np.quantile(change, (tail, 1 - tail)))
    return Difference(name, float(first[0]), float(second[0]), lower, upper)


def cells(row: Difference) -> list[object]:
    """Of a table: name, both scores, difference, interval, verdict."""
    mark = dict(better='up', worse='down').get(row.verdict, '')
    known = row.lower is not None
    change = row.second - row.first
    return [
        row.name,
        number(row.first),
        number(row.second),
        number(change) if not np.isfinite(change) else f'{change:+.3f}',
        f'{row.lower:+.3f} to {row.upper:+.3f}' if known else '–',
        Html(f'<span class="{mark}">{row.verdict}</span>'),
    ]


def comparison(
    runs: Sequence[WorkDir], found: Sequence[tuple[Any, Evidence, str]], samples: int
) -> tuple[str, list[dict]]:
    """The page, and its differences."""
    names = [run_name(run.folder) for run in runs]
    if names[0] == names[1]:
        names = [str(run.folder) for run in runs]
    (_, first, _), (_, second, _) = found
    require_same(first, second)
    rows, classes = differences(first, second, samples)
    head = [*names, 'difference', f'{CONFIDENCE:.0%} interval', '']
    size = len(first.paths) - len(first.left_out)
    told = (
        f'Intervals hold {CONFIDENCE:.0%} of the differences that {samples} samples of the '
        f'{size} images give, drawn with replacement, the same for both. Within chance: the '
        'interval holds 0. They tell of the images, not of how another seed would have trained.'
        if size >= FEWEST
        else f'{size} images are too few for intervals; from {FEWEST} there are some.'
    )
    sections = [
        Section('Scores', [text(told), table(['', *head], map(cells, rows))]),
        Section(
            'Classes',
            [
                text(
                    'Chance puts one class of twenty outside; one that is in few images has no '
                    'interval.'
                ),
                table([f'{first.class_score} of class', *head], map(cells, classes), long=True),
            ],
        ),
        Section('Training', curves(list(zip(names, runs, strict=True)))),
        Section('Configs', [configs_table([cfg for cfg, _, _ in found], names)]),
    ]
    lead = [
        *(
            f'{name}: {run.folder}, {source}'
            for name, run, (_, _, source) in zip(names, runs, found, strict=True)
        ),
        time.strftime('%Y-%m-%d %H:%M'),
    ]
    answer = [row._asdict() | dict(verdict=row.verdict) for row in rows]
    return page(f'{names[0]} and {names[1]}', lead, sections), answer


def configs_table(cfgs: Sequence[Any], names: Sequence[str]) -> Html:
    """What differs in the essence of the configs."""
    first, second = map(essence, cfgs)
    rows = [[key, value, second[key]] for key, value in first.items() if value != second[key]]
    if not rows:
        return text('The same in all that is told here.')
    return Html(f'<div class="facts">{table(["", *names], rows)}</div>')
