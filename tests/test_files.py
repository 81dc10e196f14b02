"""Files that are written whole or not at all."""

import errno
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from convmlp_backbone.files import require_writable, whole_file


def begun(path):
    """A process that has begun to write ``path``; it goes on at SIGUSR1."""
    ready, is_ready = os.pipe()
    process = os.fork()
    if not process:
        signal.alarm(60)
        with whole_file(path) as part:
            part.write_text('half')
            os.write(is_ready, b'!')
            signal.sigwait({signal.SIGUSR1})
        os._exit(0)
    assert os.read(ready, 1) == b'!'
    return process


def test_require_writable(tmp_path):
    (tmp_path / 'old').write_text('old')
    require_writable(tmp_path / 'old')
    require_writable(tmp_path / 'new/file')
    assert (tmp_path / 'old').read_text() == 'old' and not list((tmp_path / 'new').iterdir())
    with pytest.raises(NotADirectoryError):
        require_writable(tmp_path / 'old/file')


def test_killed_writers_leave_what_the_next_one_removes(tmp_path):
    path = tmp_path / 'x.pth'
    path.write_text('before')
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    killed, alive = begun(path), begun(path)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    (tmp_path / '.x.123.part.pth').write_text('of a version before')
    (tmp_path / '.y.00ff.part.pth').write_text('of another file')
    with whole_file(path) as part:
        part.write_text('after')
    # The other writer lives and may go on.
    assert path.read_text() == 'after' and len(list(tmp_path.iterdir())) == 3
    os.kill(alive, signal.SIGUSR1)
    assert os.waitpid(alive, 0)[1] == 0
    assert path.read_text() == 'half'
    assert sorted(os.listdir(tmp_path)) == ['.y.00ff.part.pth', 'x.pth']


def test_many_writers_at_once_do_not_tear(tmp_path):
    path, barrier = tmp_path / 'x', Barrier(8, timeout=120)

    def write(letter):
        for _ in range(10):
            barrier.wait()
            with whole_file(path) as part, open(part, 'w') as file:
                for _ in range(50):
                    file.write(letter * 100)
                    file.flush()
            assert path.read_text() in [other * 5000 for other in 'abcdefgh']

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, 'abcdefgh'))  # raises what they raise
    assert os.listdir(tmp_path) == ['x']


@pytest.mark.parametrize('place', ['open', 'fsync', 'replace'])
@pytest.mark.parametrize('code', [errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT])
def test_errors_name_the_file_and_leave_it(tmp_path, monkeypatch, place, code):
    path = tmp_path / 'x.pth'
    path.write_text('before')

    def fail(name, *args, **kwargs):
        raise OSError(code, os.strerror(code), None if place == 'fsync' else str(name))

    monkeypatch.setattr(os, place, fail)
    with pytest.raises(OSError) as error, whole_file(path) as part:
        part.write_text('after')
    assert error.value.errno == code and error.value.filename == str(path)
    monkeypatch.undo()
    assert path.read_text() == 'before' and os.listdir(tmp_path) == ['x.pth']


def test_an_error_about_another_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError) as error, whole_file(tmp_path / 'x'):
        open(tmp_path / 'y')
    assert error.value.filename == str(tmp_path / 'y') and os.listdir(tmp_path) == []
