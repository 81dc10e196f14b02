"""Write a model for deployment, whole, once it is proven to predict the same.

  convmlp export retinanet_convmlp_s_fpn_coins model.onnx --checkpoint epoch_80.pth
  convmlp export s backbone.onnx

FILE ends in .onnx, .xml (OpenVINO, with a .bin beside it) or .pt2 (torch.export). It takes images
of any number, height and width: (N, height, width, 3), RGB, of type uint8; normalisation, padding,
decoding, NMS and mask heads are inside. docs/deploy.md tells what it gives. `convmlp predict`,
`convmlp test` and the runtime, one Python file without PyTorch, run it.

Before the file gets its name it is compared with the toolbox's own predictions, in several sizes
and batches, on photos: those of --images, else of the config's test data set, else generated ones.
"""

import copy
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import numpy as np
from mmengine.config import Config
from torch import nn

from ..archs import NAMES
from ..checkpoints import load_backbone, load_model
from ..deploy.agreement import agreement, open_file
from ..deploy.facts import IMAGENET, facts_of, test_dataset
from ..deploy.files import ENDINGS, trace, unfinished
from ..deploy.models import exportable
from ..errors import UserError
from ..inputs import find, frames
from ..predictors import own_loaders
from . import options
from .models import build_from_config, build_model, check_checkpoint, checked_config


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
    options.add(parser, '--data-root', '--backbone', '--cfg-options', '--trust')


def load(args: Namespace) -> tuple[nn.Module, Config, dict, dict | None]:
    """The model, and of its config all but the model, as the file's facts need it."""
    if args.checkpoint:
        check_checkpoint(args.checkpoint)
    if args.model.lower() in NAMES:
        model, _ = build_model(args.model.lower())
        if args.checkpoint:
            load_backbone(model, args.checkpoint, args.trust)
        return model, {}, IMAGENET, {}
    cfg = checked_config(args.model, args.cfg_options, args.backbone)
    model = build_from_config(cfg)
    meta = load_model(model, args.checkpoint, args.trust) if args.checkpoint else {}
    return model, cfg, cfg.model.get('data_preprocessor') or {}, meta.get('dataset_meta')


def photos(args: Namespace, cfg: Config) -> tuple[list[np.ndarray], str]:
    """Up to four photos, and where they come from."""
    dataset = test_dataset(cfg)
    prefix = dataset.get('data_prefix') or ''
    folder = Path(
        args.data_root or dataset.get('data_root') or '',
        next(iter(prefix.values())) if isinstance(prefix, dict) else prefix,
    )
    own = bool(cfg) and own_loaders(cfg)
    if args.images or dataset.get('data_root') and folder.is_dir() and not own:
        found = find(args.images or [folder], recursive=True)
        chosen = [found[i * len(found) // 4] for i in range(4)] if len(found) > 4 else found
        return [image for source in chosen for _, image in frames(source)][:4], 'photos'
    coarse = np.random.default_rng(0).integers(0, 256, (4, 12, 16, 3), dtype=np.uint8)
    return list(coarse.repeat(30, 1).repeat(30, 2)), 'generated images'


def run(args: Namespace) -> None:
    if args.out.suffix not in ENDINGS:
        raise UserError(f'{args.out}: expected a name that ends in {", ".join(ENDINGS)}')
    if args.out.exists():
        raise UserError(f'{args.out} exists already: give another name or remove it')
    model, cfg, preprocessor, meta = load(args)
    images, kind = photos(args, cfg)
    module = exportable(
        copy.deepcopy(model),
        preprocessor,
        args.normalised or model is getattr(model, 'backbone', model),
    )
    facts = facts_of(cfg, module, meta)
    print(f'exporting {args.model}, a minute or two', flush=True)
    start = time.time()
    with unfinished(trace(module), args.out, facts) as part:
        print(f'written in {time.time() - start:.0f} s; compared on {kind}:', flush=True)
        found = 0
        for row in agreement(model, open_file(part), images):
            found += row.found or 0
            print(
                f'{row.batch} x {row.height} x {row.width}: '
                + (f'{row.found} objects, ' if row.found is not None else '')
                + ', '.join(
                    f'{name} differ by {value:.1e}' for name, value in row.differences.items()
                ),
                flush=True,
            )
    if 'counts' in facts['outputs'] and not found:
        print(
            'No object in any of these images: boxes and scores were not compared. Give '
            'trained weights, --checkpoint, and --images with objects.'
        )
    size = sum(
        path.stat().st_size for path in (args.out, args.out.with_suffix('.bin')) if path.exists()
    )
    print(f'{args.out}: {size / 1e6:.1f} MB, {facts["task"]}, any batch, height and width')
