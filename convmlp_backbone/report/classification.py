"""What a classifier finds: a class for every image."""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement

from ..errors import UserError
from .bootstrap import Samples
from .evaluation import Evidence, finite, infos

BEST = 5


class Classifications(Evidence):
    """The likeliest classes of each image."""

    class_score = 'recall'

    def __init__(self, dataset: Any):
        super().__init__(dataset)
        told = infos(dataset)
        labels = [np.atleast_1d(info['gt_label']) for info in told]
        if any(len(part) != 1 for part in labels):
            raise UserError('images of the validation set have several classes each, or none')
        self.labels = np.array([int(part[0]) for part in labels], int)
        count = int(self.labels.max(initial=-1)) + 1
        self.classes = list(dataset.metainfo.get('classes') or map(str, range(count)))
        self.paths = [info.get('img_path', str(i)) for i, info in enumerate(told)]
        # Of each image: the likeliest classes, -1 where unknown, their scores, that of the truth.
        self.best = np.full((len(told), BEST), -1)
        self.scores = np.zeros((len(told), BEST))
        self.of_truth = np.full(len(told), np.nan)

    def add(self, index: int, sample: BaseDataElement) -> None:
        scores = sample.pred_score.numpy()
        order = np.argsort(-scores, kind='stable')[:BEST]
        self.set_best(index, order, scores[order])
        self.of_truth[index] = scores[self.labels[index]]

    def add_results(self, index: int, results: list[dict], folder: Path) -> None:
        if not results:
            self.leave_out(index, 'is not in the file of predictions')
            return
        found = results[0]['predictions'][:BEST]
        labels = [self.classes.index(part['category_name']) for part in found]
        scores = finite([part['score'] for part in found])
        self.set_best(index, np.array(labels, int), np.array(scores, float))
        told = dict(zip(labels, scores, strict=True))
        self.of_truth[index] = told.get(int(self.labels[index]), 0.0)

    def set_best(self, index: int, labels: np.ndarray, scores: np.ndarray) -> None:
        self.best[index, : len(labels)], self.scores[index, : len(labels)] = labels, scores

    @property
    def read(self) -> np.ndarray:
        """(images,) which were judged."""
        return self.best[:, 0] >= 0

    @property
    def right(self) -> np.ndarray:
        return self.best[:, 0] == self.labels

    @property
    def among(self) -> np.ndarray:
        return (self.best == self.labels[:, None]).any(1)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Out of 1."""
        accuracies = [row['recall'] for row in self.per_class() if row['recall'] is not None]
        found = {'top-1': mean(self.right[self.read])}
        if len(self.classes) > BEST:
            found['top-5'] = mean(self.among[self.read])
        return found | {'mean over classes': mean(np.array(accuracies))}

    def sample(self, weights: np.ndarray) -> Samples:
        weights = weights * self.read
        total = np.maximum(weights.sum(1), 1)
        found = {'top-1': weights @ self.right / total}
        if len(self.classes) > BEST:
            found['top-5'] = weights @ self.among / total
        of_class = self.labels[:, None] == np.arange(len(self.classes))
        there, right = weights @ of_class, weights @ (of_class & self.right[:, None])
        recall = np.divide(right, there, out=np.full(there.shape, np.nan), where=there > 0)
        return Samples(found, recall)

    def truth_key(self) -> object:
        return self.classes, self.labels.tolist()

    def counts(self) -> np.ndarray:
        counts = np.zeros((len(self.classes), len(self.classes)), int)
        np.add.at(counts, (self.labels[self.read], self.best[self.read, 0]), 1)
        return counts

    def per_class(self) -> list[dict]:
        counts = self.counts()
        there, found, right = counts.sum(1), counts.sum(0), counts.diagonal()
        return [
            dict(
                name=name,
                images=int(there[i]),
                recall=right[i] / there[i] if there[i] else None,
                precision=right[i] / found[i] if found[i] else None,
            )
            for i, name in enumerate(self.classes)
        ]


def mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float('nan')
