"""Kill trainings and resume them: ``kill_campaign.py FOLDER``.

Trains a tiny detector on the coins uninterrupted, then again with kills at random points, by
tools/train.py or, on two processes, by tools/dist_train.sh, and prints what was killed when, where
the training went on, and whether the final weights are the same: for a dozen variants in which each
choice of loop, sampler, EMA, accumulation, precision, resizing, schedule and number of processes
meets each other one. Takes half a minute a kill.

KILL: SIGKILL to all processes, as the kernel or a power cut would; WRITE: the same while a
checkpoint is written; VAL: the same in a validation; RANK: SIGKILL to one process of the two; TERM:
SIGTERM to all processes, data workers included, as Slurm sends it.
"""

import argparse
import itertools
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

IMAGES, BATCH = 32, 2
# Of every choice the lines of a config; {i} is how many iterations an epoch has.
CHOICES = {
    'loop': {
        'epochs': 'train_cfg = dict(max_epochs=4)',
        'iterations': """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=4 * {i}, val_interval={i})
default_hooks = dict(checkpoint=dict(by_epoch=False, interval={i}))
log_processor = dict(by_epoch=False)""",
    },
    'sampler': {
        'default': '',
        'aspect ratio': """
train_dataloader = dict(batch_sampler=dict(type='AspectRatioBatchSampler'))""",
        'infinite': "train_dataloader = dict(sampler=dict(type='InfiniteSampler'))",
    },
    'EMA': {'no': '', 'yes': "custom_hooks = [dict(type='EMAHook', momentum=0.05)]"},
    'accumulation': {'1': '', '5': 'optim_wrapper = dict(accumulative_counts=5)'},
    'precision': {'float32': '', 'bfloat16': "optim_wrapper = dict(type='CPUAmpOptimWrapper')"},
    'resize': {
        'no': '',
        'yes': """model = dict(data_preprocessor=dict(batch_augments=[dict(
    type='BatchSyncRandomResize', random_size_range=(64, 128), interval=3)]))""",
    },
    'schedule': {
        'cosine': """param_scheduler = [dict(
    type='CosineAnnealingLR', T_max=4 * {i}, by_epoch=False)]""",
        'steps': """param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=9),
    dict(type='MultiStepLR', milestones=[{i}, 2 * {i}], by_epoch=False)]""",
        'plateau': """param_scheduler = [dict(
    type='ReduceOnPlateauLR', monitor='coco/bbox_mAP', rule='greater', patience=0)]""",
    },
    'processes': {'1': '', '2': ''},
}
KINDS = ['KILL', 'TERM', 'WRITE', 'VAL', 'RANK']


def variants():
    """Variants in which every two choices meet, each a dict of name and choice."""

    def possible(variant):
        return (variant['loop'], variant['sampler']) != ('epochs', 'infinite')

    def pairs(variant):
        return set(itertools.combinations(variant.items(), 2))

    every = [
        variant
        for choice in itertools.product(*CHOICES.values())
        if possible(variant := dict(zip(CHOICES, choice, strict=True)))
    ]
    missing = set().union(*map(pairs, every))
    while missing:
        best = max(every, key=lambda variant: len(pairs(variant) & missing))
        missing -= pairs(best)
        yield best


def write_config(variant, path):
    """One config on another, so that several choices may set parts of the same entry."""
    base = ROOT / 'tests/tiny_coins.py'
    length = IMAGES // BATCH // int(variant['processes'])
    common = f"""
train_dataloader = dict(batch_size={BATCH})
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))"""
    for i, lines in enumerate([common, *(CHOICES[name][variant[name]] for name in CHOICES)]):
        below, base = base, path.with_name(f'{path.stem}_{i}.py')
        base.write_text(f'_base_ = [{str(below)!r}]\n{lines.replace("{i}", str(length))}\n')
    return base


