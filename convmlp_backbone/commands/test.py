"""Evaluate a checkpoint on the test data of a config.

  convmlp test retinanet_convmlp_s_fpn_1x_coco work_dirs/x/epoch_12.pth --data-root data/coco

On several GPUs: tools/dist_test.sh, tools/slurm_test.sh.
"""
import os

from mmengine.runner import Runner

from ..checkpoints import load_model
from ..fused import fuse_model
from . import options
from .models import building, check_checkpoint, load_config


def add_arguments(parser):
    options.add(parser, 'config', 'checkpoint', '--fuse', '--json', *options.JOB)
    options.add(parser, '--out', type=str, metavar='FILE.pkl', help='write the predictions to it')
    parser.add_argument('--show-dir', metavar='DIR', help='draw the predictions into this folder'
                        ).complete = options.FOLDER


def run(args):
    check_checkpoint(args.checkpoint)
    cfg = load_config(args, splits=['test'])
    cfg.load_from, cfg.resume = None, False
    if args.show_dir:
        folder = cfg.visualizer.save_dir = os.path.abspath(args.show_dir)
        cfg.default_hooks.visualization.update({
            'mmdet': dict(draw=True, test_out_dir=folder), 'mmseg': dict(draw=True),
            'mmpretrain': dict(enable=True, interval=1, out_dir=folder)}[cfg.default_scope])
    if args.out:
        # mmdet's own metric packs masks as RLE, which would fill the disk otherwise.
        dump = 'DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults'
        evaluators = cfg.test_evaluator
        cfg.test_evaluator = [*(evaluators if isinstance(evaluators, list) else [evaluators]),
                              dict(type=dump, out_file_path=args.out)]
    with building(args.config):
        runner = Runner.from_cfg(cfg)
        runner.test_loop  # noqa: B018  which builds the data sets
    # MMEngine would go on with what fits.
    load_model(getattr(runner.model, 'module', runner.model), args.checkpoint)
    if args.fuse:
        fuse_model(runner.model)
    return runner.test()
