"""Make the virtual environment that `make` works in: ``setup_env.py [onedl | openmmlab]``.

Runs on a bare Python, standard library only. The one long step, compiling mmcv's ops against the
installed torch, is done once per machine: the wheel is cached outside the clone. What was
interrupted is picked up by the next call.
"""
import argparse
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
CONSTRAINTS = ROOT / 'constraints.txt'
CACHE = Path(os.environ.get('XDG_CACHE_HOME') or '~/.cache').expanduser() / 'convmlp-backbone'
MMCV = {'onedl': 'onedl-mmcv', 'openmmlab': 'mmcv'}
OLDEST, NEWEST = (3, 10), (3, 13)  # Pythons for which every pinned package has a wheel
GIGABYTES, UNPACKING = 8, 4  # of the environment, and of what pip downloads torch to, for a while


class SetupError(Exception):
    """What is missing on this machine, and what to do."""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('stack', nargs='?', choices=sorted(MMCV), default='onedl')
    stack = parser.parse_args().stack
    use_suitable_python()
    venv = ROOT / ('.venv' if stack == 'onedl' else '.venv-' + stack)
    state = State(venv)
    if state.is_done():
        return
    CACHE.mkdir(parents=True, exist_ok=True)
    with lock(CACHE / 'lock'):
        if not state.is_done():
            set_up(venv, stack, state)


def set_up(venv, stack, state):
    start = time.time()
    print(f'Setting up {venv} with the stack "{stack}"; the first time takes about 20 minutes.')
    mmcv = f'{MMCV[stack]}=={pinned(MMCV[stack])}'
    if not list(CACHE.glob(f'wheels/*{mmcv}*/*.whl')):
        check_compiler()
    if state.read() in ('', 'unfinished'):
        # pip leaves no trace of what it had half installed, so that starts afresh.
        shutil.rmtree(venv, ignore_errors=True)
        check_space(venv.parent, Path(tempfile.gettempdir()))
        make_venv(venv)
    if state.read() != 'torch':
        print('[1/3] torch and what compiles mmcv (3 GB)', flush=True)
        state.write('unfinished')
        pip(venv, 'install', 'torch', 'torchvision', 'numpy', 'setuptools', 'wheel', 'ninja',
            'psutil')
        state.write('torch')
    wheel = compiled_wheel(venv, mmcv)
    state.write('unfinished')
    print(f'[3/3] MMDetection, MMSegmentation and the rest, stack "{stack}"', flush=True)
    pip(venv, 'install', '--no-build-isolation', str(wheel),
        '-e', f'{ROOT}[{stack},timm,demo,export,dev]')
    # Some of them ask for opencv-python, which needs a desktop's libGL; both write to cv2/.
    pip(venv, 'uninstall', '-y', '-q', 'opencv-python', 'opencv-python-headless')
    pip(venv, 'install', '-q', '--no-deps', 'opencv-python-headless')
    state.write(state.done)
    print(f'Set up in {(time.time() - start) / 60:.1f} min.', flush=True)


class State:
    """How far the environment is: a word in a file of it, written when a step is complete."""

    def __init__(self, venv):
        self.file = venv / 'convmlp-setup'
        inputs = [f.read_bytes() for f in (CONSTRAINTS, ROOT / 'pyproject.toml', Path(__file__))]
        self.done = hashlib.sha256(b''.join([str(ROOT).encode(), *inputs])).hexdigest()

    def read(self):
        return self.file.read_text() if self.file.exists() else ''

    def is_done(self):
        return self.read() == self.done

    def write(self, word):
        unfinished = self.file.with_suffix('.new')
        unfinished.write_text(word)
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
        f'{NEWEST[0]}.{NEWEST[1]} is needed. Install one, then: make PYTHON=/path/to/python3.11')


def check_compiler():
    """Raise where mmcv's ops could not be compiled, before anything is downloaded."""
    compiler = os.environ.get('CXX', 'c++')
    if not shutil.which(compiler):
        raise SetupError(f'no C++ compiler ({compiler}) here, which mmcv needs. Install one: '
                         'apt install g++, dnf install gcc-c++, or set CXX')
    if not Path(sysconfig.get_path('include'), 'Python.h').exists():
        raise SetupError('no Python.h here, which compiling mmcv needs. Install it: '
                         'apt install python3-dev, dnf install python3-devel')


