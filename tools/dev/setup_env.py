"""Make the virtual environment that `make` works in: ``setup_env.py [onedl | openmmlab]``.

Runs on a bare Python, standard library only. What it installs stands in constraints.txt, checked
against hashes.txt; uv installs it where it is on the PATH, pip otherwise (UV=0: pip anyway). With a
GPU, or OPS=1 in the environment, mmcv's operators are compiled, once per machine, as the wheel is
kept outside the clone; without, or with OPS=0, nothing is (convmlp_backbone/mmcv_ops.py). What was
interrupted is picked up by the next call.
"""

import argparse
import ctypes
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONSTRAINTS, HASHES = ROOT / 'constraints.txt', ROOT / 'hashes.txt'
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'convmlp-backbone'
MMCV = {'onedl': 'onedl-mmcv', 'openmmlab': 'mmcv'}
OLDEST, NEWEST = (3, 11), (3, 13)  # Pythons for which every pinned package has a wheel
GIGABYTES, FOR_GPU, UNPACKING = 8, 2, 1  # the environment; pip's largest download


class SetupError(Exception):
    """What is missing on this machine, and what to do."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('stack', nargs='?', choices=sorted(MMCV), default='onedl')
    stack = parser.parse_args().stack
    use_suitable_python()
    gpu = has_gpu()
    ops = os.environ.get('OPS') or str(int(gpu))
    if ops not in ('0', '1'):
        raise SetupError(f"OPS={ops}: 1 compiles the operators of mmcv, 0 takes torchvision's")
    venv = ROOT / ('.venv' if stack == 'onedl' else '.venv-' + stack)
    steps = steps_to(venv, stack, gpu, ops == '1')
    state = State(venv)
    if state.left(steps):
        CACHE.mkdir(parents=True, exist_ok=True)
        with lock(CACHE / 'lock'):
            set_up(venv, steps, state)


def set_up(venv, steps, state):
    left, start = state.left(steps), time.time()
    if not left:
        return  # the set-up that this one waited for did it
    names = [name for name, *_ in left]
    print(f'Setting up {venv}, the first time in some minutes.', flush=True)
    if names[-1] == 'operators' and not wheel(left[-1][1]):
        check_compiler()
    if 'environment' in names:
        check_space(venv.parent, GIGABYTES + FOR_GPU * ('triton' in names))
    for number, (name, _, install) in enumerate(left, len(steps) - len(left) + 1):
        print(f'[{number}/{len(steps)}] {name}', flush=True)
        again = state.begin(steps[:number])
        install(again)
        state.write(steps[:number])
    print(f'Set up in {(time.time() - start) / 60:.1f} min.', flush=True)


def steps_to(venv, stack, gpu, ops):
    """What leads to the environment, in order: (name, key, function).

    A step whose key is another one than when it was taken is taken again, and so are all after it.
    The function is told whether the last attempt at it was broken off.
    """
    python, pins = f'py{sys.version_info[0]}.{sys.version_info[1]}', read_pins()
    linked, for_gpu = (
        pins[section] if platform.machine() == 'x86_64' else {} for section in ('cuda', 'gpu')
    )
    others = {**pins[stack], **pins['all']}
    mmcv = f'{MMCV[stack]}=={others.pop(MMCV[stack])}'
    device = 'cuda' if gpu else 'cpu'

    def packages(name, chosen):
        lines = locked(chosen)
        return (
            name,
            digest(*lines),
            lambda again: pip(
                venv,
                '--no-deps',
                '--no-build-isolation',
                '--require-hashes',
                lines=lines,
                again=again,
            ),
        )

    def one_by_one(chosen):  # what pip downloads together it keeps together, which fills the disk
        return [packages(name, {name: version}) for name, version in chosen.items()]

    def from_source(name, key, make):
        return (
            name,
            key,
            lambda again: pip(
                venv,
                '--no-deps',
                '--force-reinstall',
                str(wheel(key) or make(venv, mmcv, key)),
                again=again,
            ),
        )

    return [
        ('environment', digest(str(ROOT), python), lambda again: make_venv(venv)),
        *one_by_one({**pins['torch'], **linked}),
        packages('what builds the rest', pins['build']),
        packages('the rest', others),
        from_source('mmcv', f'{mmcv}-{python}', without_operators),
        (
            'convmlp-backbone',
            digest((ROOT / 'pyproject.toml').read_text()),
            lambda again: pip(venv, '--no-deps', '--no-build-isolation', '-e', str(ROOT)),
        ),
        *(one_by_one(for_gpu) if gpu else ()),
        *(
            [
                from_source(
                    'operators',
                    f'{mmcv}-torch{pins["torch"]["torch"]}-{device}-{python}',
                    with_operators,
                )
            ]
            if ops
            else ()
        ),
    ]


class State:
    """The steps that an environment has behind it: lines 'key name' in a file of it."""

    def __init__(self, venv):
        self.file = venv / 'convmlp-setup'

    def read(self):
        return self.file.read_text().splitlines() if self.file.exists() else []

    def left(self, steps):
        """Those of ``steps`` that are still to be taken."""
        taken = self.read()
        for number, (name, key, _) in enumerate(steps):
            if taken[number : number + 1] != [f'{key} {name}']:
                return steps[number:]
        return []

    def begin(self, steps):
        """Note that the last of ``steps`` is under way; returns whether it was before."""
        before, name = self.read(), steps[-1][0]
        if len(steps) > 1:  # there is an environment to note it in
            self.write([*steps[:-1], (name, 'unfinished', None)])
        return before[len(steps) - 1 :] == [f'unfinished {name}']

    def write(self, steps):
        unfinished = self.file.with_suffix('.new')
        unfinished.write_text(''.join(f'{key} {name}\n' for name, key, _ in steps))
        os.replace(unfinished, self.file)


class lock:
    """Let one set-up of this user run at a time."""

    def __init__(self, path):
        self.file = open(path, 'w')

    def __enter__(self):
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('Waiting for another set-up that is running ...', flush=True)
            fcntl.flock(self.file, fcntl.LOCK_EX)

    def __exit__(self, *exc):
        self.file.close()


def has_gpu():
    """Whether CUDA's driver has a device for this process."""
    try:
        driver = ctypes.CDLL('libcuda.so.1')
    except OSError:
        return False
    devices = ctypes.c_int()
    return (driver.cuInit(0), driver.cuDeviceGetCount(ctypes.byref(devices))) == (
        0,
        0,
    ) and devices.value > 0


