import io
import sys

import numpy as np
import pytest
from PIL import Image

from convmlp_backbone.errors import UserError
from convmlp_backbone.inputs import find, frames


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('a/x.png', 'b/x.JPG', 'b/deep/y.png', 'z.png'):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new('RGB', (8, 6), 'red').save(path)
    (tmp_path / 'b/notes.txt').write_text('# ours\nx.JPG\n\n../a\n')
    return tmp_path


@pytest.mark.parametrize(
    'sources, recursive, names',
    [
        (['a', 'b'], False, ['x.png', 'x_2.JPG']),
        (['b'], True, ['deep/y.png', 'x.JPG']),
        (['z.png', 'z.png', 'a/x.png'], False, ['z.png', 'x.png']),
        (['b/**/*'], False, ['y.png', 'x.JPG']),
        (['b/notes.txt'], False, ['x.JPG', 'x_2.png']),
        (['-', 'z.png'], False, ['stdin.png', 'z.png']),
    ],
)
def test_find(sources, recursive, names, folder):
    assert sorted(source.name for source in find(sources, recursive)) == sorted(names)


@pytest.mark.parametrize('sources', [['nowhere.png'], ['*.gif'], ['b/deep/..', 'nowhere']])
def test_what_is_not_there(sources, folder):
    with pytest.raises(UserError, match='no image'):
        find(sources)


def test_frames(folder, monkeypatch):
    cv2 = pytest.importorskip('cv2')
    writer = cv2.VideoWriter('film.avi', cv2.VideoWriter_fourcc(*'MJPG'), 5, (32, 24))
    for grey in (0, 100, 200):
        writer.write(np.full((24, 32, 3), grey, np.uint8))
    writer.release()
    found = list(frames(find(['film.avi'])[0]))
    assert [name for name, _ in found] == [f'film/00000{i}.jpg' for i in range(3)]
    assert [round(image.mean() / 100) for _, image in found] == [0, 1, 2]

    class Stdin:
        buffer = io.BytesIO((folder / 'z.png').read_bytes())

    monkeypatch.setattr(sys, 'stdin', Stdin)
    ((name, image),) = frames(find(['-'])[0])
    assert name == 'stdin.png' and image.shape == (6, 8, 3)


@pytest.mark.parametrize('name', ['broken.png', 'broken.avi'])
def test_what_cannot_be_read(name, folder):
    (folder / name).write_bytes(b'no image')
    with pytest.raises(ValueError, match='is no'):
        list(frames(find([name])[0]))


def test_lists_that_name_one_another(folder):
    (folder / 'one.txt').write_text('z.png\ntwo.txt\n')
    (folder / 'two.txt').write_text('one.txt\n')
    with pytest.raises(UserError, match=r'one\.txt names itself, or a list that does'):
        find(['one.txt'])
