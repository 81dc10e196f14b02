"""Write a model for deployment, whole, once it is proven to predict the same.

  convmlp export retinanet_convmlp_s_fpn_coins model.onnx --checkpoint epoch_80.pth
  convmlp export s backbone.onnx

FILE ends in .onnx, .xml (OpenVINO, with a .bin beside it) or .pt2 (torch.export). It takes images
of any number, height and width: (N, height, width, 3), RGB, of type uint8; normalisation, padding,
decoding, NMS and mask heads are inside. docs/deploy.md tells what it gives. `convmlp predict`,
`convmlp test` and the runtime, one Python file without PyTorch, run it.

Before the file gets its name it is compared with the toolbox's own predictions, in several sizes
and batches, on photos: those of --images, else of the config's test data set, else generated ones.

--precision int8 calibrates on the images of --calibrate, by default of the config's training data,
and measures float32, bfloat16 and int8 on its test data: beyond --max-drop nothing is written.
"""

import copy
import time
from argparse import ArgumentParser, Namespace
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from mmengine.config import Config
from torch import nn

from ..archs import NAMES
from ..deploy.agreement import Row, agreement, open_file
from ..deploy.evaluation import ExportedModel, evaluator, require_as_good
from ..deploy.evaluation import load as load_file
from ..deploy.facts import facts_of, test_dataset
from ..deploy.files import ENDINGS, trace, unfinished, write_onnx
from ..deploy.models import exportable
from ..deploy.quantisation import quantise, require_nncf
from ..errors import UserError
from ..files import require_writable
from . import options
from .whole import calibration, evaluated_config, generated, load, photos


def add_arguments(parser: ArgumentParser) -> None:
    options.add(parser, 'model', help='s, m, l, or a config')
    parser.add_argument('out', type=Path, metavar='FILE', help='a file that does not exist')
    parser.add_argument('--checkpoint', help='weights; default: random ones')
    parser.add_argument(
        '--images', nargs='+', metavar='IMAGE_OR_FOLDER', help='photos with objects, to compare on'
    )
    parser.add_argument(
        '--normalised',
        action='store_true',
        help='the file takes floats '
        '(N, 3, height, width), normalised as in training, instead of RGB images; '
        'backbones always do',
    )
    options.add(
        parser,
        '--precision',
        default='f32',
        help='what the file is computed in where nothing else is asked for: f32, bf16, auto (bf16 '
        'where the processor that runs it has units), or int8, which it is in from then on '
        '(default f32)',
    )
    parser.add_argument(
        '--max-drop',
        type=float,
        default=0.005,
        metavar='X',
        help='of int8: how much worse AP, mIoU or accuracy, from 0 to 1, may be (default 0.005)',
    )
    options.add(parser, '--calibrate', '--data-root', '--backbone', '--cfg-options', '--trust')


def prove(model: nn.Module, file: Path, images: list[np.ndarray]) -> None:
    """Compare a file with the model, and print each comparison; UserError where they differ."""
    print(f'compared on {"photos" if images else "generated images"}:', flush=True)
    images = images or generated(4)
    runtime = open_file(file)
    found = 0
    for row in agreement(model, runtime, images):
        found += row.found or 0
        print(told(row), flush=True)
    if 'counts' in runtime.facts['outputs'] and not found:
        print(
            'No object in any of these images: boxes and scores were not compared. Give '
            'trained weights, --checkpoint, and --images with objects.'
        )
    if runtime.facts.get('precision', 'f32') in ('bf16', 'auto'):
        *_, row = agreement(model, load_file(file, precision='bf16'), images, [], [1], strict=False)
        print(f'in bfloat16, {told(row)}', flush=True)


def told(row: Row) -> str:
    return (
        f'{row.batch} x {row.height} x {row.width}: '
        + (f'{row.found} objects, ' if row.found is not None else '')
        + ', '.join(f'{name} differ by {value:.1e}' for name, value in row.differences.items())
    )


def quantised(args: Namespace, file: Path, path: Path, cfg: Config) -> None:
    """Write the int8 of a float32 ``file`` as ``path``, if it is good enough."""
    evaluate = evaluator(evaluated_config(args))
    images = calibration(args, cfg)
    print(f'calibrating on {len(images)} images', flush=True)
    quantise(file, path, images)
    metrics = {}
    forms = dict(f32=(file, 'f32'), bf16=(file, 'bf16'), int8=(path, 'int8'))
    for form, (part, precision) in forms.items():
        runtime = load_file(part, backend='openvino', precision=precision)
        metrics[form] = evaluate(ExportedModel(runtime))
        print(f'{form}: {", ".join(f"{k} {v:.4f}" for k, v in metrics[form].items())}', flush=True)
    require_as_good(metrics, args.max_drop)


def check(args: Namespace) -> None:
    """Raise what can be known before the work."""
    if args.out.suffix not in ENDINGS:
        raise UserError(f'{args.out}: expected a name that ends in {", ".join(ENDINGS)}')
    if args.out.exists():
        raise UserError(f'{args.out} exists already: give another name or remove it')
    if args.out.suffix == '.pt2' and args.precision != 'f32':
        raise UserError(f'--precision {args.precision}: {args.out.name} runs in f32 only')
    if not 0 <= args.max_drop <= 1:
        raise UserError(f'--max-drop {args.max_drop}: expected a number from 0 to 1')
    if args.precision == 'int8':
        require_nncf()
        if args.model.lower() in NAMES:
            raise UserError('--precision int8: of whole models, whose loss can be measured')
        if not args.checkpoint:
            raise UserError('--precision int8 measures what it costs: give trained weights')
    elif args.calibrate:
        raise UserError(f'--calibrate {args.calibrate}: only with --precision int8')
    require_writable(args.out)


def run(args: Namespace) -> None:
    check(args)
    model, cfg, preprocessor, meta = load(args)
    images = photos(args, cfg, args.images, test_dataset(cfg), 4)
    module = exportable(
        copy.deepcopy(model),
        preprocessor,
        args.normalised or model is getattr(model, 'backbone', model),
    )
    facts = facts_of(cfg, module, meta)
    if args.precision in ('bf16', 'auto'):
        facts['precision'] = args.precision
    print(f'exporting {args.model}, a minute or two', flush=True)
    start = time.time()
    with ExitStack() as stack:
        program: Any = trace(module)
        if args.precision == 'int8':
            folder = Path(stack.enter_context(TemporaryDirectory()))
            plain = folder / 'f32.onnx'
            write_onnx(program, plain, facts)
            prove(model, plain, images)
            program = folder / 'int8.onnx'
            quantised(args, plain, program, cfg)
            facts['precision'] = 'int8'
        part = stack.enter_context(unfinished(program, args.out, facts))
        print(f'written in {time.time() - start:.0f} s', flush=True)
        if args.precision != 'int8':
            prove(model, part, images)
    size = sum(
        path.stat().st_size for path in (args.out, args.out.with_suffix('.bin')) if path.exists()
    )
    print(f'{args.out}: {size / 1e6:.1f} MB, {facts["task"]}, any batch, height and width')
