"""The numbers of a detector's report: COCO's, TIDE's, and those of made cases."""

import json

import numpy as np
import pytest

pytest.importorskip('hotcoco')

from made_evidence import NASTY, detections, instance, many  # noqa: E402

from convmlp_backbone.report.curve import Curve  # noqa: E402
from convmlp_backbone.report.detection_sections import sections  # noqa: E402
from convmlp_backbone.report.page import page  # noqa: E402


def test_the_scores_are_those_of_pycocotools(tmp_path):
    COCO = pytest.importorskip('pycocotools.coco').COCO
    COCOeval = pytest.importorskip('pycocotools.cocoeval').COCOeval
    found = many(None, images=25)
    (tmp_path / 'truth.json').write_text(json.dumps(found.truth))
    truth = COCO(tmp_path / 'truth.json')
    theirs = COCOeval(truth, truth.loadRes(found.results), 'bbox')
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    assert list(found.metrics) == [
        f'box {name}' for name in 'AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl'.split()
    ]
    assert list(found.metrics.values()) == pytest.approx(theirs.stats.tolist(), abs=1e-12)
    per_class = [row['AP'] for row in found.per_class()]
    assert np.mean(per_class) == pytest.approx(theirs.stats[0])
    assert sum(count for _, count, _ in found.per_size()) == len(found.truth['annotations'])


# An object of class one at (10, 10), 40 x 40, in each image; a prediction (x, y, w, h, category).
ONE = instance(10, 10, 40, 40)
KINDS = dict(
    wrong_class=((10, 10, 40, 40, 2), 'wrong class'),
    place=((10, 35, 40, 40, 1), 'bad place'),
    both=((10, 35, 40, 40, 2), 'class and place'),
    nothing=((120, 90, 40, 40, 1), 'background'),
)


@pytest.mark.parametrize('name', KINDS)
def test_kinds_of_errors(name):
    (x, y, w, h, category), kind = KINDS[name]
    found = detections(
        [[ONE], [ONE]], [(1, 10, 10, 40, 40, 0.9, 1), (2, x, y, w, h, 0.8, category)]
    )
    counts = {name: number for name, number, _ in found.error_kinds()}
    assert counts[kind] == 1
    assert counts['missed'] == (kind in ('background', 'class and place'))


def test_found_twice_and_missed():
    rows = [(1, 10, 10, 40, 40, 0.9, 1), (1, 11, 11, 40, 40, 0.8, 1)]
    found = detections([[ONE], [ONE]], rows)
    counts = {name: number for name, number, _ in found.error_kinds()}
    assert counts['found twice'] == 1 and counts['missed'] == 1
    assert found.hits.tolist() == [1, 0]
    assert found.threshold == 0.9 and found.errors == [(1, 0, 0), (0, 0, 1)]
    assert found.qualities.tolist() == [1, 0]


def test_confusion_with_the_background():
    rows = [(1, 10, 10, 40, 40, 0.9, 1), (2, 10, 10, 40, 40, 0.9, 2), (3, 99, 99, 9, 9, 0.9, 2)]
    matrix, names = detections([[ONE], [ONE], [ONE]], rows).confusion()
    assert names == ['one', 'two', 'background']
    # Found, taken for the other class, missed; and found where nothing is.
    assert matrix.tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 0]]


def test_groups_do_not_count():
    group = instance(80, 10, 100, 100, ignore=1)
    rows = [(1, 10, 10, 40, 40, 0.9, 1), (1, 82, 12, 95, 95, 0.8, 1)]
    found = detections([[ONE, group]], rows)
    assert found.hits.tolist() == [1, -1] and found.objects.sum() == 1
    assert found.errors == [(1, 0, 0)]


@pytest.mark.parametrize(
    'scores, hits, number, best',
    [
        ([0.9, 0.8, 0.7], [1, 0, 1], 2, (0.7, 0.8, 2 / 3, 1.0)),
        ([0.9, 0.8, 0.7], [1, 1, 0], 4, (0.8, 2 / 3, 1.0, 0.5)),
        ([0.5, 0.5], [1, 0], 1, (0.5, 2 / 3, 0.5, 1.0)),  # of equal scores both or none
        ([0.5], [0], 1, (0, 0, 0, 0)),
        ([], [], 3, (0, 0, 0, 0)),
    ],
)
def test_the_best_threshold(scores, hits, number, best):
    curve = Curve(np.array(scores), np.array(hits, bool), number)
    assert curve.best() == pytest.approx(best)


EMPTY = dict(
    no_predictions=detections([[ONE], []], []),
    no_objects=detections([[], []], [(1, 10, 10, 40, 40, 0.9, 1)]),
    nothing=detections([[], []], []),
    one_image=detections([[ONE]], [(1, 10, 10, 40, 40, 0.9, 1)]),
    class_without_objects=detections([[ONE]], [(1, 10, 10, 40, 40, 0.9, 2)]),
    only_groups=detections([[instance(1, 1, 9, 9, ignore=1)]], [(1, 1, 1, 9, 9, 0.9, 1)]),
    box_of_no_size=detections([[ONE]], [(1, 10, 10, 0, 0, 0.9, 1)]),
)


@pytest.mark.parametrize('name', EMPTY)
@pytest.mark.filterwarnings('error::RuntimeWarning')
def test_where_there_is_nothing(name):
    content = page(name, [], list(sections(EMPTY[name])))
    assert 'cannot be shown' in content  # as there are no files
    assert not {'>nan<', '>None<', '>-1.000<'} & set(content.replace('</', '<').split())
    assert '>nan<' not in content and '-1.000' not in content


def test_hundreds_of_classes_stay_small():
    names = [f'{NASTY[0]} {i}' for i in range(200)]
    content = page('', [], list(sections(many(None, images=60, classes=names))))
    assert '<script>hacked' not in content and len(content) < 600_000
