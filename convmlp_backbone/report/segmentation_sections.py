"""What a report says of a segmentor."""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from .charts import Html, html, number
from .confusion import confusion
from .gallery import Drawing, data_uri, gallery
from .page import Section, table, text, tiles
from .segmentation import IGNORE, Segmentations

KEYS = 40  # classes whose colours are explained: those of most pixels


def sections(found: Segmentations) -> Iterator[Section]:
    """The parts of the report, most telling first."""
    yield Section(
        'Scores',
        [
            tiles((name, number(value)) for name, value in found.metrics.items()),
            text(f'{len(found.maps)} images; by hotcoco, as MMSegmentation defines them.'),
        ],
    )
    yield Section(
        'Classes',
        [
            table(
                ['class', 'of all pixels', 'images', 'IoU', 'recall', 'precision'],
                [
                    [
                        row['name'],
                        f'{row["share"]:.2%}',
                        row['images'],
                        *(number(row[key]) for key in ('IoU', 'recall', 'precision')),
                    ]
                    for row in found.per_class()
                ],
                long=True,
            ),
            *confusion(
                'Truth (rows) and prediction (columns), pixels', found.counts, found.classes
            ),
        ],
    )
    yield Section('Images', pictures(found))


def pictures(found: Segmentations) -> list[Html]:
    """The classes' colours over the worst and the typical images."""

    def draw(index: int) -> Drawing:
        both, true, predicted = found.parts[:, index]
        present = np.flatnonzero(true + predicted).tolist()
        panels = [
            (name, overlay(found, content))
            for name, content in zip(('truth', 'prediction'), found.maps[index], strict=True)
        ]
        ious = [
            f'{found.classes[i]} {both[i] / (true[i] + predicted[i] - both[i]):.2f}'
            for i in present
        ]
        more = ', …' if len(ious) > 6 else ''
        return Drawing(
            f'mean IoU {found.qualities[index]:.3f}: {", ".join(ious[:6])}{more}',
            present,
            panels,
        )

    pixels = found.parts[1:].sum((0, 1))
    keys = ' '.join(
        f'<span><i class="keys" style="background:rgb{tuple(found.palette[i])}"></i>'
        f'{html(found.classes[i])}</span>'
        for i in np.argsort(-pixels, kind='stable')[:KEYS]
        if pixels[i]
    )
    return [
        Html(f'<div class="legend">{keys}</div>'),
        *gallery(found, found.qualities, draw),
    ]


def overlay(found: Segmentations, content: bytes) -> str:
    """A map in the classes' colours; what has no class is transparent."""
    values = np.asarray(Image.open(io.BytesIO(content)))
    image = Image.fromarray(values).convert('P')
    image.putpalette([v for colour in found.palette[:255] for v in colour])
    uri = data_uri(image, 'png', transparency=IGNORE)
    return (
        f'<image class="overlay" width="100%" height="100%" preserveAspectRatio="none" '
        f'href="{uri}"/>'
    )