def start(config, processes, data, work):
    """Start or go on with the training in the folder ``work``."""
    command = (
        [sys.executable, ROOT / 'tools/train.py', config]
        if processes == 1
        else ['bash', ROOT / 'tools/dist_train.sh', config, str(processes)]
    )
    resume = ['--resume'] if list(work.glob('*.pth')) else []
    return subprocess.Popen(
        [*command, *resume, '--data-root', data, '--work-dir', work],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'PYTHON': sys.executable},
    )


def iteration(line):
    """The number of the iteration that a line of the log tells of, None if of none."""
    if seen := re.search(r'Iter\(train\)\s+\[\s*(\d+)/', line):
        return int(seen[1])
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


def until(process, target, validation=False):
    """Read the log up to the iteration ``target``, or the validation after it; returns the last
    iteration, and the one that the training went on from."""
    resumed, at, log = 0, 0, []
    for line in process.stdout:
        log.append(line)
        if found := re.search(r'resumed epoch: \d+, iter: (\d+)', line):
            resumed = int(found[1])
        at = iteration(line) or at
        if target is not None and at >= target and (not validation or 'Saving checkpoint' in line):
            return at, resumed
    if process.wait() or target is not None and not validation:
        sys.exit(''.join(log[-40:]) + '\nthe training ended where it should not')
    return at, resumed


def difference(a, b):
    """The largest difference of the weights of two checkpoints; 0 where they are equal."""
    a, b = (load(path)['state_dict'] for path in (a, b))
    assert a.keys() == b.keys()
    return max((a[name].double() - b[name].double()).abs().max().item() for name in a)


def campaign(variant, kills, data, folder):
    processes = int(variant['processes'])
    folder.mkdir(parents=True, exist_ok=True)
    config, whole, work = write_config(variant, folder / 'config.py'), folder / 'a', folder / 'b'
    total, _ = until(start(config, processes, data, whole), None)
    (name,) = (path.name for path in whole.glob('[ei][pt]*_*.pth'))
    kinds = (KINDS if processes == 2 else KINDS[:-1]) * kills
    at, events = 0, []
    for i, kind in enumerate([*random.sample(kinds[: max(kills, len(set(kinds)))], kills), None]):
        process = start(config, processes, data, work)
        # Not so far that no room is left for the kills to come, and for a checkpoint to write.
        target = kind and random.randint(at + 1, max(at + 1, (total - 9) * (i + 1) // kills))
        at, resumed = until(process, target, kind == 'VAL')
        if i:
            events[-1] += f' -> {resumed}'
        if kind:
            status, rest, seconds = kill(process, kind, work)
            at = max([at, *filter(None, map(iteration, rest.splitlines()))])
            torn = ', torn .part' if list(work.glob('.*.part*')) else ''
            events.append(f'{kind} at {at} ({status}, {seconds:.1f} s{torn})')
            (folder / f'log_{i}_{kind}.txt').write_text(rest)
            last = work / 'last_checkpoint'
            at = load(last.read_text())['meta']['iter'] if last.exists() else 0
    result = difference(whole / name, work / name)
    print('|', ' | '.join([*variant.values(), '; '.join(events), f'{result:g}']), '|', flush=True)
    return result


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('folder', type=Path)
    parser.add_argument('--kills', type=int, default=60, help='in all variants together')
    parser.add_argument('--variants', type=int, nargs='+', metavar='N', help='only these, from 0')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    torch.set_num_threads(1)
    make(args.folder / 'coins')
    found = list(variants())
    chosen = args.variants or range(len(found))
    print('|', ' | '.join([*CHOICES, 'killed at -> resumed at', 'difference of the weights']), '|')
    print('|---' * (len(CHOICES) + 2) + '|', flush=True)
    differences = [
        campaign(
            found[i], -(-args.kills // len(found)), args.folder / 'coins', args.folder / str(i)
        )
        for i in chosen
    ]
    sys.exit(any(differences))
