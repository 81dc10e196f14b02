"""Draw how trainings went: loss, learning rate, scores, time left and memory.

  convmlp plot work_dirs/retinanet_convmlp_s_fpn_coins

Several trainings are drawn beside each other.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from ..training_log import METRICS, read_run
from . import options

# Okabe and Ito's palette, which colour-blind readers can tell apart; the markers differ besides.
COLORS = ['#D55E00', '#0072B2', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000', '#777777']
MARKERS = ['o', 's', '^', 'D', 'v', 'P', 'X', '*']
DRAWN = {**METRICS, 'coco/bbox_mAP_50': ('box AP50', 1)}
CURVES = {
    'loss': 'training loss',
    'lr': 'learning rate',
    'eta': 'time left, minutes',
    'memory': 'GPU memory, GB',
}


def draw_curves(work_dirs: Sequence[str | Path], file: Path) -> None:
    """The last training of each work dir, beside each other; panels without data are left out."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    runs = {Path(work_dir).name: read_run(work_dir) for work_dir in work_dirs}
    found = [key for key in CURVES if any(key in r for train, _ in runs.values() for r in train)]
    number = len(found) + 1
    figure = Figure(figsize=(3.6 * number, 3.5), layout='constrained')
    panels = figure.subplots(1, number)
    for (name, (train, val)), color in zip(runs.items(), COLORS * len(runs), strict=False):
        for axes, key in zip(panels, found, strict=False):
            points = [(r['step'], r[key]) for r in train if key in r]
            if points:
                axes.plot(*zip(*points, strict=True), color=color, label=name)
        for (key, (metric, whole)), marker in zip(DRAWN.items(), MARKERS, strict=False):
            points = [(r['step'], r[key] / whole) for r in val if key in r]
            if points:
                panels[-1].plot(
                    *zip(*points, strict=True),
                    color=color,
                    marker=marker,
                    ms=5,
                    ls='--' if 'segm' in key or '50' in key else '-',
                    label=metric if len(runs) == 1 else f'{name}, {metric}',
                )
    for axes, key in zip(panels, found, strict=False):
        axes.set(xlabel='iteration', ylabel=CURVES[key])
        if key == 'loss':
            axes.set_yscale('log')
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter('{x:g}')
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(bottom=0)
            axes.ticklabel_format(axis='y', scilimits=(-3, 4))
    epochs = any('epoch' in record for train, _ in runs.values() for record in train)
    panels[-1].set(
        xlabel='epoch' if epochs else 'iteration', ylabel='on validation data', ylim=(0, 1.02)
    )
    if len(runs) == 1:
        panels[-1].legend(loc='lower right', fontsize=8)
    else:
        figure.legend(
            *panels[-1].get_legend_handles_labels(), loc='outside lower center', ncols=3, fontsize=9
        )
    for axes in panels:
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=150)


def add_arguments(parser: ArgumentParser) -> None:
    work_dirs = parser.add_argument(
        'work_dirs', nargs='+', metavar='WORK_DIR', help='of a training each'
    )
    options.complete(work_dirs, options.FOLDER)
    options.add(parser, '--out', default='work_dirs/curves.png')


def run(args: Namespace) -> None:
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(args.work_dirs, args.out)
    print(f'picture: {args.out}')
