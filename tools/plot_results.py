"""Draw results: how ConvMLP compares, and how trainings went.

  plot_results.py published                   the paper's two comparisons, from published figures
  plot_results.py curves WORK_DIR...          loss, learning rate, scores, time left and memory
"""
import argparse
import json
import re
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt
import yaml
from common import UserError, one_line_errors
from make_model_tables import read_models
from matplotlib.ticker import LogLocator, NullFormatter

# Okabe and Ito's palette, which colour-blind readers can tell apart; the markers differ besides.
COLORS = ['#D55E00', '#0072B2', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000', '#777777']
MARKERS = ['o', 's', '^', 'D', 'v', 'P', 'X', '*']
# What each metric that a config can report is called in public, and what it is out of.
METRICS = {'coco/bbox_mAP': ('box mAP', 1), 'coco/segm_mAP': ('mask mAP', 1), 'mIoU': ('mIoU', 100),
           'accuracy/top1': ('top-1', 100)}
DRAWN = {**METRICS, 'coco/bbox_mAP_50': ('box AP50', 1)}
CURVES = {'loss': 'training loss', 'lr': 'learning rate', 'eta': 'time left, minutes',
          'memory': 'GPU memory, GB'}


def read_published():
    """``{task: [dict(family, model, score, parameters, macs, source), ...]}``, ConvMLP first."""
    others = yaml.safe_load(Path(__file__).with_name('published_results.yml').read_text())
    tasks = dict(imagenet='classification', retinanet='retinanet', maskrcnn='maskrcnn', fpn='fpn')
    results = {task: [] for task in tasks.values()}
    for model in read_models():
        for word, task in tasks.items():
            if model['Name'].startswith(f'{word}_') or model['Name'].endswith(f'_{word}'):
                score, *_ = model['Results'][0]['Metrics'].values()
                results[task].append(dict(
                    family='ConvMLP', model=model['Name'], score=score, source='paper',
                    parameters=model['Metadata']['Parameters'], macs=model['Metadata']['MACs']))
    return {task: own + others[task] for task, own in results.items()}, others['sources']


def draw_families(axes, results, key, unit):
    """A line per family of models, its scores against a cost."""
    families = list(dict.fromkeys(result['family'] for result in results))
    for number, family in enumerate(families):
        points = sorted((r[key] / unit, r['score']) for r in results if r['family'] == family)
        own = family == 'ConvMLP'
        axes.plot(*zip(*points, strict=True), label=family, color=COLORS[number],
                  marker=MARKERS[number], lw=2.5 if own else 1.2, ms=8 if own else 5,
                  zorder=3 if own else 2)
        if own:
            for size, point in zip('SML', points, strict=True):
                axes.annotate(size, point, xytext=(-5, 5), textcoords='offset points', ha='right',
                              fontsize=9, color=COLORS[number], weight='bold')
    axes.grid(alpha=0.3)


def draw_published(out_dir):
    """Both comparisons; returns the files."""
    results, _ = read_published()
    figure, panels = plt.subplots(1, 2, figsize=(9, 4.2), layout='constrained', sharey=True)
    for axes, (key, unit, name) in zip(
            panels, (('parameters', 1e6, 'parameters, M'), ('macs', 1e9, 'MACs, G')), strict=True):
        draw_families(axes, results['classification'], key, unit)
        axes.set_xlabel(name)
    panels[0].set_ylabel('ImageNet-1k top-1, %')
    panels[1].legend(fontsize=8, loc='lower right', ncols=2)
    files = [out_dir / 'imagenet.png', out_dir / 'downstream.png']
    figure.savefig(files[0], dpi=150)
    plt.close(figure)

    figure, panels = plt.subplots(1, 3, figsize=(9, 3.4), layout='constrained')
    titles = dict(retinanet='RetinaNet, COCO', maskrcnn='Mask R-CNN, COCO',
                  fpn='Semantic FPN, ADE20K')
    for axes, (task, title) in zip(panels, titles.items(), strict=True):
        draw_families(axes, results[task], 'parameters', 1e6)
        axes.set(title=title, xlabel='parameters, M', ylabel='mIoU' if task == 'fpn' else 'box AP')
        axes.margins(x=0.1, y=0.12)
        axes.legend(fontsize=8, loc='lower right')
    figure.savefig(files[1], dpi=150)
    plt.close(figure)
    return files


def read_run(work_dir):
    """What MMEngine logged in the last training of a work dir: training and validation records.

    Returns:
        tuple[list[dict], list[dict]]: Training records with ``step`` (iteration), ``loss``, ``lr``
        and, where logged, ``memory`` in GB and ``eta`` in minutes; validation records with ``step``
        (epoch, or iteration where the training counts those) and metrics.

    Raises:
        UserError: There was no training in this folder.
    """
    for scalars in sorted(Path(work_dir).glob('*/vis_data/scalars.json'), reverse=True):
        records = [json.loads(line) for line in scalars.read_text().splitlines()]
        train = [record for record in records if 'loss' in record]
        if train:
            break
    else:
        raise UserError(f'{work_dir} has no log of a training (TIME/vis_data/scalars.json)')
    # The time left stands only in the log for people.
    log = ''.join(path.read_text() for path in scalars.parents[1].glob('*.log'))
    left = re.findall(r'\(train\).*? eta: (?:(\d+) days?, )?(\d+):(\d+):(\d+)', log)
    if len(left) == len(train):
        for record, parts in zip(train, left, strict=True):
            days, hours, minutes, seconds = (int(part or 0) for part in parts)
            record['eta'] = (days * 24 + hours) * 60 + minutes + seconds / 60
    for record in train:
        if 'memory' in record:
            record['memory'] /= 1024  # MB
    return train, [record for record in records if METRICS.keys() & record.keys()]


def draw_curves(work_dirs, file):
    """The last training of each work dir, beside each other; panels without data are left out."""
    runs = {Path(work_dir).name: read_run(work_dir) for work_dir in work_dirs}
    found = [key for key in CURVES if any(key in r for train, _ in runs.values() for r in train)]
    number = len(found) + 1
    figure, panels = plt.subplots(1, number, figsize=(3.6 * number, 3.5), layout='constrained')
    for (name, (train, val)), color in zip(runs.items(), COLORS * len(runs), strict=False):
        for axes, key in zip(panels, found, strict=False):
            points = [(r['step'], r[key]) for r in train if key in r]
            if points:
                axes.plot(*zip(*points, strict=True), color=color, label=name)
        for (key, (metric, whole)), marker in zip(DRAWN.items(), MARKERS, strict=False):
            points = [(r['step'], r[key] / whole) for r in val if key in r]
            if points:
                panels[-1].plot(*zip(*points, strict=True), color=color, marker=marker, ms=5,
                                ls='--' if 'segm' in key or '50' in key else '-',
                                label=metric if len(runs) == 1 else f'{name}, {metric}')
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
    panels[-1].set(xlabel='epoch' if epochs else 'iteration', ylabel='on validation data',
                   ylim=(0, 1.02))
    if len(runs) == 1:
        panels[-1].legend(loc='lower right', fontsize=8)
    else:
        figure.legend(*panels[-1].get_legend_handles_labels(), loc='outside lower center', ncols=3,
                      fontsize=9)
    for axes in panels:
        axes.grid(alpha=0.3)
    figure.savefig(file, dpi=150)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    published = commands.add_parser('published', help='ImageNet, COCO and ADE20K')
    published.add_argument('--out-dir', default='work_dirs/figures', metavar='DIR')
    curves = commands.add_parser('curves', help='of one or several trainings')
    curves.add_argument('work_dirs', nargs='+', metavar='WORK_DIR')
    curves.add_argument('--out', default='work_dirs/curves.png', metavar='FILE.png')
    args = parser.parse_args()
    if args.command == 'published':
        out_dir = Path(args.out_dir)
        out_dir.mkdir(parents=True, exist_ok=True)
        files = draw_published(out_dir)
    else:
        files = [Path(args.out)]
        files[0].parent.mkdir(parents=True, exist_ok=True)
        draw_curves(args.work_dirs, files[0])
    print(f'pictures: {", ".join(map(str, files))}')


if __name__ == '__main__':
    with one_line_errors():
        main()
