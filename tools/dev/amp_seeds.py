"""Train in float32 and in mixed precision with several seeds, and compare: ``amp_seeds.py CONFIG``.

  python tools/dev/amp_seeds.py retinanet_convmlp_s_fpn_coins

draws the losses of all runs over each other, and prints the last scores and how far the losses of
the two precisions are from each other, with the same seed, beside how far seeds are. A run that is
finished is not repeated.
"""

import argparse
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
from make_model_tables import ROOT
from matplotlib.figure import Figure

from convmlp_backbone.commands.plot import COLORS
from convmlp_backbone.errors import UserError, one_line_errors
from convmlp_backbone.training_log import METRICS, read_run

PRECISIONS = {'float32': [], 'bfloat16': ['--amp', 'bf16']}


def train(config, amp, seed, work_dir):
    """Train by the command, whose output goes into WORK_DIR/output.txt."""
    work_dir.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(ROOT / 'tools' / 'train.py'), config, *amp]
    command += ['--work-dir', str(work_dir), '--cfg-options', f'randomness.seed={seed}']
    output = work_dir / 'output.txt'
    with output.open('w') as file:
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT)
    if done.returncode:
        raise UserError(f'the training failed; {output} tells why')
    (work_dir / 'finished').touch()


def distances(losses):
    """Root mean square of the differences of the losses' logarithms, for every two that differ
    in precision only, and for every two of a precision that differ in the seed only.

    Args:
        losses: ``{(precision, seed): array of the losses logged}``.
    """
    found = {'precision': [], 'seed': []}
    for (a, x), (b, y) in combinations(losses.items(), 2):
        differs = [name for name, i, j in zip(('precision', 'seed'), a, b, strict=True) if i != j]
        if len(differs) == 1:
            found[differs[0]].append(float(np.sqrt(np.mean(np.log(x / y) ** 2))))
    return found


def draw(runs, file):
    """The losses of all runs, a colour for each precision."""
    figure = Figure(figsize=(6, 3.5), layout='constrained')
    axes = figure.subplots()
    for (precision, seed), (log, _) in runs.items():
        axes.plot(
            [record['step'] for record in log],
            [record['loss'] for record in log],
            color=COLORS[list(PRECISIONS).index(precision)],
            lw=1,
            label=f'{precision}, seed {seed}',
        )
    axes.set(xlabel='iteration', ylabel='training loss', yscale='log')
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3, which='both')
    figure.savefig(file, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='one whose data are there; as of tools/train.py')
    parser.add_argument('--seeds', nargs='+', type=int, default=[0, 1, 2])
    parser.add_argument('--work-dir', type=Path, help='default: work_dirs/amp_seeds/CONFIG')
    args = parser.parse_args()
    root = (args.work_dir or Path('work_dirs', 'amp_seeds', Path(args.config).stem)).absolute()

    runs = {}
    for seed in args.seeds:
        for precision, amp in PRECISIONS.items():
            work_dir = root / f'{precision}_{seed}'
            if not (work_dir / 'finished').exists():
                print(f'training in {precision}, seed {seed} ...', flush=True)
                train(args.config, amp, seed, work_dir)
            runs[precision, seed] = train_log, scores = read_run(work_dir)
            last = [
                f'{name} {scores[-1][key] / whole:.3f}'
                for key, (name, whole) in METRICS.items()
                if key in scores[-1]
            ]
            print(f'{precision}, seed {seed}:', ', '.join(last), flush=True)

    losses = {key: np.array([record['loss'] for record in log]) for key, (log, _) in runs.items()}
    for what, found in distances(losses).items():
        if found:
            print(
                f'loss, between runs that differ in {what}: {np.mean(found):.3f} '
                f'({min(found):.3f} to {max(found):.3f}), root mean square of the logarithms'
            )
    draw(runs, root / 'losses.png')
    print(f'picture: {root / "losses.png"}')


if __name__ == '__main__':
    with one_line_errors():
        main()
