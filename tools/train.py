"""Train a detector, segmentor or classifier: ``tools/train.py CONFIG``.

On several GPUs: tools/dist_train.sh, tools/slurm_train.sh.
"""
import argparse

from common import UserError, add_config_arguments, check_checkpoint, load_config, one_line_errors
from mmengine.device import get_device
from mmengine.runner import Runner

from convmlp_backbone.hooks import prepare_training


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of a config, or the name of a shipped one')
    parser.add_argument('--amp', action='store_true', help='automatic mixed precision (GPU)')
    parser.add_argument('--auto-scale-lr', action='store_true',
                        help='scale the learning rate to the total batch size')
    parser.add_argument('--resume', nargs='?', const='auto', metavar='CHECKPOINT',
                        help='go on from this checkpoint, or from the latest of the work dir')
    add_config_arguments(parser)
    return parser.parse_args()


def main():
    args = parse_args()
    cfg = load_config(args, splits=['train', 'val'])
    if args.amp:
        if get_device() == 'cpu':
            raise UserError('--amp needs a GPU, and there is none; leave it out')
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
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
    Runner.from_cfg(cfg).train()


if __name__ == '__main__':
    with one_line_errors():
        main()
