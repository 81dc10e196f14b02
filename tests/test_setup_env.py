"""The set-up as far as it goes without installing anything; CI runs the whole of it."""
import os
import shutil
import subprocess
import sys
from argparse import Namespace

import pytest
import setup_env
from conftest import ROOT


@pytest.fixture
def set_up(tmp_path):
    """Run the set-up of a bare clone with an empty cache, with changes to the environment."""
    clone = tmp_path / 'clone'
    (clone / 'tools').mkdir(parents=True)
    shutil.copy(ROOT / 'tools/setup_env.py', clone / 'tools')
    for name in ('constraints.txt', 'pyproject.toml', 'Makefile'):
        shutil.copy(ROOT / name, clone)

    def run(*command, **env):
        command = command or (sys.executable, 'tools/setup_env.py')
        return clone, subprocess.run(
            command, cwd=clone, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, 'XDG_CACHE_HOME': str(tmp_path / 'cache'), **env})
    return run


def assert_one_line_error(done, *parts):
    assert done.returncode != 0 and 'Traceback' not in done.stdout
    error, = (line for line in done.stdout.splitlines() if line.startswith('error: '))
    for part in parts:
        assert part in error


def test_no_compiler(set_up):
    clone, done = set_up(CXX='no-such-compiler')
    assert_one_line_error(done, 'no-such-compiler', 'apt install g++')
    assert not (clone / '.venv').exists()


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    for name, value in dict(CONFIG_FILE=os.devnull, INDEX_URL='http://127.0.0.1:9/',
                            FIND_LINKS=str(ROOT / 'tests')).items():
        monkeypatch.setenv(f'PIP_{name}', value)
    monkeypatch.setattr(setup_env, 'CACHE', tmp_path / 'cache')


def test_no_network_is_not_mistaken_for_done(no_network, tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, 'check_space', lambda *folders: None)
    state = setup_env.State(tmp_path / '.venv')
    with pytest.raises(setup_env.SetupError, match='torch.*network'):
        setup_env.set_up(tmp_path / '.venv', 'onedl', state)
    assert state.read() == 'unfinished'


@pytest.mark.parametrize('free, temporary, message', [
    (11, '', '11.0 GB free on the disk of .*, 12 GB needed.*TMPDIR='),
    (7, '/dev/shm', '7.0 GB free on the disk of .*, 8 GB needed'),
    (3, '/dev/shm', '3.0 GB free on the disk of /dev/shm, 4 GB needed')])
def test_no_space(free, temporary, message, no_network, tmp_path, monkeypatch):
    """Nothing is downloaded."""
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: Namespace(free=free * 1e9))
    monkeypatch.setattr(setup_env.tempfile, 'gettempdir', lambda: temporary or str(tmp_path))
    state = setup_env.State(tmp_path / '.venv')
    with pytest.raises(setup_env.SetupError, match=message):
        setup_env.set_up(tmp_path / '.venv', 'onedl', state)
    assert not (tmp_path / '.venv').exists()


def test_no_python(set_up):
    _, done = set_up('make', 'demo', 'PYTHON=no-such-python')
    assert_one_line_error(done, 'no-such-python', 'Python 3.10')


def test_old_python(monkeypatch):
    monkeypatch.setattr(setup_env, 'OLDEST', (3, 98))
    monkeypatch.setattr(setup_env, 'NEWEST', (3, 99))
    with pytest.raises(setup_env.SetupError, match='Python 3.98 to 3.99 is needed.*PYTHON='):
        setup_env.use_suitable_python()


def test_state_changes_with_the_pins(tmp_path, monkeypatch):
    pins = tmp_path / 'constraints.txt'
    monkeypatch.setattr(setup_env, 'CONSTRAINTS', pins)
    pins.write_text('torch==2.10.0')
    state = setup_env.State(tmp_path)
    assert state.read() == '' and not state.is_done()
    state.write('torch')
    assert not state.is_done()
    state.write(state.done)
    assert setup_env.State(tmp_path).is_done()
    pins.write_text('torch==2.11.0')
    assert not setup_env.State(tmp_path).is_done()


def test_a_second_set_up_waits_for_the_first(tmp_path):
    program = f'import sys; sys.path.insert(0, {str(ROOT / "tools")!r}); import setup_env\n' \
              f'with setup_env.lock({str(tmp_path / "lock")!r}): print("in")'
    with setup_env.lock(tmp_path / 'lock'):
        second = subprocess.Popen([sys.executable, '-c', program], text=True,
                                  stdout=subprocess.PIPE)
        assert 'Waiting' in second.stdout.readline()
        assert second.poll() is None
    assert second.communicate(timeout=60)[0] == 'in\n'


def test_every_pin_is_exact():
    lines = [line for line in (ROOT / 'constraints.txt').read_text().splitlines()
             if line and not line.startswith('#')]
    assert all(line.count('==') == 1 for line in lines)
    names = [line.split('==')[0].lower() for line in lines]
    assert len(names) == len(set(names))
    assert setup_env.pinned('torch') == lines[names.index('torch')].split('==')[1]


@pytest.mark.parametrize('done, expected', [(10, '10 of 40'), (40, '40 of 40')])
def test_progress(done, expected, capsys):
    setup_env.show_progress(done, 40, 60.0 * done)
    out = capsys.readouterr().out
    assert expected in out and f'about {40 - done:.1f} min left' in out
