"""Classification folders as people have them."""

import shlex
import shutil

import pytest

from convmlp_backbone.checks.folders import folder_problems, list_problems


@pytest.fixture
def roots(tmp_path):
    for split in ('train', 'val'):
        for name in ('dress', 'hat', 'pants'):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                (folder / f'{i}.jpg').touch()
    return dict(train=str(tmp_path / 'train'), val=str(tmp_path / 'val'))


def hidden(root):
    (root / 'train/.ipynb_checkpoints').mkdir()
    (root / 'train/.ipynb_checkpoints/0-checkpoint.jpg').touch()


def emptied(root):
    shutil.rmtree(root / 'val/hat')
    (root / 'val/hat').mkdir()


# A change of good folders, options, and words of the answer.
CASES = dict(
    good=(lambda root: None, {}, None),
    val_lacks_a_class=(lambda root: shutil.rmtree(root / 'val/hat'), {}, 'error: mkdir {}/val/hat'),
    val_has_none_of_a_class=(emptied, {}, 'warning: has no image of hat'),
    val_has_more=(lambda root: (root / 'val/shoes').mkdir(), {}, 'error: was not trained on'),
    hidden_folder=(hidden, {}, 'error: rm -r {}/train/.ipynb_checkpoints'),
    mac_folder=(lambda root: (root / 'val/__MACOSX').mkdir(), {}, 'error: rm -r {}/val/__MACOSX'),
    empty_folder=(lambda root: (root / 'train/old').mkdir(), {}, 'error: rm -r {}/train/old'),
    other_formats=(
        lambda root: [path.rename(path.with_suffix('.webp')) for path in root.glob('train/hat/*')],
        {},
        "error: '.tif', '.webp')",
    ),
    no_folders=(
        lambda root: [shutil.rmtree(root / 'train' / name) for name in ('dress', 'hat', 'pants')],
        {},
        'error: has no folders',
    ),
    other_number=(lambda root: None, dict(num_classes=4), 'error: model.head.num_classes=3'),
    names_in_another_order=(
        lambda root: None,
        dict(classes=['hat', 'dress', 'pants']),
        "error: write classes=('dress', 'hat', 'pants')",
    ),
    other_names=(lambda root: None, dict(classes=['Kleid', 'Hut', 'Hose']), None),
    few_images=(lambda root: None, dict(batch=7), 'error: 6 images are less than a batch of 7'),
)


@pytest.mark.parametrize('name', CASES)
def test_folders(name, roots, tmp_path):
    change, options, answer = CASES[name]
    change(tmp_path)
    found = folder_problems(roots, **{**dict(classes=None, num_classes=None), **options})
    if answer is None:
        assert found == []
    else:
        severity, words = answer.split(': ', 1)
        assert [p.severity for p in found] == [severity]
        assert words.format(shlex.quote(str(tmp_path))) in found[0].text


def test_the_numbering_of_a_checkpoint(roots):
    assert (
        folder_problems(dict(test=roots['val']), None, None, learned=['dress', 'hat', 'pants'])
        == []
    )
    (problem,) = folder_problems(
        dict(test=roots['val']), None, None, learned=['coat', 'dress', 'hat', 'pants']
    )
    assert 'has no folder coat' in problem.text


@pytest.mark.parametrize(
    'content, words',
    [
        ('hat/0.jpg 1\ndress/1.jpg 0\n', None),
        ('hat/0.jpg 4\n', 'has the class index 4'),
        ('hat/9.jpg 1\n', 'there is no'),
        ('hat/0.jpg hat\n', "'hat/0.jpg hat': expected"),
        ('hat/0.jpg,1\n', 'expected the name'),
        ('', 'lists no image'),
    ],
)
def test_lists(content, words, roots, tmp_path):
    (tmp_path / 'list.txt').write_text(content)
    found = list_problems(str(tmp_path / 'list.txt'), roots['train'], 3)
    assert words is None and not found or words in found[0].text
