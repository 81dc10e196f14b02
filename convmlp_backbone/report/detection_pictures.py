"""The objects of images, truth beside prediction, as outlines over them."""

from typing import Any

import numpy as np

from .charts import Html, html, short
from .detection import IOU, Detections
from .gallery import SHAPES, Drawing, gallery
from .page import text

SIDE_STEPS = 800  # of an outline: how fine it is, of the longer side of its image
LABELS = 12  # predictions up to which each has its name in the picture


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
                if len(places) <= LABELS
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
            'is what is missed on the left and what is wrong on the right; a picture shows '
            f'{SHAPES} objects at most.'
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
