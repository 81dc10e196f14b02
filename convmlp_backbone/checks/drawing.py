"""Training samples as the model sees them, on one sheet."""

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..files import whole_file
from ..pictures import pixels_of

SHEET = 16  # samples
CELL, GAP = 320, 6  # pixels: height and width of a sample on the sheet, distance to the next


def colours(count: int) -> list[tuple[int, ...]]:
    return [
        tuple(round(255 * v) for v in colorsys.hsv_to_rgb(i * 0.381966 % 1, 0.8, 0.9))
        for i in range(count)
    ]


def draw(sample: dict, classes: Sequence[str], bgr: bool) -> Image.Image:
    """The image of a sample with its boxes, masks, map or class, as a picture CELL x CELL."""
    pixels, truth = pixels_of(sample['inputs'].numpy(), bgr), sample['data_samples']
    masks, boxes, names = [], [], []
    if 'gt_instances' in truth:
        instances = truth.gt_instances
        boxes = getattr(instances.bboxes, 'tensor', instances.bboxes).tolist()
        names = [classes[i] if len(classes) > 1 else '' for i in instances.labels]
        masks = list(getattr(instances.get('masks', None), 'masks', ()))
    elif 'gt_sem_seg' in truth:
        labels = truth.gt_sem_seg.data[0].numpy()
        masks = [labels == i for i in np.unique(labels[labels != 255])]
    inks = colours(max(len(masks), len(boxes)))
    for mask, ink in zip(masks, inks, strict=False):
        mask = np.asarray(mask, bool)
        pixels[mask] = (0.6 * pixels[mask] + 0.4 * np.array(ink)).astype(np.uint8)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    scale = CELL / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size])
    pen = ImageDraw.Draw(picture)
    for box, name, ink in zip(boxes, names, inks, strict=False):
        pen.rectangle([v * scale for v in box], outline=ink, width=2)
        pen.text(
            (box[0] * scale + 3, box[1] * scale + 1),
            name,
            fill='white',
            stroke_width=1,
            stroke_fill='black',
        )
    if 'gt_label' in truth:
        pen.text(
            (3, 1),
            ', '.join(classes[i] for i in truth.gt_label.tolist()),
            fill='white',
            stroke_width=1,
            stroke_fill='black',
        )
    return picture


def draw_sheet(
    dataset: Sequence[dict], classes: Sequence[str], bgr: bool, path: str | Path
) -> None:
    """Draw SHEET samples, spread over the data set, on one picture."""
    side = round(SHEET**0.5)
    sheet = Image.new('RGB', (side * (CELL + GAP),) * 2, 'white')
    for place, index in enumerate(np.linspace(0, len(dataset) - 1, SHEET).astype(int)):
        picture = draw(dataset[int(index)], classes, bgr)
        sheet.paste(picture, (place % side * (CELL + GAP), place // side * (CELL + GAP)))
    with whole_file(path) as part:
        sheet.save(part)
