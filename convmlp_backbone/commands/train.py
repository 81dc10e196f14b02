"""Train a detector, segmentor or classifier.

  convmlp train retinanet_convmlp_s_fpn_1x_coco --data-root data/coco

Goes on with an interrupted training with --resume. On several GPUs: tools/dist_train.sh,
tools/slurm_train.sh.
"""

from argparse import ArgumentParser, Namespace

from mmengine.device import get_device
from mmengine.runner import Runner

from ..amp import use_mixed_precision
from ..errors import UserError
from ..hooks import prepare_training
from . import options
from .models import building, check_checkpoint, load_config


def add_arguments(parser: ArgumentParser) -> None:
    options.add(parser, 'config', '--amp', *options.JOB)
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate to the total batch size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or from the latest of the work dir',
    )


def run(args: Namespace) -> None:
    cfg = load_config(args, ['train', 'val'], args.resume)
    if args.amp:
        print(f'--amp: {use_mixed_precision(cfg, args.amp, get_device())}', flush=True)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise UserError('--auto-scale-lr needs auto_scale_lr.base_batch_size in the config')
        cfg.auto_scale_lr.enable = True
    if args.resume:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('load_from') and not cfg.get('resume'):
        check_checkpoint(cfg.load_from)
    prepare_training(cfg)
    with building(args.config):
        runner = Runner.from_cfg(cfg)
        runner.train_loop, runner.val_loop  # noqa: B018  which builds the data sets
    runner.train()
