"""Predictions from a file: whose image they are of, and what is no such file."""

import json

import pytest

pytest.importorskip('hotcoco')

from made_evidence import detections, instance  # noqa: E402

from convmlp_backbone.errors import UserError  # noqa: E402
from convmlp_backbone.report.evaluation import Tolerant, known, read_predictions  # noqa: E402

BOX = dict(bbox=[1, 2, 3, 4], score=0.5)


def made():
    return detections([[instance(1, 2, 3, 4)], [instance(1, 2, 3, 4)]], [], folder='/data/val')


@pytest.mark.parametrize(
    'result, row',
    [
        (dict(image_id=101, category_id=2), (2, 2)),  # COCO's own: the ids of the data set
        (dict(image_id=9, file_name='1.jpg', category_id=9, category_name='one'), (2, 1)),
        (dict(image_id=100, file_name='val/1.jpg', category_id=1), (2, 1)),  # the name is right
    ],
)
def test_which_image_and_class(result, row, tmp_path):
    (tmp_path / 'p.json').write_text(json.dumps([result | BOX]))
    found = made()
    read_predictions(tmp_path / 'p.json', found)
    (read,) = found.results.tolist()
    assert (read[0], read[6]) == row and read[1:6] == [1, 2, 3, 4, 0.5]


@pytest.mark.parametrize(
    'name, content, words',
    [
        ('p.pkl', '', 'expected predictions.json of convmlp predict'),
        ('p.json', 'no json', 'is no file of predictions'),
        ('p.json', '{"a": 1}', 'is no file of predictions'),
        ('p.json', '[' * 100_000, 'is no file of predictions'),
        ('p.json', '{"images": ' * 100_000, 'is no file of predictions'),
        ('p.json', '[1]', 'is no file of predictions: no list of results'),
        ('p.json', '[{"file_name": "x.jpg"}]', 'tells of x.jpg, none of which is in'),
        ('p.json', '[{"image_id": 100}]', "cannot be understood .KeyError: 'category_id'"),
        ('p.json', '[{"image_id": 100, "category_name": "z"}]', "KeyError: 'z'"),
        ('p.json', '[{"image_id": 100, "category_id": 1, "bbox": [1], "score": 1}]', 'ValueError'),
        *(
            ('p.json', json.dumps([dict(BOX, image_id=100, category_id=1) | wrong]), words)
            for wrong, words in (
                (dict(score='high'), 'could not convert'),
                (dict(score=float('nan')), 'are not all finite'),
                (dict(bbox=[1, 2, 3, float('inf')]), 'are not all finite'),
                (dict(score=None), 'TypeError'),
            )
        ),
    ],
)
def test_what_is_none(name, content, words, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        read_predictions(tmp_path / name, made())


@pytest.mark.parametrize('mask', [5, 'x', dict(size=[9e9, 9e9], counts=[1])])
def test_masks_that_are_none(mask, tmp_path):
    result = dict(BOX, image_id=100, category_id=1, segmentation=mask)
    (tmp_path / 'p.json').write_text(json.dumps([result]))
    found = made()
    found.masks = True
    read_predictions(tmp_path / 'p.json', found)
    with pytest.raises(UserError, match='these predictions cannot be evaluated'):
        found.metrics  # noqa: B018


def test_no_predictions_at_all(tmp_path):
    (tmp_path / 'p.json').write_text('[]')
    found = made()
    read_predictions(tmp_path / 'p.json', found)
    assert found.metrics['box AP'] == 0


@pytest.mark.parametrize(
    'name, index',
    [('a/0.jpg', 0), ('b/0.jpg', 1), ('1.jpg', 2), ('0.jpg', None), ('other/1.jpg', 2)],
)
def test_names_with_folders(name, index):
    ends = {'a/0.jpg': 0, 'b/0.jpg': 1, '0.jpg': None, 'a/1.jpg': 2, '1.jpg': 2}
    assert known(ends, name) == index


def test_an_image_that_cannot_be_loaded_is_a_text():
    assert Tolerant(made().dataset)[1] == (1, 'ValueError: no pipeline')
