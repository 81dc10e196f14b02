"""Kill trainings and resume them: ``kill_campaign.py FOLDER``.

Trains a tiny detector on the coins uninterrupted, then again with kills at random points, by
tools/train.py and by tools/dist_train.sh on two processes, and prints a table: what was killed
when, where the training went on, and whether the final weights are the same. Takes a minute a kill.

KILL: SIGKILL to all processes, as the kernel or a power cut would; WRITE: the same while a
checkpoint is written; RANK: SIGKILL to one process of the two; TERM: SIGTERM to all processes, data
workers included, as Slurm sends it.
"""
import argparse
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'tools/datasets')]

import torch  # noqa: E402
from make_coins_dataset import make  # noqa: E402

from convmlp_backbone.checkpoints import load  # noqa: E402

EPOCHS = 8
KINDS = {1: ['KILL', 'TERM', 'WRITE'], 2: ['KILL', 'TERM', 'WRITE', 'RANK']}


def start(processes, data, work):
    """Start or go on with the training in the folder ``work``."""
    config = str(ROOT / 'tests/tiny_coins.py')
    command = ([sys.executable, ROOT / 'tools/train.py', config] if processes == 1
               else ['bash', ROOT / 'tools/dist_train.sh', config, str(processes)])
    options = ['--resume', '--data-root', data, '--work-dir', work, '--cfg-options',
               f'train_cfg.max_epochs={EPOCHS}', 'train_cfg.val_interval=3',
               'default_hooks.checkpoint.max_keep_ckpts=1']
    return subprocess.Popen(
        [*command, *options], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHON': sys.executable})


def iteration(line):
    """The number of the iteration that a line of the log tells of, None if of none."""
    seen = re.search(r'Epoch\(train\)\s+\[(\d+)\]\[\s*(\d+)/(\d+)\]', line)
    return seen and (int(seen[1]) - 1) * int(seen[3]) + int(seen[2])


def children(pid):
    found = subprocess.run(['pgrep', '-P', str(pid)], capture_output=True, text=True)
    return [int(child) for child in found.stdout.split()]


def tree(pid):
    return [pid, *(below for child in children(pid) for below in tree(child))]


def kill(process, kind, work):
    """Send the signal and return the exit status, the lines that followed and the seconds."""
    # torchrun gives every rank a process group of its own: what is meant is the whole tree.
    victims = [random.choice(children(process.pid))] if kind == 'RANK' else tree(process.pid)
    if kind == 'WRITE':
        while process.poll() is None and not list(work.glob('.*.part*')):
            pass
    elif kind != 'RANK':
        time.sleep(random.uniform(0, 0.15))  # anywhere within an iteration
    began = time.monotonic()
    for pid in victims:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM if kind == 'TERM' else signal.SIGKILL)
    rest = process.stdout.read()
    return process.wait(), rest, time.monotonic() - began


def until(process, target):
    """Read the log up to the iteration ``target``; returns the last one, and where it started."""
    resumed, at, log = 0, 0, []
    for line in process.stdout:
        log.append(line)
        if found := re.search(r'resumed epoch: \d+, iter: (\d+)', line):
            resumed = int(found[1])
        at = iteration(line) or at
        if target is not None and at >= target:
            return at, resumed
    if process.wait() or target is not None:
        sys.exit(''.join(log[-40:]) + '\nthe training ended where it should not')
    return at, resumed


def difference(a, b):
    """The largest difference of the weights of two checkpoints; 0 where they are equal."""
    a, b = (load(path)['state_dict'] for path in (a, b))
    assert a.keys() == b.keys()
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def campaign(processes, kills, folder):
    data, name = folder / 'coins', f'epoch_{EPOCHS}.pth'
    whole, work = folder / f'whole_{processes}', folder / f'killed_{processes}'
    total, _ = until(start(processes, data, whole), None)
    kinds = [KINDS[processes][i % len(KINDS[processes])] for i in range(kills)]
    random.shuffle(kinds)
    print('| processes | signal | at iteration | exit status | seconds to the end | whole '
          'checkpoint left | torn file left | resumed at |', flush=True)
    at, row = 0, None
    for i, kind in enumerate([*kinds, None]):
        for part in work.glob('.*.part*'):
            part.unlink()  # told in the table; the training would overwrite it
        process = start(processes, data, work)
        # Not so far that no room is left for the kills to come, and for a checkpoint to write.
        target = kind and random.randint(at + 1, max(at + 1, (total - 9) * (i + 1) // kills))
        at, resumed = until(process, target)
        if row:
            print(f'{row} {resumed} |', flush=True)
        if kind:
            status, rest, seconds = kill(process, kind, work)
            last = work / 'last_checkpoint'
            left = load(last.read_text())['meta']['iter'] if last.exists() else 'none'
            seen = [iteration(line) for line in rest.splitlines()]
            at = max([at, *filter(None, seen)])
            torn = 'yes' if list(work.glob('.*.part*')) else 'no'
            row = (f'| {processes} | {kind} | {at} of {total} | {status} | {seconds:.1f} | {left} '
                   f'| {torn} |')
            (folder / f'log_{processes}_{i}_{kind}.txt').write_text(rest)
            at = left if isinstance(left, int) else 0
    print(f'{processes} processes: {kills} kills, largest difference of the final weights: '
          f'{difference(whole / name, work / name):g}\n', flush=True)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path)
    parser.add_argument('--kills', type=int, default=12, help='for each number of processes')
    parser.add_argument('--processes', type=int, nargs='+', default=[1, 2])
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    torch.set_num_threads(1)
    make(args.folder / 'coins')
    for processes in args.processes:
        campaign(processes, args.kills, args.folder)
