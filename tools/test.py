"""Evaluate a checkpoint: ``tools/test.py CONFIG CHECKPOINT``.

On several GPUs: tools/dist_test.sh, tools/slurm_test.sh.
"""
import argparse
import os

from common import (
    add_config_arguments,
    check_checkpoint,
    fuse_model,
    load_config,
    one_line_errors,
)
from mmengine.runner import Runner

from convmlp_backbone.checkpoints import load_model


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of a config, or the name of a shipped one')
    parser.add_argument('checkpoint', help='path, URL or convmlp://NAME')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    parser.add_argument('--show-dir', metavar='DIR', help='draw the predictions into this folder')
    parser.add_argument('--fuse', action='store_true', help='fold the norms of the backbone and '
                        'run its fused layers: the same predictions, sooner')
    add_config_arguments(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    check_checkpoint(args.checkpoint)
    cfg = load_config(args, splits=['test'])
    cfg.load_from, cfg.resume = None, False
    if args.show_dir:
        cfg.default_hooks.visualization.draw = True
        cfg.visualizer.save_dir = os.path.abspath(args.show_dir)
        if cfg.default_scope == 'mmdet':
            cfg.default_hooks.visualization.test_out_dir = cfg.visualizer.save_dir
    if args.out:
        # mmdet's own metric packs masks as RLE, which would fill the disk otherwise.
        dump = 'DumpDetResults' if cfg.default_scope == 'mmdet' else 'DumpResults'
        evaluators = cfg.test_evaluator
        cfg.test_evaluator = [*(evaluators if isinstance(evaluators, list) else [evaluators]),
                              dict(type=dump, out_file_path=args.out)]
    runner = Runner.from_cfg(cfg)
    # MMEngine would go on with what fits.
    load_model(getattr(runner.model, 'module', runner.model), args.checkpoint)
    if args.fuse:
        fuse_model(runner.model)
    runner.test()


if __name__ == '__main__':
    with one_line_errors():
        main()