def check_space(folder, temporary):
    """Raise where the environment in ``folder`` would fill the disk."""
    needed = {temporary: UNPACKING, folder: GIGABYTES}
    if folder.stat().st_dev == temporary.stat().st_dev:
        needed = {folder: GIGABYTES + UNPACKING}
    for path, gigabytes in needed.items():
        free = shutil.disk_usage(path).free / 1e9
        if free < gigabytes:
            elsewhere = '' if gigabytes == GIGABYTES else (
                f', or let pip unpack {UNPACKING} GB elsewhere: TMPDIR=/another/disk make ...')
            raise SetupError(f'{free:.1f} GB free on the disk of {path}, {gigabytes} GB needed. '
                             f'Free some{elsewhere}')


def make_venv(venv):
    # This may run on the Python of the very environment that is made anew.
    python = getattr(sys, '_base_executable', sys.executable)
    made = subprocess.run([python, '-m', 'venv', str(venv)], text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise SetupError('python -m venv failed. On Debian and Ubuntu: apt install python3-venv. '
                         'It said: ' + ' '.join(made.stdout.split())[-300:])


def pinned(name):
    return re.search(rf'^{re.escape(name)}==(\S+)$', CONSTRAINTS.read_text(), re.M).group(1)


def pip(venv, *args):
    """Run the environment's pip within the pinned versions, or raise with its last error."""
    command = [str(venv / 'bin/python'), '-m', 'pip', '--disable-pip-version-check', *args]
    if args[0] != 'uninstall':
        command += ['-c', str(CONSTRAINTS), '--retries', '2']
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
        errors = []
        for line in process.stdout:
            if line.startswith('ERROR'):
                errors.append(line.strip())
            elif line.startswith(('Downloading', '  Downloading', 'Installing collected')):
                print('  ' + line.strip()[:90], flush=True)
    if process.returncode:
        reason = errors[0] if errors else ' '.join(args)
        advice = ('Free some of it.' if 'No space left' in reason
                  else 'Is there a network, or a package index in reach?')
        raise SetupError(
            f'pip {args[0]} failed: {reason}. {advice} The next call goes on from here')


def compiled_wheel(venv, mmcv):
    """The wheel of ``mmcv`` ('name==version') with ops for the installed torch, from the cache."""
    torch, cuda, found = subprocess.run(
        [str(venv / 'bin/python'), '-c',
         'import torch; from torch.utils.cpp_extension import CUDA_HOME; print(torch.__version__, '
         'torch.cuda.is_available() and torch.version.cuda or "cpu", CUDA_HOME is not None)'],
        stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if cuda != 'cpu' and found == 'False':
        raise SetupError(f'a GPU but no CUDA compiler: install the CUDA {cuda} toolkit (nvcc), or '
                         'work without the GPU: CUDA_VISIBLE_DEVICES= make ...')
    key = f'{mmcv}-torch{torch}-{cuda}-py{sys.version_info[0]}.{sys.version_info[1]}'
    folder, build = CACHE / 'wheels' / key, CACHE / 'build' / key
    if not list(folder.glob('*.whl')):
        check_compiler()
        print(f'[2/3] compiling the ops of {mmcv} for torch {torch} ({cuda})', flush=True)
        source = unpacked_source(venv, mmcv, build)
        compile_wheel(venv, source, build / 'wheel')
        folder.mkdir(parents=True, exist_ok=True)
        for wheel in (build / 'wheel').glob('*.whl'):
            os.replace(wheel, folder / wheel.name)
        shutil.rmtree(build)
    return next(folder.glob('*.whl'))


def unpacked_source(venv, mmcv, build):
    """The source of ``mmcv``, unpacked once, so that an interrupted compilation can go on."""
    source = build / 'source'
    if not source.exists():
        shutil.rmtree(build, ignore_errors=True)
        pip(venv, 'download', '--no-deps', '--no-build-isolation', '--no-binary', ':all:',
            '-d', str(build / 'sdist'), mmcv)
        with tarfile.open(next((build / 'sdist').glob('*.tar.gz'))) as archive:
            archive.extractall(build / 'unpacked')
        os.replace(next((build / 'unpacked').iterdir()), source)
    return source


def compile_wheel(venv, source, target):
    """Compile with a line of progress; a job needs up to 2 GB of memory."""
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    jobs = max(1, min(len(os.sched_getaffinity(0)), int(memory / 2)))
    env = dict(os.environ, MAX_JOBS=os.environ.get('MAX_JOBS', str(jobs)), CFLAGS='-g0 -w',
               PATH=f'{venv / "bin"}{os.pathsep}{os.environ["PATH"]}')
    command = [str(venv / 'bin/python'), '-m', 'pip', 'wheel', '-v', '--no-deps',
               '--no-build-isolation', '-w', str(target), str(source)]
    start, log = time.time(), []
    with subprocess.Popen(command, env=env, text=True, errors='replace', stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as process:
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
    line = (f'  {done:2d} of {total} files, {seconds / 60:4.1f} min so far, '
            f'about {left / 60:.1f} min left')
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
