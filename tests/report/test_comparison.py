"""Two runs: what is more than chance, and what must not be compared."""

import numpy as np
import pytest

pytest.importorskip('hotcoco')

from made_evidence import detections, instance, many  # noqa: E402

from convmlp_backbone.errors import UserError  # noqa: E402
from convmlp_backbone.report.classification import Classifications  # noqa: E402
from convmlp_backbone.report.comparison import differences, require_same  # noqa: E402
from convmlp_backbone.report.segmentation import Segmentations  # noqa: E402


class Set:
    def __init__(self, infos):
        self.infos, self.metainfo = infos, dict(classes=('a', 'b', 'c'))

    def __len__(self):
        return len(self.infos)

    def __getitem__(self, index):
        raise ValueError('no pipeline')

    def get_data_info(self, index):
        return self.infos[index]


def classified(right, images=200, seed=0):
    """Of ``images`` the share ``right`` taken rightly."""
    found = Classifications(Set([dict(img_path=f'{i}.jpg', gt_label=i % 3) for i in range(images)]))
    hit = np.random.default_rng(seed).random(images) < right
    for i in range(images):
        label = found.labels[i] if hit[i] else (found.labels[i] + 1) % 3
        found.set_best(i, np.array([label]), np.array([0.5]))
    return found


def segmented(right, images=40, seed=0):
    found = Segmentations(Set([dict(img_path=f'{i}.jpg') for i in range(images)]))
    truth, rng = np.random.default_rng(7), np.random.default_rng(seed)
    for i in range(images):
        labels = truth.integers(0, 3, (16, 16))
        wrong = rng.random((16, 16)) > right + rng.normal(0, 0.05)
        found.count(i, labels, np.where(wrong, (labels + 1) % 3, labels))
    return found


MAKE = dict(
    boxes=lambda quality, seed=0: many(None, images=30, noise=12 * (1 - quality), seed=seed),
    classes=lambda quality, seed=0: classified(quality, seed=seed),
    maps=lambda quality, seed=0: segmented(quality, seed=seed),
)


@pytest.mark.parametrize('kind', MAKE)
@pytest.mark.parametrize(
    'qualities, seeds, verdict',
    [((0.7, 0.9), (0, 1), 'better'), ((0.9, 0.7), (0, 1), 'worse'), ((0.8, 0.8), (2, 3), 'chance')],
)
def test_verdicts(kind, qualities, seeds, verdict):
    first, second = (MAKE[kind](q, s) for q, s in zip(qualities, seeds, strict=True))
    require_same(first, second)
    row = differences(first, second, 200)[0][0]
    assert verdict in row.verdict, row
    assert row.lower < row.second - row.first < row.upper
    same = differences(first, first, 50)[0][0]
    assert same.lower == same.upper == 0 and same.verdict == 'within chance'


def test_the_interval_of_top_1_is_the_binomial_one():
    first, second = classified(0.7, 400, seed=0), classified(0.7, 400, seed=1)
    row = differences(first, second, 2000)[0][0]
    change = second.right.astype(float) - first.right
    half = 1.96 * change.std() / 20
    assert (row.upper - row.lower) / 2 == pytest.approx(half, rel=0.1)


def test_few_images_have_no_interval():
    row = differences(many(None, images=5), many(None, images=5, seed=1), 50)[0][0]
    assert row.verdict == 'too few images' and row.lower is None


def test_masks_and_boxes_are_compared_by_boxes():
    first, second = many(None, images=12), many(None, images=12, seed=1)
    first.masks = True
    rows, _ = differences(first, second, 20)
    assert [row.name for row in rows] == ['box AP', 'box AP50', 'box AP75', 'box AR100']


ONE = instance(10, 10, 40, 40)
OTHER = dict(
    another_task=(detections([[ONE]], []), classified(0.5), 'different tasks'),
    fewer_images=(detections([[ONE]], []), detections([[ONE], []], []), '1 and 2 images'),
    other_labels=(detections([[ONE]], []), detections([[]], []), 'other labels'),
    other_classes=(detections([[ONE]], [], ('a',)), detections([[ONE]], [], ('b',)), 'classes'),
)


@pytest.mark.parametrize('name', OTHER)
def test_what_cannot_be_compared(name):
    first, second, words = OTHER[name]
    with pytest.raises(UserError, match=words):
        require_same(first, second)


def test_scores_of_maps_are_mmsegmentations(monkeypatch):
    metrics = pytest.importorskip('mmseg.evaluation.metrics')
    import torch

    found = segmented(0.8, images=0)
    found = Segmentations(Set([dict(img_path=f'{i}.jpg') for i in range(4)]))
    theirs = metrics.IoUMetric()
    theirs.dataset_meta = dict(classes=('a', 'b', 'c'))
    rng = np.random.default_rng(0)
    for i in range(4):
        truth, predicted = rng.integers(0, 3, (2, 20, 20))
        truth[0, :5], truth[1, :2] = 255, 7  # unlabelled, and a number without a class
        predicted[4:9] = truth[4:9]
        found.count(i, truth, predicted)
        theirs.process(
            {},
            [
                dict(
                    pred_sem_seg=dict(data=torch.tensor(predicted)[None]),
                    gt_sem_seg=dict(data=torch.tensor(np.where(truth == 7, 255, truth))[None]),
                )
            ],
        )
    scores = theirs.evaluate(4)
    assert 100 * found.metrics['mIoU'] == pytest.approx(scores['mIoU'], abs=0.006)
    assert 100 * found.metrics['pixel accuracy'] == pytest.approx(scores['aAcc'], abs=0.006)
    assert 100 * found.metrics['mean accuracy'] == pytest.approx(scores['mAcc'], abs=0.006)
