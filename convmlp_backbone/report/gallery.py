"""The worst and the typical images of a validation set, truth beside prediction."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from ..pictures import distinct_names, pixels_of, read_picture
from .charts import Html, html, short
from .evaluation import Evidence

IMAGES = 20  # of each kind
SIDE, QUALITY = 640, 80  # of an embedded JPEG: pixels of its longer side
SHAPES = 300  # boxes or masks drawn in one picture


class Drawing(NamedTuple):
    """What a picture shows.

    Attributes:
        about: Words under it.
        classes: Indices of the classes in it, to filter by.
        panels: Captions, and what is drawn over the image in its own pixels.
    """

    about: str
    classes: Sequence[int]
    panels: Sequence[tuple[str, str]]


def chosen(qualities: np.ndarray) -> dict[str, list[int]]:
    """Which images are the worst, and which are nearest to the median of the rest."""
    known = np.flatnonzero(np.isfinite(qualities))
    order = known[np.argsort(qualities[known], kind='stable')]
    worst, rest = order[:IMAGES], order[IMAGES:]
    if not len(rest):  # few images: half are the worse half
        worst, rest = np.array_split(order, 2) if len(order) > 1 else (order, order[:0])
    middle = np.median(qualities[rest]) if len(rest) else 0
    near = np.argsort(np.abs(qualities[rest] - middle), kind='stable')
    return dict(worst=worst.tolist(), typical=rest[near[:IMAGES]].tolist())


def jpeg(picture: np.ndarray) -> str:
    """An RGB picture as a data URI of bounded size."""
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE))
    return data_uri(image, 'jpeg', quality=QUALITY)


def data_uri(image: Image.Image, kind: str, **options: int) -> str:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return f'data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}'


def picture_of(evidence: Evidence, index: int) -> np.ndarray:
    """The image file, or what the network gets where that is no picture; or an error."""
    try:
        return read_picture(evidence.paths[index])
    except Exception:  # an array, a data set without files, a file that is broken
        return pixels_of(evidence.dataset[index]['inputs'].numpy())


def gallery(
    evidence: Evidence,
    qualities: np.ndarray,
    draw: Callable[[int], Drawing],
    threshold: float | None = None,
) -> list[Html]:
    """Cards of the worst and the typical images, with controls to filter them.

    Args:
        evidence: With the images' paths.
        qualities (images,): By which they are chosen, the greater the better; NaN is left out.
        threshold: The score from which predictions are shown at first; None where all are.
    """
    names = distinct_names(evidence.paths)
    groups = chosen(qualities)
    cards, seen = [], set()
    for group, indices in groups.items():
        for index in indices:
            drawing = draw(index)
            seen |= set(drawing.classes)
            cards.append(card(evidence, index, names[index], group, drawing))
    if not cards:
        return [Html('<p>There is no image to show.</p>')]
    options = ''.join(
        f'<option value="{i}">{html(short(evidence.classes[i], 40))}</option>' for i in sorted(seen)
    )
    slider = (
        ''
        if threshold is None
        else '<label>predictions from a score of <input name="score" type="range" min="0" max="1" '
        f'step="0.0001" value="{threshold:.4f}"> <output name="shown">{threshold:.2f}</output>'
        '</label>'
    )
    counts = ', '.join(f'{len(indices)} {name}' for name, indices in groups.items())
    return [
        Html(
            f'<p>Kept are {counts} of {len(evidence.paths)} images, JPEG of at most {SIDE} pixels. '
            'A click enlarges one.</p>'
            '<div class="controls"><label>images <select name="set"><option value="">all</option>'
            '<option>worst</option><option>typical</option></select></label>'
            '<label>with <select name="class"><option value="">any class</option>'
            f'{options}</select></label>{slider}</div>'
            f'<div class="cards">{"".join(cards)}</div>'
        )
    ]


def card(evidence: Evidence, index: int, name: str, group: str, drawing: Drawing) -> str:
    try:
        picture = picture_of(evidence, index)
    except Exception as error:
        panels = f'<p>cannot be shown: {html(f"{type(error).__name__}: {error}")}</p>'
    else:
        height, width = picture.shape[:2]
        image = f'<image id="p{index}" width="{width}" height="{height}" href="{jpeg(picture)}"/>'
        panels = ''.join(
            f'<div><small>{html(caption)}</small><svg viewBox="0 0 {width} {height}" '
            f'font-size="{max(width, height) / 26:.0f}">'
            f'{image if not i else f"""<use href="#p{index}"/>"""}{shapes}</svg></div>'
            for i, (caption, shapes) in enumerate(drawing.panels)
        )
    return (
        f'<div class="card" data-set="{group}" '
        f'data-classes="{" ".join(map(str, drawing.classes))}"><div class="panels">{panels}</div>'
        f'<div class="title">{html(name)}</div><small>{html(drawing.about)}</small></div>'
    )
