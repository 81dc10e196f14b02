"""Parameters and multiply-accumulate operations (MACs) of a model, module by module.

  convmlp get_flops retinanet_convmlp_s_fpn_1x_coco   a config: detector, segmentor or classifier
  convmlp get_flops s                                 a backbone: s, m or l
  convmlp get_flops m-pure-mlp                        with parts turned off; --ablation: all of them
  convmlp get_flops resnet50                          a model of timm

Needs no data and no weights, and computes shapes only.
"""

import csv
import sys
from argparse import ArgumentParser, Namespace
from contextlib import redirect_stdout

import torch
from mmengine.model import BaseModel
from mmengine.structures import BaseDataElement, InstanceData
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..archs import ABLATIONS
from ..errors import UserError
from . import options
from .models import build_model, image_shape
from .photo import input_channels

Table = tuple[list[str], list[list], tuple[int, ...]]  # header, rows, and (C, H, W) of the image
NOT_COUNTED = (
    'MACs: convolutions, linear layers and matrix products for one image. Not counted: biases, '
    'norms, activations, sums, pooling, resizing, RoIAlign, box decoding, NMS, and operators from '
    'outside PyTorch such as deformable convolution.'
)


def fix_proposals(model: BaseModel) -> None:
    """Give the RoI heads of a two-stage detector as many boxes as its config allows at most.

    Otherwise their number would depend on the weights and the image.
    """

    def propose(feats, *args, **kwargs):
        model.rpn_head(feats)
        return [InstanceData(bboxes=feats[0].new_zeros(model.test_cfg.rpn.max_per_img, 4))]

    def pool(extractor):
        size = extractor.roi_layers[0].output_size
        return lambda feats, rois, *args, **kwargs: feats[0].new_zeros(
            len(rois), extractor.out_channels, *size
        )

    model.rpn_head.predict = propose
    for module in model.roi_head.modules():
        if hasattr(module, 'roi_layers'):
            module.forward = pool(module)


def count(model: nn.Module, shape: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """Parameters and MACs of every module.

    Args:
        model (nn.Module): On PyTorch's meta device afterwards.
        shape (tuple[int, int]): Height and width of the image in pixels.

    Returns:
        dict[str, tuple[int, int]]: ``{name: (parameters, MACs)}`` in the order of the modules;
        ``''`` is the whole model.

    Raises:
        UserError: The model cannot take such an image, or not without data.
    """
    if getattr(model, 'with_rpn', False) and hasattr(model, 'roi_head'):
        fix_proposals(model)
    image = torch.empty(1, input_channels(model), *shape, device='meta')
    inputs: tuple = (image,)
    if isinstance(model, BaseModel):
        inputs = (
            image,
            [
                BaseDataElement(
                    metainfo=dict(
                        img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape
                    )
                )
            ],
        )
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model.to('meta')(*inputs)
    except (AssertionError, NotImplementedError, RuntimeError, ValueError) as error:
        raise UserError(
            f'{type(model).__name__} does not take a made-up image of {shape[0]}x'
            f'{shape[1]}: {str(error).splitlines()[0]}'
        ) from None
    called = {
        name.partition('.')[2]: sum(flops.values()) // 2  # two FLOPs a MAC
        for name, flops in counter.get_flop_counts().items()
        if name != 'Global'
    }

    def macs(name, module):
        # MMDetection calls some heads by their forward(), past the counter; their parts it sees.
        return called.get(name) or sum(
            macs(f'{name}.{child}', part) for child, part in module.named_children()
        )

    table = {
        name: (sum(p.numel() for p in module.parameters()), macs(name, module))
        for name, module in model.named_modules()
    }
    return {**table, '': (table[''][0], counter.get_total_flops() // 2)}


def modules_table(
    name: str, shape: tuple[int, int] | None, depth: int, backbone: str | None = None
) -> Table:
    """Header and rows of the table of one model down to a depth of its modules, and (C, H, W)."""
    model, default_shape = build_model(name, backbone=backbone)
    counts = count(model, shape or default_shape)
    return (
        ['module', 'parameters', 'MACs'],
        [
            [module or type(model).__name__, *numbers]
            for module, numbers in counts.items()
            if any(numbers) and (not module or module.count('.') < depth)
        ],
        (input_channels(model), *(shape or default_shape)),
    )


def ablation_table(size: str, shape: tuple[int, int] | None) -> Table:
    """Header and rows of the table of all ablations of one size, and (C, H, W)."""
    rows = []
    for name in (size, *(f'{size}-{part}' for part in ABLATIONS)):
        model, default_shape = build_model(name)
        rows.append([name, *count(model, shape or default_shape)['']])
    return ['arch', 'parameters', 'MACs'], rows, (3, *(shape or default_shape))


def format_table(header: list[str], rows: list[list], markdown: bool) -> list[str]:
    """Lines of a table with numbers aligned to the right, MACs in G."""
    cells = [
        header,
        *([name, f'{parameters:,}', f'{macs / 1e9:.3f} G'] for name, parameters, macs in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        [name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]
        for name, *rest in cells
    ]
    if not markdown:
        return ['  '.join(line) for line in lines]
    rule = ['-' * widths[0], *('-' * (width - 1) + ':' for width in widths[1:])]
    return [f'| {" | ".join(line)} |' for line in (lines[0], rule, *lines[1:])]


def add_arguments(parser: ArgumentParser) -> None:
    options.add(parser, 'model', '--backbone')
    options.add(
        parser,
        '--shape',
        help='height and width of the image, or one number for both '
        '(default: 224 for classifiers and backbones, 512 for segmentors, 800 1280 for '
        'detectors)',
    )
    parser.add_argument('--depth', type=int, default=2, help='levels of modules (default 2)')
    parser.add_argument(
        '--ablation',
        action='store_true',
        help='one row for a size of ConvMLP and each of its parts turned off',
    )
    style = parser.add_mutually_exclusive_group()
    style.add_argument('--csv', action='store_true', help='all digits, for spreadsheets')
    style.add_argument('--markdown', action='store_true', help='a table for a page')
    options.add(style, '--json')


def run(args: Namespace) -> dict | None:
    shape = args.shape and image_shape(args.shape)
    if args.ablation and args.model not in ('s', 'm', 'l'):
        raise UserError(f'--ablation {args.model}: expected s, m or l')

    with redirect_stdout(sys.stderr):  # what is told of the config is not part of the table
        header, rows, shape = (
            ablation_table(args.model, shape)
            if args.ablation
            else modules_table(args.model, shape, args.depth, args.backbone)
        )
    if args.csv:
        csv.writer(sys.stdout, lineterminator='\n').writerows([header, *rows])
        return None
    if args.json:
        return dict(input=list(shape), rows=[dict(zip(header, row, strict=True)) for row in rows])
    print('\n'.join(format_table(header, rows, args.markdown)))
    print(f'\nInput {"x".join(map(str, shape))}. {NOT_COUNTED}')
    return None
