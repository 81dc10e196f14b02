"""What a report says of a detector."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .charts import (
    Html,
    Series,
    bar_chart,
    html,
    line_chart,
    number,
    reliability_chart,
    short,
)
from .confusion import confusion
from .detection import IOU, MOST, Detections, none_if_missing
from .gallery import SHAPES, Drawing, gallery
from .page import Section, beside, table, text, tiles

CURVES = 7  # classes with a curve of their own, besides that of all
SIDE_STEPS = 800  # of an outline: how fine it is, of the longer side of its image


def sections(found: Detections) -> Iterator[Section]:
    """The parts of the report, most telling first."""
    what = 'masks' if found.masks else 'boxes'
    metrics = {name: number(none_if_missing(v)) for name, v in found.metrics.items()}
    keys = list(dict.fromkeys(name.split()[1] for name in metrics))
    kinds = list(dict.fromkeys(name.split()[0] for name in metrics))
    first = [f'{kind} {key}' for kind in kinds for key in keys[:3]]
    counts = found.counts()
    crowded = int((np.bincount(found.results[:, 0].astype(int), minlength=1) > MOST).sum())
    yield Section(
        'Scores',
        [
            tiles((name, metrics[name]) for name in first),
            text(
                f'{sum(counts.values())} objects in {len(found.paths) - len(found.left_out)} '
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
                [
                    'class',
                    'objects',
                    'predictions',
                    'AP',
                    'AP50',
                    'AP75',
                    'best F1',
                    'at a score of',
                    'precision',
                    'recall',
                ],  # fmt: skip
                [
                    [
                        row['name'],
                        row['objects'],
                        row['found'],
                        *(
                            number(row[key])
                            for key in (
                                'AP',
                                'AP50',
                                'AP75',
                                'f1',
                                'threshold',
                                'precision',
                                'recall',
                            )  # fmt: skip
                        ),
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
                'Kinds of errors as TIDE defines them, and the AP50 that mending each would give.'
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


def pictures(found: Detections) -> list[Html]:
    """Truth and predictions in the worst and the typical images."""
    objects: dict[int, list[dict]] = {}
    for annotation in found.truth['annotations']:
        objects.setdefault(annotation['image_id'] - 1, []).append(annotation)
    by_image: dict[int, list[int]] = {}
    for place, row in enumerate(found.results):
        by_image.setdefault(int(row[0]) - 1, []).append(place)
    matched = found.evaluation.image_diagnostics(iou_thr=IOU, score_thr=0.0)['gt_match']

    def draw(index: int) -> Drawing:
        size = [found.truth['images'][index][key] for key in ('height', 'width')]
        there = objects.get(index, [])[:SHAPES]
        places = sorted(by_image.get(index, ()), key=lambda p: -found.results[p, 5])[:SHAPES]
        true = ''
        for annotation in there:
            match = matched.get(annotation['id'])
            score = found.results[match - 1, 5] if match else -1
            state = '' if score >= found.threshold else ' wrong'
            about = f'found with a score of {score:.2f}' if match else 'missed'
            look = f'class="shape{state}" data-found="{score:.4f}"'
            if annotation.get('iscrowd'):
                about, look = 'a group, which does not count', 'class="shape"'
            true += shape(
                annotation['bbox'],
                annotation.get('segmentation') if found.masks else None,
                size,
                look,
                f'{found.classes[annotation["category_id"] - 1]}: {about}',
            )
        predicted = ''
        for place in places:
            row, hit = found.results[place], found.hits[place]
            name = found.classes[int(row[6]) - 1]
            low = ' low' if row[5] < found.threshold else ''
            wrong = ' wrong' if not hit else ''
            label = (
                f'<text class="{low}" data-score="{row[5]:.4f}" x="{row[1]:.0f}" '
                f'y="{max(row[2], 0):.0f}" dy="0.9em">{html(short(name))} {row[5]:.2f}</text>'
                if len(places) <= 12
                else ''
            )
            predicted += (
                shape(
                    row[1:5],
                    found.codes[place] if found.masks else None,
                    size,
                    f'class="shape{wrong}{low}" data-score="{row[5]:.4f}"',
                    f'{name} {row[5]:.2f}{": wrong" if wrong else ""}',
                )
                + label
            )
        right, wrong_count, missed = found.errors[index]
        classes = sorted(
            {a['category_id'] - 1 for a in there} | {int(found.results[p, 6]) - 1 for p in places}
        )
        return Drawing(
            f'{right} right, {wrong_count} wrong, {missed} missed: F1 {found.qualities[index]:.2f}',
            classes,
            [('truth', true), ('prediction', predicted)],
        )

    return [
        text(
            'Worst and typical (nearest to the median) by F1 at the threshold. Orange and dashed '
            'is what is missed on the left and what is wrong on the right.'
        ),
        *gallery(found, found.qualities, draw, found.threshold),
    ]


def shape(box: Any, mask: Any, size: list[int], look: str, about: str) -> str:
    """A box, or the outline of a mask, with words that appear over it."""
    title = f'<title>{html(about)}</title>'
    if mask is not None and (outline := outline_of(mask, size)):
        return f'<path {look} d="{outline}">{title}</path>'
    x, y, width, height = (float(v) for v in box)
    return (
        f'<rect {look} x="{x:.1f}" y="{y:.1f}" width="{max(width, 0):.1f}" '
        f'height="{max(height, 0):.1f}">{title}</rect>'
    )


def outline_of(mask: Any, size: list[int]) -> str:
    """A mask as COCO has it, polygons or run lengths, as the path of its outline."""
    import cv2
    from pycocotools import mask as coco_mask

    if isinstance(mask, list):
        parts = [np.reshape(polygon, (-1, 2)) for polygon in mask]
    else:
        code = mask
        if isinstance(mask['counts'], list):
            code = coco_mask.frPyObjects(mask, *size)
        found, _ = cv2.findContours(coco_mask.decode(code), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
        parts = [
            cv2.approxPolyDP(part, max(size) / SIDE_STEPS, True).reshape(-1, 2) for part in found
        ]
    return ''.join(
        'M' + 'L'.join(f'{x:.0f} {y:.0f}' for x, y in part) + 'Z' for part in parts if len(part) > 2
    )
