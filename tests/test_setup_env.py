"""The set-up as far as it goes without installing anything; CI runs the whole of it."""
import os
import shutil
import subprocess
import sys

import pytest
import setup_env
from conftest import ROOT


@pytest.fixture
def set_up(tmp_path):
    """Run the set-up of a bare clone with an empty cache, with changes to the environment."""
    clone = tmp_path / 'clone'
    (clone / 'tools/dev').mkdir(parents=True)
    shutil.copy(ROOT / 'tools/dev/setup_env.py', clone / 'tools/dev')
    for name in ('constraints.txt', 'pyproject.toml', 'Makefile'):
        shutil.copy(ROOT / name, clone)

    def run(*command, free=1e12, **env):
        command = command or (sys.executable, '-c', f"""
import runpy, shutil, types
shutil.disk_usage = lambda path: types.SimpleNamespace(free={free})
runpy.run_path('tools/dev/setup_env.py', run_name='__main__')""")
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


def test_no_network_is_not_mistaken_for_done(set_up):
    clone, done = set_up(PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL='http://127.0.0.1:9/',
                         PIP_FIND_LINKS=str(ROOT / 'tests'))
    assert_one_line_error(done, 'torch', 'network')
    assert not setup_env.State(clone / '.venv').is_done()
    assert (clone / '.venv/convmlp-setup').read_text() == 'unfinished'


@pytest.mark.parametrize('gigabytes, temporary, needed', [
    (11, '', ', 12 GB needed. Free some, or let pip unpack 4 GB elsewhere: TMPDIR='),
    (7, '/dev/shm', ', 8 GB needed. Free some'),
    (3, '/dev/shm', 'of /dev/shm, 4 GB needed. Free some, or let pip')])
def test_no_space(gigabytes, temporary, needed, set_up, tmp_path):
    """Nothing is downloaded."""
    clone, done = set_up(free=gigabytes * 1e9, TMPDIR=temporary or str(tmp_path))
    assert_one_line_error(done, f'{gigabytes}.0 GB free on the disk of ', needed)
    assert ('TMPDIR' in done.stdout) == (gigabytes != 7)  # no way out where pip is not the one
    assert not (clone / '.venv').exists()


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
    program = f'import sys; sys.path.insert(0, {str(ROOT / "tools/dev")!r}); import setup_env\n' \
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
