"""Train on the coins and show the result: ``demo.py retinanet_convmlp_s_fpn_coins``.

Makes the data set if it is not there, trains and evaluates by the commands, and draws
predictions.png (the held-out part, truth beside predictions) and curves.png.
"""

import argparse
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
from make_coins_dataset import make
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmengine.runner import find_latest_checkpoint
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from convmlp_backbone.commands.plot import draw_curves
from convmlp_backbone.config import read_config
from convmlp_backbone.errors import one_line_errors
from convmlp_backbone.training_log import METRICS

# Of Okabe and Ito's palette, which colour-blind readers can tell apart.
TRUE, PREDICTED = '#56B4E9', '#E69F00'
MIN_SCORE = 0.5


def run(command, *args):
    """Run a command in a process of its own; end with its exit status where it fails."""
    tool = Path(__file__).parents[1] / f'{command}.py'
    done = subprocess.run([sys.executable, str(tool), *map(str, args)])
    if done.returncode:
        sys.exit(done.returncode)


def draw_instances(axes, instances, color):
    """Outline (box xyxy, mask or None, score or None) objects on a picture."""
    for (x1, y1, x2, y2), mask, score in instances:
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=color, lw=1.5))
        if mask is not None:
            axes.contourf(mask, levels=[0.5, 1.5], colors=[color], alpha=0.4)
        if score is not None:
            axes.text(x1, y1 - 1, f'{score:.2f}', color=color, fontsize=7, va='bottom')


def draw_predictions(cfg, predictions, file):
    """The validation image with the truth on the left and the predictions on the right."""
    data = cfg.test_dataloader.dataset
    root, prediction = Path(data.data_root), predictions[0]
    photo = np.array(Image.open(prediction['img_path']))
    figure = Figure(figsize=(7, 7), layout='constrained')
    axes = figure.subplots(1, 2)
    for ax, title in zip(axes, ('truth', 'prediction'), strict=True):
        ax.imshow(photo)
        ax.set_title(title)
        ax.axis('off')
    if 'pred_sem_seg' in prediction:
        truth = np.array(Image.open(prediction['seg_map_path'])) == 2
        predicted = np.asarray(prediction['pred_sem_seg']['data'])[0] == 1
        for ax, coins, color in zip(axes, (truth, predicted), (TRUE, PREDICTED), strict=True):
            ax.contourf(coins, levels=[0.5, 1.5], colors=[color], alpha=0.5)
    else:
        coco = COCO(str(root / data.ann_file))
        found = prediction['pred_instances']
        masks = [coco_mask.decode(m) for m in found['masks']] if 'masks' in found else None
        true = [
            ((x, y, x + w, y + h), coco.annToMask(a) if masks else None, None)
            for a in coco.dataset['annotations']
            for x, y, w, h in [a['bbox']]
        ]
        draw_instances(axes[0], true, TRUE)
        draw_instances(
            axes[1],
            [
                (box, masks[i] if masks else None, score)
                for i, (box, score) in enumerate(
                    zip(found['bboxes'].tolist(), found['scores'].tolist(), strict=True)
                )
                if score >= MIN_SCORE
            ],
            PREDICTED,
        )
    figure.savefig(file, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('config', help='a config for the coins')
    parser.add_argument('--work-dir', help='default: work_dirs/NAME_OF_THE_CONFIG')
    parser.add_argument('--cfg-options', nargs='+', default=[], help='as of tools/train.py')
    args = parser.parse_args()
    work_dir = Path(args.work_dir or Path('work_dirs', Path(args.config).stem))
    options = ['--work-dir', work_dir]
    if args.cfg_options:
        options += ['--cfg-options', *args.cfg_options]

    cfg = read_config(args.config)
    make(Path(cfg.data_root))
    print(f'Training {args.config}, some minutes without a GPU ...', flush=True)
    run('train', args.config, '--amp', 'auto', *options)
    out = work_dir / 'predictions.pkl'
    run('test', args.config, find_latest_checkpoint(work_dir), '--out', out, *options)
    metrics = json.loads(max(work_dir.glob('*/2*.json')).read_text())

    draw_predictions(cfg, pickle.loads(out.read_bytes()), work_dir / 'predictions.png')
    draw_curves([work_dir], work_dir / 'curves.png')
    print()
    for key, (name, whole) in METRICS.items():
        if key in metrics:
            print(f'{name} on the held-out part: {metrics[key] / whole:.3f}')
    print(f'pictures: {work_dir / "predictions.png"}, {work_dir / "curves.png"}')


if __name__ == '__main__':
    with one_line_errors():
        main()
