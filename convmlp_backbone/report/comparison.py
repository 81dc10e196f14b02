"""Two trainings beside each other, with the intervals that chance alone would make."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import UserError
from .charts import Html, number
from .detection import WORDS, Detections
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


def differences(first: Evidence, second: Evidence, samples: int) -> list[Difference]:
    """Metrics of both, with a bootstrap over images; the same images are drawn for both."""
    judged = len(first.paths) - len(first.left_out)
    if isinstance(first, Detections) and isinstance(second, Detections):
        return detection_differences(first, second, samples if judged >= FEWEST else 0)
    rng = np.random.default_rng(0)
    size = len(first.paths)
    weights = rng.multinomial(size, np.full(size, 1 / size), samples)
    drawn = [part.sample(weights) for part in (first, second)]
    found = []
    for name in drawn[0]:
        change = drawn[1][name] - drawn[0][name]
        tail = (1 - CONFIDENCE) / 2
        enough = judged >= FEWEST
        lower, upper = map(float, np.quantile(change, (tail, 1 - tail)))
        found.append(
            Difference(
                name,
                first.metrics[name],
                second.metrics[name],
                lower if enough else None,
                upper if enough else None,
            )
        )
    return found


def detection_differences(first: Detections, second: Detections, samples: int) -> list[Difference]:
    import hotcoco

    found = []
    for kind in ('segm', 'bbox') if first.masks and second.masks else ('bbox',):
        answer = hotcoco.compare(
            first.evaluated(kind), second.evaluated(kind), samples, confidence=CONFIDENCE
        )
        for key in answer['metric_keys']:
            a, b = (answer[f'metrics_{run}'][key] for run in 'ab')
            if -1 in (a, b):  # no such object
                continue
            interval = (answer.get('ci') or {}).get(key, {})
            found.append(
                Difference(
                    f'{WORDS[kind]} {key}',
                    a,
                    b,
                    interval.get('lower'),
                    interval.get('upper'),
                )
            )
    return found


def comparison(
    runs: Sequence[WorkDir], found: Sequence[tuple[Any, Evidence, str]], samples: int
) -> tuple[str, list[dict]]:
    """The page, and its differences."""
    names = [run_name(run.folder) for run in runs]
    if names[0] == names[1]:
        names = [str(run.folder) for run in runs]
    (_, first, _), (_, second, _) = found
    require_same(first, second)
    rows = differences(first, second, samples)
    marks = dict(better='up', worse='down')
    body = [
        [
            row.name,
            number(row.first),
            number(row.second),
            f'{row.second - row.first:+.3f}',
            '–' if row.lower is None else f'{row.lower:+.3f} to {row.upper:+.3f}',
            Html(f'<span class="{marks.get(row.verdict, "")}">{row.verdict}</span>'),
        ]
        for row in rows
    ]
    size = len(first.paths) - len(first.left_out)
    told = (
        f'Intervals hold {CONFIDENCE:.0%} of the differences that {samples} samples of the '
        f'{size} images give, drawn with replacement, the same for both. Within chance: the '
        'interval holds 0. They tell of the images, not of how another seed would have trained.'
        if size >= FEWEST
        else f'{size} images are too few for intervals; from {FEWEST} there are some.'
    )
    sections = [
        Section(
            'Scores', [text(told), table(['', *names, 'difference', '95 % interval', ''], body)]
        ),
        Section('Classes', [classes_table(first, second, names)]),
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
    answer = [
        dict(
            metric=row.name,
            first=row.first,
            second=row.second,
            lower=row.lower,
            upper=row.upper,
            verdict=row.verdict,
        )
        for row in rows
    ]
    return page(f'{names[0]} and {names[1]}', lead, sections), answer


def classes_table(first: Evidence, second: Evidence, names: Sequence[str]) -> Html:
    """The main score of each class in both."""
    key = next(k for k in ('AP', 'IoU', 'recall') if k in first.per_class()[0])
    rows = []
    for ours, theirs in zip(first.per_class(), second.per_class(), strict=True):
        a, b = ours[key], theirs[key]
        change = '–' if a is None or b is None else f'{b - a:+.3f}'
        rows.append([ours['name'], number(a), number(b), change])
    return table([f'{key} of class', *names, 'difference (no interval)'], rows, long=True)


def configs_table(cfgs: Sequence[Any], names: Sequence[str]) -> Html:
    """What differs in the essence of the configs."""
    first, second = (dict(essence(cfg)) for cfg in cfgs)
    rows = [
        [key, first.get(key, '–'), second.get(key, '–')]
        for key in dict.fromkeys([*first, *second])
        if first.get(key) != second.get(key)
    ]
    if not rows:
        return text('The same in all that is told here.')
    return Html(f'<div class="facts">{table(["", *names], rows)}</div>')
