"""The folder of a training: one process at a time; what --resume finds in it."""

import os
import signal
import time
from contextlib import suppress

import pytest
import torch
from mmengine.config import Config
from toy_training import EPOCH, At, Crash, assert_equal, crash, terminate, training  # noqa: F401

from convmlp_backbone.errors import UserError
from convmlp_backbone.hooks import latest_checkpoint, prepare_training
from convmlp_backbone.hooks.work_dir import lock, unlock


def write(path, iteration):
    torch.save(dict(meta=dict(iter=iteration, epoch=1), message_hub={}, state_dict={}), path)


@pytest.fixture
def work(tmp_path):
    """A work dir with checkpoints of iterations 1, 2, 3; the last is named."""
    folder = tmp_path / 'work'
    folder.mkdir()
    for i in (1, 2, 3):
        write(folder / f'epoch_{i}.pth', i)
    (folder / 'last_checkpoint').write_text(str(folder / 'epoch_2.pth'))
    return folder


def make_folder(pointer):
    pointer.unlink()
    pointer.mkdir()


POINTERS = {
    'as written': (lambda p: None, 2),
    'of a moved folder': (lambda p: p.write_text('/no/such/folder/epoch_1.pth'), 1),
    'of a copied folder': (
        lambda p: (
            write(p.parents[1] / 'epoch_2.pth', 9),
            p.write_text(str(p.parents[1] / 'epoch_2.pth')),
        ),
        2,
    ),
    'elsewhere': (
        lambda p: (
            write(p.parents[1] / 'other.pth', 9),
            p.write_text(str(p.parents[1] / 'other.pth')),
        ),
        9,
    ),
    'relative': (lambda p: p.write_text('work_dirs/x/epoch_1.pth\n'), 1),
    'windows': (lambda p: p.write_text('C:\\runs\\x\\epoch_1.pth'), 1),
    'missing': (lambda p: p.unlink(), 3),
    'empty': (lambda p: p.write_text(''), 3),
    'blank': (lambda p: p.write_text(' \n'), 3),
    'garbage': (lambda p: p.write_bytes(os.urandom(99)), 3),
    'null byte': (lambda p: p.write_bytes(b'a\0b.pth'), 3),
    'long': (lambda p: p.write_text('x' * 99999), 3),
    'a folder': (make_folder, 3),
    'names a folder': (lambda p: p.write_text(str(p.parent)), 3),
    'dangling': (lambda p: (p.unlink(), p.symlink_to('nothing')), 3),
    'names what is gone': (lambda p: (p.parent / 'epoch_2.pth').unlink(), 3),
    'names a torn file': (lambda p: os.truncate(p.parent / 'epoch_2.pth', 300), 3),
    'names no training': (lambda p: torch.save({}, p.parent / 'epoch_2.pth'), 3),
}


@pytest.mark.parametrize('case', POINTERS)
def test_latest_checkpoint(case, work):
    spoil, iteration = POINTERS[case]
    spoil(work / 'last_checkpoint')
    assert torch.load(latest_checkpoint(work))['meta']['iter'] == iteration


def test_checkpoints_without_a_whole_one_are_an_error(work):
    for path in work.glob('*.pth'):
        os.truncate(path, 300)
    with pytest.raises(UserError, match='nothing to resume.*epoch_2') as error:
        latest_checkpoint(work)
    assert '\n' not in str(error.value)


def test_nothing_to_resume(work, tmp_path):
    assert latest_checkpoint(tmp_path / 'wrok') is None
    with pytest.raises(UserError, match=f'did you mean --work-dir {work}'):
        prepare_training(Config(dict(work_dir=str(tmp_path / 'wrok'), resume=True)))
    torch.save({}, tmp_path / 'weights.pth')
    for source, words in (('no.pth', 'no checkpoint'), ('weights.pth', 'load_from=')):
        with pytest.raises(UserError, match=words):
            prepare_training(
                Config(dict(work_dir=str(work), resume=True, load_from=str(tmp_path / source)))
            )


def test_resume_of_a_folder(work, tmp_path):
    cfg = Config(dict(work_dir=str(tmp_path / 'new'), resume=True, load_from=str(work)))
    prepare_training(cfg)
    assert cfg.load_from == str(work / 'epoch_2.pth')


def test_moved_folder_goes_on(train, tmp_path):
    expected = train('whole', seed=0)
    with pytest.raises(SystemExit):
        train('old', seed=0, hooks=[At(EPOCH + 2, terminate)])
    (tmp_path / 'old').rename(tmp_path / 'new')
    assert_equal(train('new', resume=True), expected)
    assert not (tmp_path / 'old').exists() and not (tmp_path / 'new/interrupted.pth').exists()


def test_lost_pointer_loses_nothing(train, tmp_path):
    expected = train('whole', seed=0)
    with pytest.raises(Crash):
        train('run', seed=0, hooks=[At(2 * EPOCH + 1, crash)])
    (tmp_path / 'run/last_checkpoint').unlink()
    assert_equal(train('run', resume=True), expected)


# One at a time


@pytest.fixture
def holder(tmp_path):
    """The number of a process that trains in the folder `run`."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            lock(tmp_path / 'run')
            os.write(write, b'.')
            time.sleep(1000)
        finally:
            os._exit(1)
    os.read(read, 1)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_lock_names_the_other_process(holder, tmp_path):
    with pytest.raises(UserError, match=f'process {holder} on .* --work-dir') as error:
        prepare_training(Config(dict(work_dir=str(tmp_path / 'run'))))
    assert '\n' not in str(error.value)
    os.kill(holder, signal.SIGKILL)
    for _ in range(100):  # no process leaves its lock behind
        with suppress(UserError):
            lock(tmp_path / 'run')
            break
        time.sleep(0.1)
    lock(tmp_path / 'run')
    unlock(tmp_path / 'run')
    unlock(tmp_path / 'run')


def test_other_training_is_refused_before_it_writes(holder, train, tmp_path):
    with pytest.raises(UserError, match=f'process {holder}'):
        train('run', epochs=1)
    assert not list((tmp_path / 'run').glob('*.pth'))


def test_lock_is_not_inherited(tmp_path):
    """A data worker that outlives its training does not keep the next one out."""
    lock(tmp_path)
    pid = os.fork()
    if not pid:
        try:
            unlock(tmp_path)
            lock(tmp_path)
        except UserError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    unlock(tmp_path)


@pytest.mark.parametrize('name', ['file', 'x' * 300, 'file/below', '/proc/no'])
def test_work_dir_that_cannot_be_written_is_one_line(name, tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='--work-dir DIR') as error:
        prepare_training(Config(dict(work_dir=str(tmp_path / name))))
    assert '\n' not in str(error.value)
