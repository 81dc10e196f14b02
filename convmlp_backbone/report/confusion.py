"""Which classes are taken for which."""

from collections.abc import Sequence

import numpy as np

from .charts import Html, heat_map
from .page import table, text

PAIRS = 12


def confusion(title: str, counts: np.ndarray, names: Sequence[str]) -> list[Html]:
    """The matrix (C, C), truth by prediction, and the pairs that are most frequent.

    Classes that are neither there nor predicted are left out.
    """
    counts = np.asarray(counts, float)
    kept = np.flatnonzero(counts.sum(0) + counts.sum(1)).tolist()
    if not kept:
        return [text('There is nothing to confuse.')]
    counts, names = counts[np.ix_(kept, kept)], [names[i] for i in kept]
    wrong = counts * (1 - np.eye(len(counts)))
    pairs = sorted(np.argwhere(wrong), key=lambda pair: -wrong[tuple(pair)])[:PAIRS]
    rows = [
        [names[i], names[j], f'{wrong[i, j]:,.0f}', f'{wrong[i, j] / counts[i].sum():.0%}']
        for i, j in pairs
    ]
    return [
        heat_map(title, counts, names, names),
        table(['truth', 'taken for', 'times', 'of the class'], rows)
        if rows
        else text('Nothing is confused.'),
    ]
