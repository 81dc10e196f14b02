"""What the user can mend is one line, and nothing else is."""

import errno
import os

import pytest

from convmlp_backbone.errors import CheckpointError, one_line_errors


def open_file(path, mode='r'):
    return lambda: open(path, mode)


@pytest.mark.parametrize(
    'fail, line',
    [
        (open_file('/nowhere/x'), '/nowhere/x: No such file or directory'),
        (open_file('/nowhere/x', 'w'), '/nowhere/x: No such file or directory'),
        (open_file('/'), '/: Is a directory'),
        (open_file(b'/nowhere'), '/nowhere: No such file or directory'),
        (lambda: os.mkdir('/dev/null/x'), '/dev/null/x: Not a directory'),
        (lambda: os.listdir('/dev/null'), '/dev/null: Not a directory'),
        (open_file('/' + 'x' * 300), f'/{"x" * 300}: File name too long'),
        (open_file('/dev/full', 'w'), None),
    ],
)
def test_errors_of_files(fail, line):
    with pytest.raises(SystemExit) as end, one_line_errors():
        file = fail()
        with file:
            file.write('x' * 10_000_000)
    assert end.value.code == f'error: {line or "[Errno 28] No space left on device"}'


@pytest.mark.parametrize(
    'error, line',
    [
        (PermissionError(errno.EACCES, 'Permission denied', 'x.pth'), 'x.pth: Permission denied'),
        (OSError(errno.EROFS, 'Read-only file system', 'x', None, 'y'), 'x: Read-only file system'),
        (FileNotFoundError('file "x.py" does not exist'), 'file "x.py" does not exist'),
        (CheckpointError('x.pth is damaged'), 'x.pth is damaged'),
    ],
)
def test_other_errors(error, line):
    with pytest.raises(SystemExit) as end, one_line_errors():
        raise error
    assert end.value.code == f'error: {line}'


@pytest.mark.parametrize(
    'error',
    [
        ValueError('x'),
        OSError(errno.EBADF, 'Bad file descriptor'),
        RuntimeError('x'),
        KeyError('x'),
    ],
)
def test_faults_of_ours_stay_tracebacks(error):
    with pytest.raises(type(error)), one_line_errors():
        raise error