def use_suitable_python():
    """Start again with another Python of this machine if this one does not fit."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        other = shutil.which(f'python3.{minor}')
        # A version manager's stand-in can be on the path and fail.
        if other and subprocess.run([other, '-c', ''], stderr=subprocess.DEVNULL).returncode == 0:
            os.execv(other, [other, *sys.argv])
    raise SetupError(
        f'Python {platform.python_version()} does not fit: Python {OLDEST[0]}.{OLDEST[1]} to '
        f'{NEWEST[0]}.{NEWEST[1]} is needed. Install one, then: make PYTHON=/path/to/python3.11'
    )


def check_compiler():
    """Raise where mmcv's ops could not be compiled, before anything is downloaded."""
    compiler = os.environ.get('CXX', 'c++')
    if not shutil.which(compiler):
        raise SetupError(
            f"no C++ compiler ({compiler}) here, which mmcv's operators need. "
            'Install one: apt install g++, dnf install gcc-c++, or set CXX; '
            "or take torchvision's operators: OPS=0 make ..."
        )
    if not Path(sysconfig.get_path('include'), 'Python.h').exists():
        raise SetupError(
            "no Python.h here, which mmcv's operators need. Install it: "
            'apt install python3-dev, dnf install python3-devel; '
            "or take torchvision's operators: OPS=0 make ..."
        )


