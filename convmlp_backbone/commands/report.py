"""Write what a training came to, in one HTML file, or compare two trainings.

  convmlp report work_dirs/retinanet_convmlp_s_fpn_coins
  convmlp report work_dirs/a work_dirs/b --out a_and_b.html

Runs the best checkpoint on the validation set, unless --predictions gives what it found. The file
holds all it shows; a browser opens it without a network: scores, curves, confusions, kinds of
errors, the worst and typical images. Of two trainings: the differences of their scores, with the
intervals within which chance alone would move them.
"""

from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope

from ..checkpoints import load_model
from ..errors import UserError
from ..files import require_writable, whole_file
from ..report.comparison import comparison
from ..report.evaluation import Evidence, predict_all, read_predictions
from ..report.evidence import evidence_of
from ..report.run_report import run_report
from ..report.work_dir import WorkDir, open_work_dir
from . import options
from .models import build_from_config, building, check_checkpoint, load_config


def add_arguments(parser: ArgumentParser) -> None:
    work_dirs = parser.add_argument(
        'work_dirs', nargs='+', metavar='WORK_DIR', help='of a training; of two to compare them'
    )
    options.complete(work_dirs, options.FOLDER)
    predictions = parser.add_argument(
        '--predictions',
        nargs='+',
        metavar='FILE',
        help='predictions.json of convmlp predict on the validation images, one for each WORK_DIR '
        '(default: the model is run)',
    )
    options.complete(predictions, options.FILE)
    checkpoints = parser.add_argument(
        '--checkpoint',
        nargs='+',
        metavar='FILE',
        help='the checkpoint to run, one for each WORK_DIR (default: the best, else the last)',
    )
    options.complete(checkpoints, options.FILE)
    parser.add_argument(
        '--bootstrap',
        type=int,
        default=1000,
        metavar='N',
        help='samples of images that intervals are taken from (default 1000)',
    )
    options.add(
        parser,
        '--out',
        metavar='FILE.html',
        help='the report (default: report.html in the first WORK_DIR)',
    )
    options.add(
        parser, '--device', '--data-root', '--cfg-options', '--json', '--trust', '--no-check'
    )


def run(args: Namespace) -> dict[str, Any]:
    if len(args.work_dirs) > 2:
        raise UserError(f'{len(args.work_dirs)} work dirs: expected one, or two to compare')
    options.require_one_or_more(args, 'bootstrap')
    for name in ('predictions', 'checkpoint'):
        given = getattr(args, name)
        if given and len(given) != len(args.work_dirs):
            raise UserError(
                f'--{name}: {len(given)} files for {len(args.work_dirs)} work dirs; expected one '
                'for each'
            )
    if find_spec('hotcoco') is None:
        raise UserError('the report is computed by hotcoco: pip install hotcoco')
    runs = [open_work_dir(name) for name in args.work_dirs]
    out = Path(args.out or Path(args.work_dirs[0], 'report.html'))
    require_writable(out)
    found = [evaluate(args, place, run) for place, run in enumerate(runs)]
    answer: dict[str, Any] = dict(report=str(out))
    if len(runs) == 1:
        (run, (cfg, evidence, source)) = runs[0], found[0]
        content = run_report(run, cfg, evidence, source)
        answer |= dict(metrics=evidence.metrics, left_out=len(evidence.left_out))
    else:
        content, rows = comparison(runs, found, args.bootstrap)
        answer['differences'] = rows
    with whole_file(out) as part:
        part.write_text(content)
    print(f'report: {out}')
    return answer


def evaluate(args: Namespace, place: int, run: WorkDir) -> tuple[Any, Evidence, str]:
    """Config, what was found on its validation set, and in words by what."""
    job = options.job(
        run.config,
        trust=args.trust,
        no_check=args.no_check,
        data_root=args.data_root,
        cfg_options=args.cfg_options,
    )
    file = Path(args.predictions[place]) if args.predictions else None
    checkpoint = str(args.checkpoint[place]) if args.checkpoint else run.checkpoint
    if file is None:
        if checkpoint is None:
            raise UserError(
                f'{run.folder} has no checkpoint: --checkpoint FILE, or --predictions FILE'
            )
        check_checkpoint(str(checkpoint))
    elif not file.is_file():
        raise UserError(f'no file --predictions {file}; convmlp predict writes predictions.json')
    cfg = load_config(job, ['val'], None if file else str(checkpoint))
    loader = cfg.get('val_dataloader')
    if not loader:
        raise UserError(f'{run.config} has no validation set (val_dataloader)')
    with building(str(run.config)):
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        evidence = evidence_of(cfg, DATASETS.build(loader.dataset))
    if not evidence.paths:
        raise UserError(f'the validation set of {run.config} has no image')
    if file:
        read_predictions(file, evidence)
        return cfg, evidence, f'predictions of {file}'
    device = args.device or get_device()
    model = build_from_config(cfg, device)
    load_model(model, str(checkpoint), args.trust)
    with building(str(run.config)):
        predict_all(model, evidence, loader.get('batch_size', 1), loader.get('num_workers', 0))
    if len(evidence.left_out) == len(evidence.paths):
        raise UserError(
            f'no image of the validation set can be read, such as {evidence.paths[0]}: '
            f'{evidence.left_out[0]}'
        )
    return cfg, evidence, f'found by {Path(str(checkpoint)).name}'
