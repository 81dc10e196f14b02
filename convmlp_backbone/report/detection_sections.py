"""What a report says of a detector."""

from collections.abc import Iterator

import numpy as np

from .charts import (
    Series,
    bar_chart,
    line_chart,
    number,
    reliability_chart,
    short,
)
from .confusion import confusion
from .detection import IOU, MOST, Detections, none_if_missing
from .detection_pictures import pictures
from .page import Section, beside, table, text, tiles

CLASS_SCORES = {
    'AP': 'AP',
    'AP50': 'AP50',
    'AP75': 'AP75',
    'best F1': 'f1',
    'at a score of': 'threshold',
    'precision': 'precision',
    'recall': 'recall',
}
CURVES = 7  # classes with a curve of their own, besides that of all


def sections(found: Detections) -> Iterator[Section]:
    """The parts of the report, most telling first."""
    what = 'masks' if found.masks else 'boxes'
    metrics = {name: number(none_if_missing(v)) for name, v in found.metrics.items()}
    keys = list(dict.fromkeys(name.split()[1] for name in metrics))
    kinds = list(dict.fromkeys(name.split()[0] for name in metrics))
    first = [f'{kind} {key}' for kind in kinds for key in keys[:3]]
    crowded = int((np.bincount(found.results[:, 0].astype(int), minlength=1) > MOST).sum())
    yield Section(
        'Scores',
        [
            tiles((name, metrics[name]) for name in first),
            text(
                f'{found.objects.sum()} objects in {len(found.paths) - len(found.left_out)} '
                f'images, {len(found.results)} predictions. By hotcoco, as COCO defines them'
                + (
                    f'; of {crowded} images with more than {MOST} predictions the {MOST} of the '
                    'highest scores count.'
                    if crowded
                    else '.'
                )
            ),
            table(['', *keys], [[k, *(metrics[f'{k} {key}'] for key in keys)] for k in kinds]),
        ],
    )
    rows = found.per_class()
    best = found.curve().best()
    yield Section(
        'Classes',
        [
            table(
                ['class', 'objects', 'predictions', *CLASS_SCORES],
                [
                    [
                        row['name'],
                        row['objects'],
                        row['found'],
                        *(number(row[key]) for key in CLASS_SCORES.values()),
                    ]
                    for row in rows
                ],
                long=True,
            )
        ],
    )
    most = sorted(range(len(rows)), key=lambda k: -rows[k]['objects'])[:CURVES]
    curves = [(None, 'all'), *((k + 1, rows[k]['name']) for k in most if rows[k]['objects'])]
    if len(curves) == 2:
        curves = curves[:1]  # of one class the two are the same
    drawn = [(short(name), found.curve(category)) for category, name in curves]
    calibration = found.evaluation.calibration(n_bins=10, iou_threshold=IOU)
    yield Section(
        'Scores and thresholds',
        [
            text(
                f'The best F1 of all predictions together, {best[1]:.3f}, is had from a score of '
                f'{best[0]:.3f}: precision {best[2]:.3f}, recall {best[3]:.3f} at IoU {IOU}. '
                'Below, that is the threshold.'
            ),
            beside(
                line_chart(
                    f'Precision over recall at IoU {IOU}',
                    [
                        Series(name, np.append(0, c.recall), np.append(1, c.precision))
                        for name, c in drawn
                    ],
                    'recall',
                    y_range=(0, 1),
                    x_range=(0, 1),
                ),
                line_chart(
                    'F1 over the score from which predictions count',
                    [Series(name, c.scores[::-1], c.f1[::-1]) for name, c in drawn],
                    'score',
                    y_range=(0, 1),
                    x_range=(0, 1),
                ),
                reliability_chart(
                    f'Share of right predictions by score; calibration error '
                    f'{calibration["ece"]:.3f}',
                    calibration['bins'],
                ),
            ),
        ],
    )
    errors = found.error_kinds()
    yield Section(
        'Errors',
        [
            text(
                'Kinds of errors as TIDE defines them, of predictions of any score, and the AP50 '
                'that mending each would give.'
            ),
            beside(
                bar_chart('AP50 lost', [(name, cost, f'{cost:.3f}') for name, _, cost in errors]),
                bar_chart('Number', [(name, count, str(count)) for name, count, _ in errors]),
                bar_chart(
                    f'AP by size of {what}, in pixels',
                    [
                        (name, ap or 0, f'{number(ap)} ({count})')
                        for name, count, ap in found.per_size()
                    ],
                ),
            ),
            *confusion(
                'Truth (rows) and prediction (columns) at the threshold', *found.confusion()
            ),
        ],
    )
    yield Section('Images', pictures(found))
