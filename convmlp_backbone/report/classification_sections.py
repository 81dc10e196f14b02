"""What a report says of a classifier."""

from collections.abc import Iterator

from .charts import Html, number, reliability_chart
from .classification import Classifications
from .confusion import confusion
from .gallery import Drawing, gallery
from .page import Section, beside, table, text, tiles


def sections(found: Classifications) -> Iterator[Section]:
    """The parts of the report, most telling first."""
    import hotcoco.metrics

    scores, right = found.scores[found.read, 0].clip(0, 1), found.right[found.read]
    bins = hotcoco.metrics.calibration_curve(scores, right, 10)
    error, _ = hotcoco.metrics.calibration_error(scores, right, 10)
    yield Section(
        'Scores',
        [
            tiles((name, number(value)) for name, value in found.metrics.items()),
            text(f'{int(found.read.sum())} images, {int((~right).sum())} of them taken wrong.'),
        ],
    )
    yield Section(
        'Classes',
        [
            table(
                ['class', 'images', 'recall', 'precision'],
                [
                    [
                        row['name'],
                        row['images'],
                        *(number(row[key]) for key in ('recall', 'precision')),
                    ]
                    for row in found.per_class()
                ],
                long=True,
            ),
            *confusion('Truth (rows) and prediction (columns)', found.counts(), found.classes),
            beside(
                reliability_chart(
                    f'Share of right predictions by score; calibration error {error:.3f}', bins
                )
            ),
        ],
    )
    yield Section('Images', pictures(found))


def pictures(found: Classifications) -> list[Html]:
    """The worst and the typical images, with what they were taken for."""

    def draw(index: int) -> Drawing:
        truth = found.classes[found.labels[index]]
        told = ', '.join(
            f'{found.classes[label]} {score:.2f}'
            for label, score in zip(found.best[index], found.scores[index], strict=True)
            if label >= 0
        )
        kinds = sorted({int(found.labels[index]), int(found.best[index, 0])})
        return Drawing(f'{truth}; predicted {told}', kinds, [('', '')])

    return [
        text('Worst and typical (nearest to the median) by the score of the true class.'),
        *gallery(found, found.of_truth, draw),
    ]
