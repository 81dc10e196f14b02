"""Evaluate a checkpoint on the test data of a config.

  convmlp test retinanet_convmlp_s_fpn_1x_coco work_dirs/x/epoch_12.pth --data-root data/coco

CHECKPOINT may be a file that `convmlp export` wrote: its metrics in the same evaluation.
On several GPUs: tools/dist_test.sh, tools/slurm_test.sh.
"""

import os
from argparse import ArgumentParser, Namespace

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import Runner

from ..amp import inference_precision, predict_in_bf16
from ..checkpoints import load_model
from ..deploy.evaluation import load
from ..deploy.facts import dataset_metainfo
from ..errors import UserError
from ..fused import fuse_model
from ..predictors import is_exported
from . import options
from .models import building, check_checkpoint, load_config


def add_arguments(parser: ArgumentParser) -> None:
    options.add(parser, 'config', 'checkpoint', '--fuse', '--precision', '--json', *options.JOB)
    options.add(parser, '--out', type=str, metavar='FILE.pkl', help='write the predictions to it')
    show_dir = parser.add_argument(
        '--show-dir', metavar='DIR', help='draw the predictions into this folder'
    )
    options.complete(show_dir, options.FOLDER)


def require_same_classes(cfg: Config, args: Namespace) -> None:
    """Raise where an exported file is not for this config, or --fuse is asked of it."""
    if args.fuse:
        raise UserError(f'--fuse: {args.checkpoint} is exported, as it is')
    runtime = load(args.checkpoint, precision=args.precision)
    options.tell_precision(args, runtime.reason)
    theirs = runtime.facts['classes']
    ours = dataset_metainfo(cfg).get('classes')
    if theirs and ours and list(theirs) != list(ours):
        raise UserError(
            f'{args.checkpoint} knows {len(theirs)} classes, {", ".join(theirs[:3])}, '
            f"..., the config's data set {len(ours)}, {', '.join(ours[:3])}, ..."
        )


def run(args: Namespace) -> dict[str, float]:
    check_checkpoint(args.checkpoint)
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise UserError(
            f'--out {args.out}: expected a name that ends in .pkl; convmlp predict '
            'writes predictions.json'
        )
    exported = is_exported(args.checkpoint)
    cfg = load_config(args, ['test'], None if exported else args.checkpoint)
    cfg.load_from, cfg.resume = None, False
    if exported:
        require_same_classes(cfg, args)
        cfg.model = dict(type='ExportedModel', file=args.checkpoint, precision=args.precision)
    else:
        precision, reason = inference_precision(args.precision or 'f32', get_device())
        options.tell_precision(args, reason)
    if args.show_dir:
        cfg.custom_hooks = [
            *(cfg.get('custom_hooks') or ()),
            dict(type='ShowPredictionsHook', folder=os.path.abspath(args.show_dir)),
        ]
    if args.out:
        # mmdet's own metric packs masks as RLE, which would fill the disk otherwise.
        dump = 'DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults'
        evaluators = cfg.test_evaluator
        cfg.test_evaluator = [
            *(evaluators if isinstance(evaluators, list) else [evaluators]),
            dict(type=dump, out_file_path=args.out),
        ]
    with building(args.config):
        runner = Runner.from_cfg(cfg)
        runner.test_loop  # noqa: B018  which builds the data sets
    if not exported:
        # MMEngine would go on with what fits.
        model = getattr(runner.model, 'module', runner.model)
        load_model(model, args.checkpoint)
        if args.fuse:
            fuse_model(model)
        if precision == 'bf16':
            predict_in_bf16(model)
    return runner.test()
