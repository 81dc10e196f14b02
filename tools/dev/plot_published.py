"""Draw the paper's two comparisons, from published figures: ``plot_published.py``."""

import argparse
from pathlib import Path

import yaml
from make_model_tables import read_models
from matplotlib.figure import Figure

from convmlp_backbone.commands.plot import COLORS, MARKERS


def read_published():
    """``{task: [dict(family, model, score, parameters, macs, source), ...]}``, ConvMLP first."""
    others = yaml.safe_load(Path(__file__).with_name('published_results.yml').read_text())
    tasks = dict(imagenet='classification', retinanet='retinanet', maskrcnn='maskrcnn', fpn='fpn')
    results = {task: [] for task in tasks.values()}
    for model in read_models():
        for word, task in tasks.items():
            if model['Name'].startswith(f'{word}_') or model['Name'].endswith(f'_{word}'):
                score, *_ = model['Results'][0]['Metrics'].values()
                results[task].append(
                    dict(
                        family='ConvMLP',
                        model=model['Name'],
                        score=score,
                        source='paper',
                        parameters=model['Metadata']['Parameters'],
                        macs=model['Metadata']['MACs'],
                    )
                )
    return {task: own + others[task] for task, own in results.items()}, others['sources']


def draw_families(axes, results, key, unit):
    """A line per family of models, its scores against a cost."""
    families = list(dict.fromkeys(result['family'] for result in results))
    for number, family in enumerate(families):
        points = sorted((r[key] / unit, r['score']) for r in results if r['family'] == family)
        own = family == 'ConvMLP'
        axes.plot(
            *zip(*points, strict=True),
            label=family,
            color=COLORS[number],
            marker=MARKERS[number],
            lw=2.5 if own else 1.2,
            ms=8 if own else 5,
            zorder=3 if own else 2,
        )
        if own:
            for size, point in zip('SML', points, strict=True):
                axes.annotate(
                    size,
                    point,
                    xytext=(-5, 5),
                    textcoords='offset points',
                    ha='right',
                    fontsize=9,
                    color=COLORS[number],
                    weight='bold',
                )
    axes.grid(alpha=0.3)


def draw_published(out_dir):
    """Both comparisons; returns the files."""
    results, _ = read_published()
    figure = Figure(figsize=(9, 4.2), layout='constrained')
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (key, unit, name) in zip(
        panels, (('parameters', 1e6, 'parameters, M'), ('macs', 1e9, 'MACs, G')), strict=True
    ):
        draw_families(axes, results['classification'], key, unit)
        axes.set_xlabel(name)
    panels[0].set_ylabel('ImageNet-1k top-1, %')
    panels[1].legend(fontsize=8, loc='lower right', ncols=2)
    files = [out_dir / 'imagenet.png', out_dir / 'downstream.png']
    figure.savefig(files[0], dpi=150)

    figure = Figure(figsize=(9, 3.4), layout='constrained')
    panels = figure.subplots(1, 3)
    titles = dict(
        retinanet='RetinaNet, COCO', maskrcnn='Mask R-CNN, COCO', fpn='Semantic FPN, ADE20K'
    )
    for axes, (task, title) in zip(panels, titles.items(), strict=True):
        draw_families(axes, results[task], 'parameters', 1e6)
        axes.set(title=title, xlabel='parameters, M', ylabel='mIoU' if task == 'fpn' else 'box AP')
        axes.margins(x=0.1, y=0.12)
        axes.legend(fontsize=8, loc='lower right')
    figure.savefig(files[1], dpi=150)
    return files


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out-dir', type=Path, default='work_dirs/figures', metavar='DIR')
    out_dir = parser.parse_args().out_dir
    out_dir.mkdir(parents=True, exist_ok=True)
    print(f'pictures: {", ".join(map(str, draw_published(out_dir)))}')
