"""Precision, recall and F1."""

import numpy as np


class Curve:
    """Precision and recall by score.

    Args:
        scores (N,): Of predictions.
        hits (N,): Which of them found an object.
        number: Of objects.
    """

    def __init__(self, scores: np.ndarray, hits: np.ndarray, number: int):
        order = np.argsort(-scores, kind='stable')
        self.scores, right = scores[order], np.cumsum(hits[order])
        self.precision = right / np.arange(1, len(right) + 1)
        self.recall = right / max(number, 1)
        self.f1 = 2 * right / np.maximum(np.arange(1, len(right) + 1) + number, 1)

    def best(self) -> tuple[float, float, float, float]:
        """Score of the best F1, that F1, precision and recall there; zeros if nothing is found."""
        if not len(self.f1) or not self.f1.max():
            return 0.0, 0.0, 0.0, 0.0
        # Of equal scores all count, or none.
        last = np.flatnonzero(np.append(self.scores[1:] != self.scores[:-1], True))
        i = last[self.f1[last].argmax()]
        return (
            float(self.scores[i]),
            float(self.f1[i]),
            float(self.precision[i]),
            float(self.recall[i]),
        )


def f1(right: int, wrong: int, missed: int) -> float:
    errors = wrong + missed
    return 2 * right / (2 * right + errors) if right or errors else 1.0
