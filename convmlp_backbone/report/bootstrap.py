"""COCO's average precision where images count several times, for samples with replacement.

hotcoco 1.3 compares by samples, too, but an image that is drawn twice counts once there, which
makes the intervals a fifth too narrow: of two runs that differ by chance alone it calls one better
three times as often as it says (measured on made predictions, tests/report/test_bootstrap.py).
"""

from typing import NamedTuple

import numpy as np

RECALLS = np.linspace(0, 1, 101)


class Samples(NamedTuple):
    """Scores of samples of the images.

    Attributes:
        metrics: (samples,) of each name.
        classes: (samples, classes) of the main score; NaN where a sample lacks the class.
    """

    metrics: dict[str, np.ndarray]
    classes: np.ndarray


def weights_of(images: int, samples: int, seed: int = 0) -> np.ndarray:
    """(samples, images): how often each image is drawn, as many as there are, with replacement."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), samples)


class ClassMatches:
    """Predictions of one class, by falling score, and which found an object at which IoU.

    Args:
        images (N,): The image of each, counted from 0.
        hits (IoUs, N): 1 found one, 0 found none, -1 does not count.
        objects (images,): How many there are in each image.
    """

    def __init__(self, images: np.ndarray, hits: np.ndarray, objects: np.ndarray):
        self.images, self.objects = images, objects
        self.right = [np.flatnonzero(row == 1) for row in hits]
        self.counted = [None if (row >= 0).all() else row >= 0 for row in hits]

    def scores(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
        """AP and recall (IoUs,) where images count ``weights`` (images,); None without objects."""
        number = weights @ self.objects
        if not number:
            return None
        count = weights[self.images]
        all_of = np.cumsum(count)
        ap, recall = np.zeros((2, len(self.right)))
        for i, (places, counted) in enumerate(zip(self.right, self.counted, strict=True)):
            if not len(places):
                continue
            seen = all_of if counted is None else np.cumsum(count * counted)
            # Between two that are right, precision only falls.
            right = np.cumsum(count[places])
            precision = right / np.maximum(seen[places], 1)
            # The best of what is had at this recall or a greater one.
            precision = np.maximum.accumulate(precision[::-1])[::-1]
            found = np.searchsorted(right / number, RECALLS)
            ap[i] = precision[found[found < len(precision)]].sum() / len(RECALLS)
            recall[i] = right[-1] / number
        return ap, recall


def average_precisions(
    classes: list[ClassMatches], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """AP and recall (classes, IoUs) where images count ``weights`` (images,); NaN: no objects."""
    size = len(classes[0].right) if classes else 0
    table = np.full((2, len(classes), size), np.nan)
    for c, matches in enumerate(classes):
        if (scores := matches.scores(weights)) is not None:
            table[:, c] = scores
    return table[0], table[1]