def check_space(folder, gigabytes):
    """Raise where the environment in ``folder``, or what pip downloads, would fill the disk."""
    temporary = Path(tempfile.gettempdir())
    needed = {folder: gigabytes}
    if folder.stat().st_dev != temporary.stat().st_dev:  # else it is gone when the rest is there
        needed = {temporary: UNPACKING, folder: gigabytes}
    for path, gigabytes in needed.items():
        free = shutil.disk_usage(path).free / 1e9
        if free < gigabytes:
            raise SetupError(
                f'{free:.1f} GB free on the disk of {path}, {gigabytes} GB needed. '
                "Free some, or for pip's downloads: TMPDIR=/another/disk make ..."
            )


def make_venv(venv):
    shutil.rmtree(venv, ignore_errors=True)
    # This may run on the Python of the very environment that is made anew.
    python = getattr(sys, '_base_executable', sys.executable)
    made = subprocess.run(
        [python, '-m', 'venv', str(venv)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if made.returncode:
        raise SetupError(
            'python -m venv failed. On Debian and Ubuntu: apt install python3-venv. '
            'It said: ' + ' '.join(made.stdout.split())[-300:]
        )


def read_pins():
    """The pins of constraints.txt: {section: {name: version}}."""
    pins = {}
    for line in CONSTRAINTS.read_text().splitlines():
        if heading := re.match(r'# \[(\w+)\]', line):
            section = pins.setdefault(heading.group(1), {})
        elif line and not line.startswith('#'):
            name, version = line.split('==')
            section[name] = version
    return pins


def locked(pins):
    """A line for pip of every pin, with the hashes of its files."""
    lines = {line.split()[0]: line for line in HASHES.read_text().replace('\\\n', '').splitlines()}
    try:
        return [lines[f'{name}=={version}'] for name, version in pins.items()]
    except KeyError as missing:
        raise SetupError(
            f'no hash of {missing} in hashes.txt; write it: python tools/dev/lock.py'
        ) from None


def digest(*texts):
    return hashlib.sha256('\n'.join(texts).encode()).hexdigest()[:16]


def pip(venv, *args, lines=(), again=False, command='install', env=None):
    """Run uv or pip for the environment, or raise with its first error.

    ``lines`` are of a file of requirements; ``again`` installs over what was half installed.
    """
    uv = command == 'install' and os.environ.get('UV') != '0' and shutil.which('uv')
    if uv:
        program = [uv, 'pip', command, '--python', str(venv / 'bin/python')]
    else:
        program = [
            str(venv / 'bin/python'),
            '-m',
            'pip',
            '--disable-pip-version-check',
            command,
            '--retries',
            '2',
        ]
    if again:  # pip cannot uninstall it, and may take it for complete
        program.append('--reinstall' if uv else '--ignore-installed')
    with tempfile.NamedTemporaryFile('w', suffix='.txt') as requirements:
        requirements.write('\n'.join(lines))
        requirements.flush()
        program += [*args, *(['-r', requirements.name] if lines else [])]
        done = subprocess.run(
            program,
            text=True,
            errors='replace',
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=env,
        )
    if done.returncode:
        said = done.stdout.splitlines()
        first = next((n for n, line in enumerate(said) if line.lower().startswith('error')), -1)
        reason = ' '.join(' '.join(said[first:]).split())[:300]
        advice = (
            'Free some of it.'
            if 'No space left' in reason
            else 'The index has another file than was tested.'
            if 'hash' in reason.lower()
            else 'Is there a network, or a package index in reach?'
            + " uv does not read pip's settings; UV=0 takes pip." * bool(uv)
        )
        raise SetupError(
            f'{"uv " * bool(uv)}pip {command} failed: {reason}. {advice} '
            'The next call goes on from here'
        )


def wheel(key):
    """The wheel of mmcv that was built for ``key``, or None."""
    return next((CACHE / 'wheels' / key).glob('*.whl'), None)


def without_operators(venv, mmcv, key):
    """Build ``mmcv`` ('name==version') in seconds: it leaves its operators out without torch."""
    source = unpacked_source(venv, mmcv, key)
    (source.parent / 'torch.py').write_text('raise ModuleNotFoundError(name="torch")')
    pip(
        venv,
        '--no-deps',
        '--no-build-isolation',
        '-w',
        str(source.parent / 'wheel'),
        str(source),
        command='wheel',
        env={**os.environ, 'PYTHONPATH': str(source.parent)},
    )
    return keep_wheel(source.parent, key)


def with_operators(venv, mmcv, key):
    """Compile ``mmcv`` ('name==version') for the installed torch."""
    check_compiler()
    cuda, found = subprocess.run(
        [
            str(venv / 'bin/python'),
            '-c',
            'import torch; from torch.utils.cpp_extension import '
            'CUDA_HOME; print(torch.version.cuda, CUDA_HOME is not None)',
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout.split()
    if '-cuda-' in key and found == 'False':
        raise SetupError(
            f'a GPU but no CUDA compiler: install the CUDA {cuda} toolkit (nvcc), or '
            "take torchvision's operators: OPS=0 make ..."
        )
    source = unpacked_source(venv, mmcv, key)
    compile_wheel(venv, source, source.parent / 'wheel')
    return keep_wheel(source.parent, key)


def keep_wheel(build, key):
    (CACHE / 'wheels' / key).mkdir(parents=True, exist_ok=True)
    for path in (build / 'wheel').glob('*.whl'):
        os.replace(path, CACHE / 'wheels' / key / path.name)
    shutil.rmtree(build)
    return wheel(key)


def unpacked_source(venv, mmcv, key):
    """The source of ``mmcv``, unpacked once, so that an interrupted compilation can go on."""
    build = CACHE / 'build' / key
    source = build / 'source'
    if not source.exists():
        shutil.rmtree(build, ignore_errors=True)
        pip(
            venv,
            '--no-deps',
            '--no-build-isolation',
            '--no-binary',
            ':all:',
            '--require-hashes',
            '-d',
            str(build / 'sdist'),
            lines=locked(dict([mmcv.split('==')])),
            command='download',
        )
        with tarfile.open(next((build / 'sdist').glob('*.tar.gz'))) as archive:
            archive.extractall(build / 'unpacked')
        os.replace(next((build / 'unpacked').iterdir()), source)
    return source


def compile_wheel(venv, source, target):
    """Compile with a line of progress; a job needs up to 2 GB of memory."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    jobs = max(1, min(len(os.sched_getaffinity(0)), int(memory / 2)))
    env = dict(
        os.environ,
        MAX_JOBS=os.environ.get('MAX_JOBS', str(jobs)),
        CFLAGS='-g0 -w',
        PATH=f'{venv / "bin"}{os.pathsep}{os.environ["PATH"]}',
    )
    command = [
        str(venv / 'bin/python'),
        '-m',
        'pip',
        'wheel',
        '-v',
        '--no-deps',
        '--no-build-isolation',
        '-w',
        str(target),
        str(source),
    ]
    start, log = time.time(), []
    with subprocess.Popen(
        command,
        env=env,
        text=True,
        errors='replace',
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        for line in process.stdout:
            log.append(line)
            step = re.match(r'\s*\[(\d+)/(\d+)\]', line)
            if step:
                show_progress(int(step.group(1)), int(step.group(2)), time.time() - start)
    if process.returncode:
        (source.parent / 'compile.log').write_text(''.join(log))
        raise SetupError(f'compiling mmcv failed, see {source.parent / "compile.log"}')


def show_progress(done, total, seconds):
    left = seconds / done * (total - done)
    line = (
        f'  {done:2d} of {total} files, {seconds / 60:4.1f} min so far, '
        f'about {left / 60:.1f} min left'
    )
    if sys.stdout.isatty():
        print('\r' + line, end='\n' if done == total else '', flush=True)
    elif done % 10 == 0 or done == total:
        print(line, flush=True)


if __name__ == '__main__':
    try:
        main()
    except SetupError as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:
        sys.exit('\ninterrupted; the next call goes on from here')
