"""Convert a checkpoint: other names, another format, half the size.

  convmlp convert epoch_12.pth backbone.safetensors --names backbone --half

OUT ends in .pth or .safetensors. It gets the weights, of their moving average if there is one, and
the class names; the optimizer and all else that only training needs stays behind.
"""

from argparse import ArgumentParser, Namespace

from torch import Tensor

from ..checkpoints import (
    CheckpointError,
    describe,
    load,
    plain_meta,
    shown,
    split_backbone,
    unwrap,
    write,
)
from . import options

NAMES = {
    'timm': "backbone and classifier by their published names, which are timm's too",
    'backbone': 'the same without the classifier: for init_cfg',
    'mm': 'backbone alone, as part of a detector or segmentor: behind "backbone."',
}


def rename(state_dict: dict[str, Tensor], names: str) -> dict[str, Tensor]:
    """``state_dict`` with only what ``names``, a key of :data:`NAMES`, stands for."""
    prefix, weights, others = split_backbone(state_dict)
    if prefix is None:
        raise CheckpointError(f'the file holds {describe(state_dict)}')
    if names == 'mm':
        return {f'backbone.{name}': tensor for name, tensor in weights.items()}
    if names == 'timm':
        head = {
            name: state_dict[prefix + name]
            for name in ('norm.weight', 'norm.bias', 'head.weight', 'head.bias')
            if prefix + name in others
        }
        if len(head) < 4:
            raise CheckpointError(
                f'no classifier in the file, which holds {describe(state_dict)}; '
                '--names backbone does without'
            )
        weights.update(head)
    return weights


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('source', metavar='IN', help='path, URL or convmlp://NAME')
    parser.add_argument('target', metavar='OUT', help='new file; its ending chooses the format')
    parser.add_argument(
        '--names',
        choices=NAMES,
        help='; '.join(f'{key}: {text}' for key, text in NAMES.items())
        + ' (default: names as they are)',
    )
    parser.add_argument('--half', action='store_true', help='16-bit floating point numbers')
    options.add(parser, '--trust')


def run(args: Namespace) -> None:
    checkpoint = load(args.source, args.trust)
    wrapper, state_dict = unwrap(checkpoint)
    print(
        f'read    {shown(args.source)}: {describe(state_dict)}'
        + (f', in {wrapper}' if wrapper else '')
    )
    new = rename(state_dict, args.names) if args.names else state_dict
    if args.half:
        new = {n: v.half() if v.is_floating_point() else v for n, v in new.items()}
        if spoilt := [n for n, v in new.items() if not v.isfinite().all()]:
            raise CheckpointError(f'--half: {spoilt[0]} would not be finite')
    write(args.target, new, plain_meta(checkpoint))
    left_out = [key for key in checkpoint if wrapper and key not in (wrapper, 'meta')]
    print(f'left    {len(state_dict) - len(new)} tensors, {", ".join(left_out) or "nothing else"}')
    print(f'wrote   {args.target}: {describe(new)}' + (', 16 bits' if args.half else ''))
