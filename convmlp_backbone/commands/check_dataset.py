"""Look at all the data before a long training.

  convmlp check_dataset retinanet_convmlp_s_fpn_1x_coco --data-root data/coco

Reads every image and annotation of the config's training and validation set as the training will,
reports each problem with its file and id, counts objects or pixels of each class, looks for images
that are there twice, and scores the truth by the config's own evaluator, which has to give 1.0.
Draws 16 training samples as the model sees them. Ends with status 1 if training would fail or
learn something wrong. train and test run the fast part of it. --json prints the problems as a list
of severity, where and text.
"""

import multiprocessing
from argparse import ArgumentParser, Namespace
from collections import Counter
from pathlib import Path

from rich.progress import track

from ..checks.datasets import scope_of
from ..checks.drawing import draw_sheet
from ..checks.quiet import quiet
from ..checks.whole import Whole
from ..errors import UserError
from . import options
from .models import load_config


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        '--processes',
        type=int,
        default=multiprocessing.cpu_count(),
        help='that read the data (default: one a core)',
    )
    options.add(parser, 'config', '--json', *options.JOB)


def run(args: Namespace) -> dict:
    options.require_one_or_more(args, 'processes')
    args.no_check = True  # all of it comes now
    cfg = load_config(args, splits=['train', 'val'])
    whole = Whole(
        cfg,
        Path(cfg.work_dir, 'mended'),
        args.processes,
        lambda items, words, total: track(items, words, total),
    )
    problems = whole.run()
    for problem in problems:
        print(f'{problem.severity}: {problem.where} {problem.text}')
    counts = Counter(problem.severity for problem in problems)
    if not counts['error'] and 'train' in whole.datasets:
        dataset, sheet = whole.datasets['train'], Path(cfg.work_dir, 'samples.png')
        settings = (
            (cfg.get('model') or {}).get('data_preprocessor') or cfg.get('data_preprocessor') or {}
        )
        with scope_of(cfg), quiet():
            draw_sheet(
                dataset,
                dataset.metainfo['classes'],
                bool(settings.get('bgr_to_rgb') or settings.get('to_rgb')),
                sheet,
            )
        print(f'samples as the model sees them: {sheet}')
    print(f'{whole.count} samples, {counts["error"]} errors, {counts["warning"]} warnings')
    answer = dict(
        samples=whole.count,
        problems=[problem._asdict() for problem in problems],
        scores_of_the_truth=whole.scores,
    )
    if counts['error']:
        failure = UserError('training would fail or learn something wrong')
        failure.answer = answer
        raise failure
    return answer
