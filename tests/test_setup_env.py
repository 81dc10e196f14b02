"""The set-up as far as it goes without installing anything; CI runs the whole of it."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import lock
import pytest
import setup_env
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@pytest.fixture
def set_up(tmp_path):
    """Run the set-up of a bare clone with an empty cache, with changes to the environment."""
    clone = tmp_path / 'clone'
    (clone / 'tools/dev').mkdir(parents=True)
    shutil.copy(ROOT / 'tools/dev/setup_env.py', clone / 'tools/dev')
    for name in ('constraints.txt', 'hashes.txt', 'pyproject.toml', 'Makefile'):
        shutil.copy(ROOT / name, clone)

    def run(*command, free=1e12, **env):
        command = command or (
            sys.executable,
            '-c',
            f"""
import runpy, shutil, types
shutil.disk_usage = lambda path: types.SimpleNamespace(free={free})
runpy.run_path('tools/dev/setup_env.py', run_name='__main__')""",
        )
        return clone, subprocess.run(
            command,
            cwd=clone,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'XDG_CACHE_HOME': str(tmp_path / 'cache'), **env},
        )

    return run


def assert_one_line_error(done, *parts):
    assert done.returncode != 0 and 'Traceback' not in done.stdout
    (error,) = (line for line in done.stdout.splitlines() if line.startswith('error: '))
    for part in parts:
        assert part in error


def test_no_compiler(set_up):
    clone, done = set_up(CXX='no-such-compiler', OPS='1')
    assert_one_line_error(done, 'no-such-compiler', 'apt install g++', 'OPS=0')
    assert not (clone / '.venv').exists()


def test_no_network_is_not_mistaken_for_done(set_up):
    """Nor is a compiler missed where none is needed."""
    clone, done = set_up(
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL='http://127.0.0.1:9/',
        PIP_FIND_LINKS=str(ROOT / 'tests'),
        UV='0',
        OPS='0',
        CXX='no-such',
    )
    assert_one_line_error(done, 'torch', 'network')
    environment, torch = (clone / '.venv/convmlp-setup').read_text().splitlines()
    assert environment.endswith(' environment') and torch == 'unfinished torch'


def test_operators_are_0_or_1(set_up):
    assert_one_line_error(set_up(OPS='yes')[1], 'OPS=yes: 1 compiles')


@pytest.mark.parametrize(
    'gigabytes, temporary, needed',
    [
        (7, '', ', 8 GB needed. Free some, or for pip'),
        (7, '/dev/shm', ', 8 GB needed. Free some'),
        (0, '/dev/shm', 'of /dev/shm, 1 GB needed. Free some, or for pip'),
    ],
)
def test_no_space(gigabytes, temporary, needed, set_up, tmp_path):
    """Nothing is downloaded."""
    clone, done = set_up(free=gigabytes * 1e9, TMPDIR=temporary or str(tmp_path), OPS='0')
    assert_one_line_error(done, f'{gigabytes}.0 GB free on the disk of ', needed)
    assert not (clone / '.venv').exists()


def test_no_python(set_up):
    _, done = set_up('make', 'demo', 'PYTHON=no-such-python')
    assert_one_line_error(done, 'no-such-python', 'Python 3.11')


def test_old_python(monkeypatch):
    monkeypatch.setattr(setup_env, 'OLDEST', (3, 98))
    monkeypatch.setattr(setup_env, 'NEWEST', (3, 99))
    with pytest.raises(setup_env.SetupError, match='Python 3.98 to 3.99 is needed.*PYTHON='):
        setup_env.use_suitable_python()


def steps_to(tmp_path, gpu=False, ops=False):
    return setup_env.steps_to(tmp_path, 'onedl', gpu, ops)


def names(steps):
    return [name for name, *_ in steps]


@pytest.fixture
def state(tmp_path):
    """Of an environment set up without a GPU and without operators."""
    state = setup_env.State(tmp_path)
    assert names(state.left(steps_to(tmp_path)))[:2] == ['environment', 'torch']
    state.write(steps_to(tmp_path))
    assert state.left(steps_to(tmp_path)) == []
    return state


def test_operators_and_a_gpu_are_added(state, tmp_path):
    assert names(state.left(steps_to(tmp_path, ops=True))) == ['operators']
    left = names(state.left(steps_to(tmp_path, gpu=True, ops=True)))
    assert 'triton' in left and 'torch' not in left and left[-1] == 'operators'
    state.write(steps_to(tmp_path, gpu=True, ops=True))
    assert state.left(steps_to(tmp_path)) == []  # more than is needed


def test_an_interrupted_step_is_known_and_taken_again(state, tmp_path):
    steps = steps_to(tmp_path)
    assert not state.begin(steps[:3])
    assert names(state.left(steps)) == names(steps[2:])
    assert state.begin(steps[:3])
    state.write(steps[:3])
    assert names(state.left(steps)) == names(steps[3:])


def test_a_changed_pin_takes_its_step_and_what_follows(state, tmp_path, monkeypatch):
    for name in ('CONSTRAINTS', 'HASHES'):
        text = getattr(setup_env, name).read_text()
        monkeypatch.setattr(setup_env, name, tmp_path / name)
        (tmp_path / name).write_text(re.sub(r'^(ruff==.*?)( |$)', r'\1.1\2', text, flags=re.M))
    assert names(state.left(steps_to(tmp_path))) == ['the rest', 'mmcv', 'convmlp-backbone']
    monkeypatch.undo()
    monkeypatch.setattr(setup_env, 'ROOT', tmp_path)  # a clone that was moved
    shutil.copy(ROOT / 'pyproject.toml', tmp_path)
    assert names(state.left(steps_to(tmp_path)))[0] == 'environment'


def test_a_second_set_up_waits_for_the_first(tmp_path):
    program = (
        f'import sys; sys.path.insert(0, {str(ROOT / "tools/dev")!r}); import setup_env\n'
        f'with setup_env.lock({str(tmp_path / "lock")!r}): print("in")'
    )
    with setup_env.lock(tmp_path / 'lock'):
        second = subprocess.Popen(
            [sys.executable, '-c', program], text=True, stdout=subprocess.PIPE
        )
        assert 'Waiting' in second.stdout.readline()
        assert second.poll() is None
    assert second.communicate(timeout=60)[0] == 'in\n'


def all_pins():
    return {
        name: version
        for section in setup_env.read_pins().values()
        for name, version in section.items()
    }


def test_every_pin_has_hashes_and_no_other_has():
    lines = [
        line
        for line in (ROOT / 'constraints.txt').read_text().splitlines()
        if line and not line.startswith('#')
    ]
    assert len(all_pins()) == len(lines)  # none twice
    locked = setup_env.locked(all_pins())
    assert all(re.fullmatch(r'\S+==\S+( +--hash=sha256:[0-9a-f]{64})+', line) for line in locked)
    assert (ROOT / 'hashes.txt').read_text().count('==') == len(locked)


def test_a_pin_without_a_hash_is_refused():
    with pytest.raises(setup_env.SetupError, match="'torch==0.1' in hashes.txt.*lock.py"):
        setup_env.locked({'torch': '0.1'})


def test_the_environment_is_what_the_pins_say_and_lacks_nothing():
    """Needed, as the set-up installs what is pinned and resolves nothing."""
    pins = all_pins()
    # Not what setuptools brings within itself, which is on the path once it has been imported.
    installed = {
        canonicalize_name(d.name): d
        for d in metadata.distributions(path=[sysconfig.get_path('purelib')])
    }
    ours = {'convmlp-backbone', 'pip'}
    found = {name: d.version for name, d in installed.items()}
    assert {n: v for n, v in found.items() if n not in ours and v != pins.get(n)} == {}
    stack = 'onedl' if 'onedl-mmcv' in found else 'openmmlab'
    extras = [stack, 'timm', 'demo', 'export', 'report', 'faster-eval', 'dev']
    needed = {}
    for distribution in installed.values():
        for requirement in map(Requirement, distribution.requires or ()):
            wanted = extras if distribution.name == 'convmlp-backbone' else ['']
            if not requirement.marker or any(
                requirement.marker.evaluate({'extra': extra}) for extra in wanted
            ):
                needed.setdefault(canonicalize_name(requirement.name), []).append(
                    (distribution.name, requirement.specifier)
                )
    spared = setup_env.read_pins()['gpu'].keys() | {'opencv-python'}
    assert needed.keys() - found.keys() <= spared
    assert [
        (name, by, str(specifier))
        for name, users in needed.items()
        if name in found
        for by, specifier in users
        if not specifier.contains(found[name], True)
    ] == []


@pytest.mark.parametrize('uv', ['0', '1'])
def test_a_file_with_another_hash_is_refused(uv, tmp_path, monkeypatch):
    if uv == '1' and not shutil.which('uv'):
        pytest.skip('uv is not on the PATH')
    monkeypatch.setenv('UV', uv)
    file = tmp_path / 'tiny-1.0-py3-none-any.whl'
    with zipfile.ZipFile(file, 'w') as archive:
        for name, text in {
            'METADATA': 'Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n',
            'WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
            'RECORD': '',
        }.items():
            archive.writestr(f'tiny-1.0.dist-info/{name}', text)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()

    def install(digest):
        setup_env.pip(
            Path(sys.prefix),
            '--no-deps',
            '--require-hashes',
            '--no-index',
            '--find-links',
            str(tmp_path),
            '--target',
            str(tmp_path / 'site'),
            lines=[f'tiny==1.0 --hash=sha256:{digest}'],
        )

    with pytest.raises(setup_env.SetupError, match='(?i)hash.* another file than was tested'):
        install(digest[::-1])
    install(digest)
    assert (tmp_path / 'site/tiny-1.0.dist-info').is_dir()


@pytest.mark.parametrize(
    'wheel, minors',
    [
        ('a-1-py3-none-any.whl', {11, 12, 13}),
        ('a-1-py2.py3-none-any.whl', {11, 12, 13}),
        ('a-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl', {12}),
        ('a-1-cp39-abi3-manylinux2014_aarch64.whl', {11, 12, 13}),
        ('a-1-cp312-abi3-linux_x86_64.whl', {12, 13}),
        ('a-1-cp313-cp313t-linux_x86_64.whl', set()),
        ('a-1-cp310-cp310-linux_x86_64.whl', set()),
        ('a-1-cp311-none-linux_x86_64.whl', {11}),
        ('a-1-cp311-cp311-musllinux_1_2_x86_64.whl', set()),
        ('a-1-py3-none-win_amd64.whl', set()),
    ],
)
def test_which_files_are_locked(wheel, minors):
    assert lock.pythons(wheel) == minors


@pytest.mark.parametrize('done, expected', [(10, '10 of 40'), (40, '40 of 40')])
def test_progress(done, expected, capsys):
    setup_env.show_progress(done, 40, 60.0 * done)
    out = capsys.readouterr().out
    assert expected in out and f'about {40 - done:.1f} min left' in out
