"""Train on a folder: look at its data, derive a config from them, train, evaluate, report, export.

  convmlp fit data/coins --minutes 15

It takes COCO, YOLO and Pascal VOC annotations, masks beside images, and a folder for each class.
The config, work_dirs/NAME/config.py, tells in comments why each value was taken, and can be edited.
The same command again goes on with what was interrupted.
"""

import json
import math
import os
import subprocess
import sys
import time
from argparse import ArgumentParser, Namespace
from numbers import Real
from pathlib import Path

from mmengine.runner import Runner

from .. import hooks
from ..checkpoints import enable_safe_loading, load_model
from ..config import PACKAGE
from ..errors import UserError
from ..files import whole_file
from ..fit.found import TASKS
from ..fit.prepare import look_at, make_config
from . import options
from .models import building, load_config


def add_arguments(parser: ArgumentParser) -> None:
    folder = parser.add_argument('folder', type=Path, help='folder with images and labels')
    options.complete(folder, options.FOLDER)
    parser.add_argument(
        '--minutes',
        type=float,
        default=15,
        metavar='N',
        help='how long the training may take (default: 15)',
    )
    parser.add_argument(
        '--task',
        choices=TASKS,
        help='what is to be found (default: what the labels are good for in the time)',
    )
    parser.add_argument(
        '--weights',
        metavar='FILE',
        help='weights to start from: a file, '
        'convmlp://NAME, "published" or "none" (default: the published ones, if '
        'they can be had)',
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        metavar='NAME',
        help='the classes to learn, or the names of those that the masks number',
    )
    parser.add_argument(
        '--unlabelled',
        type=int,
        metavar='VALUE',
        help='the value in masks that stands for no class',
    )
    parser.add_argument('--dry-run', action='store_true', help='stop when the config is written')
    parser.add_argument(
        '--no-export',
        action='store_true',
        help='write no model.onnx at the end, '
        'as convmlp export does, which takes some minutes more',
    )
    parser.add_argument(
        '--no-report', action='store_true', help='write no report.html, as convmlp report does'
    )
    parser.add_argument(
        '--force', action='store_true', help='train in spite of what is wrong with the data'
    )
    options.add(
        parser,
        '--work-dir',
        help='folder for config, logs and checkpoints (default: work_dirs/NAME_OF_THE_FOLDER)',
    )
    options.add(parser, '--trust')


def run(args: Namespace) -> None:
    enable_safe_loading(args.trust)
    if not 0 < args.minutes < math.inf:
        raise UserError(f'--minutes {args.minutes:g}: expected more than 0')
    folder = args.folder.resolve()
    work_dir = Path(args.work_dir or Path('work_dirs', folder.name))
    asked = dict(
        folder=str(folder),
        minutes=args.minutes,
        task=args.task,
        weights=args.weights,
        classes=args.classes,
        unlabelled=args.unlabelled,
    )
    state = work_dir / 'fit.json'
    before = json.loads(state.read_text()) if state.is_file() else None
    if before and before['asked'] != asked:
        other = [
            f'{key} {before["asked"].get(key)}'
            for key in asked
            if before['asked'].get(key) != asked[key]
        ]
        raise UserError(
            f'{work_dir} is of another fit ({", ".join(other)}): give --work-dir, or '
            f'remove it: rm -r {work_dir}'
        )
    if before is None:
        config = prepare(args, folder, work_dir)
        with whole_file(state) as file:
            file.write_text(json.dumps(dict(asked=asked, best=None)))
    else:
        config = work_dir / 'config.py'
        print(f'{config} is there: going on with it')
    if args.dry_run:
        print(f'config: {config}; to train: the same without --dry-run')
        return
    if best := before and before['best']:
        print(f'{work_dir} is trained; to start again: rm -r {work_dir}')
    else:
        best = str(train(args, config))
        with whole_file(state) as file:
            file.write_text(json.dumps(dict(asked=asked, best=best)))
    if not args.no_report:
        afterwards(['report', str(work_dir)], work_dir / 'report.html')
    if not args.no_export:
        model = work_dir / 'model.onnx'
        afterwards(['export', str(config), str(model), '--checkpoint', best], model)


def prepare(args: Namespace, folder: Path, work_dir: Path) -> Path:
    """Look at the data and write the config; what is found is told."""
    found, looks = look_at(folder, args.task, args.unlabelled, args.classes, args.force)
    counts = ', '.join(f'{len(found.images(split))} {split}' for split in found.splits)
    print(
        f'{folder}: {found.layout}, {counts} images; {len(found.names)} '
        f'{"class" if len(found.names) == 1 else "classes"}: '
        f'{", ".join(found.names[:8])}{", ..." if len(found.names) > 8 else ""}'
    )
    for note in found.notes:
        print(f'  {note}')
    for text in found.errors:
        print(f'  {"ignored" if args.force else "error"}: {text}', flush=True)
    if found.errors and not args.force:
        one = found.errors[0] if len(found.errors) == 1 else f'{len(found.errors)} reasons above'
        raise UserError(f'training would be in vain: {one} (--force trains all the same)')
    told = len(found.notes)
    with building(str(work_dir / 'config.py')):
        plan, config = make_config(
            found, looks, work_dir, args.minutes, args.weights, or_boxes=args.task is None
        )
    for note in found.notes[told:]:
        print(f'  {note}')
    for name in ('lr', 'scale', 'anchors', 'crop', 'val', 'batch', 'iterations'):
        if plan.why.get(name):
            print(f'  {name} {plan[name]}: {plan.why[name]}')
    return config


def train(args: Namespace, config: Path) -> Path:
    """Train, or go on, and evaluate the best checkpoint, which is returned."""
    job = options.job(config, trust=args.trust, no_check=args.force)
    cfg = load_config(job, splits=['train', 'val'])
    folder = Path(cfg.work_dir)
    cfg.resume = (folder / 'last_checkpoint').is_file()
    if cfg.resume:
        cfg.load_from = None
    start = time.monotonic()
    with building(str(config)):
        runner = Runner.from_cfg(cfg)
    runner.train()
    best = best_checkpoint(folder)
    load_model(runner.model, str(best))
    metrics = runner.test()
    minutes = (time.monotonic() - start) / 60
    text = ', '.join(
        f'{name} {value:.3f}' for name, value in metrics.items() if isinstance(value, Real)
    )
    print(
        f'{minutes:.1f} minutes; {best}: {text or "it finds nothing yet; give it more --minutes"}'
    )
    return best


def afterwards(command: list[str], out: Path) -> None:
    """Let another command make ``out`` of what was trained; its failure costs nothing else."""
    if out.exists():
        return
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'convmlp_backbone', *command],
        env={
            **os.environ,
            'PYTHONPATH': os.pathsep.join(
                filter(None, (str(PACKAGE.parent), os.environ.get('PYTHONPATH')))
            ),
        },
    )
    if done.returncode:
        print(f'there is no {out}, the rest is. Again: convmlp {" ".join(command)}')


def best_checkpoint(folder: Path) -> Path:
    """The one with the best score, or the last where none had any."""
    last = folder / 'last_checkpoint'
    return hooks.best_checkpoint(folder) or folder / Path(last.read_text().strip()).name
