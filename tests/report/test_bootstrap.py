"""Samples with replacement: an image that is drawn twice counts twice."""

import numpy as np
import pytest

pytest.importorskip('hotcoco')

from made_evidence import detections, many  # noqa: E402

from convmlp_backbone.report.bootstrap import weights_of  # noqa: E402
from convmlp_backbone.report.comparison import differences  # noqa: E402

NAMES = ('box AP', 'box AP50', 'box AP75', 'box AR100')


def repeated(found, weights):
    """A validation set that has each image as often as ``weights`` says."""
    objects, rows = [], []
    for index, times in enumerate(weights):
        for _ in range(times):
            objects.append(found.dataset.infos[index]['instances'])
            part = found.results[found.results[:, 0] == index + 1]
            rows += [[len(objects), *row[1:]] for row in part]
    return detections(objects, rows, found.classes)


@pytest.mark.parametrize('seed', range(3))
def test_as_if_the_images_were_there_so_often(seed):
    found = many(None, images=12, seed=seed)
    for weights in (np.ones((1, 12), int), weights_of(12, 1, seed)):
        sample, theirs = found.sample(weights), repeated(found, weights[0])
        for name in NAMES:
            assert sample.metrics[name][0] == pytest.approx(theirs.metrics[name], abs=1e-9), name
        per_class = [np.nan if row['AP'] is None else row['AP'] for row in theirs.per_class()]
        assert sample.classes[0] == pytest.approx(per_class, nan_ok=True)


def test_chance_is_rarely_taken_for_progress():
    """Of pairs of equally good runs 5 % should be called different, of 40 hardly ever 6."""
    told = []
    for seed in range(0, 80, 2):
        first, second = (many(None, noise=2.4, seed=s) for s in (seed, seed + 1))
        told.append(differences(first, second, 100)[0][0].verdict)
    assert told.count('within chance') > 40 - 6
