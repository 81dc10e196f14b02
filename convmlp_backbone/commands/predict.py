"""Predict on images, and draw what was predicted.

  convmlp predict retinanet_convmlp_s_fpn_coins epoch_80.pth photos/ --out-dir out
  convmlp predict model.onnx photos/ film.mp4 'more/**/*.jpg' list.txt --out-dir out --batch 4

The first takes a config and a checkpoint, the second a file that `convmlp export` wrote. Images are
files, folders, patterns, videos (their frames), text files with such a name a line, and - for one
on the standard input. Those that cannot be read are named at the end, the others are not lost.

Writes DIR/vis/NAME, the image with the prediction drawn in (NAME.png where its format takes no
colours), and DIR/predictions.json: for a detector a list in COCO's result format, with file and
class names besides; for a segmentor the class names and the files DIR/pred/NAME.png, in which a
pixel's value is the index of its class; for a classifier the five likeliest classes of every image.

  convmlp predict fpn_convmlp_s_coins epoch_80.pth slide.tif --tile auto --out-dir out

predicts an image of any size tile by tile, with the result of the whole one: DIR/pred/NAME.tif, or
DIR/geojson/NAME.geojson and DIR/predictions.json. Interrupted, the same command goes on.
"""

import json
import math
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
from mmengine.device import get_device
from mmengine.structures import BaseDataElement
from PIL import Image
from rich.progress import track

from ..amp import inference_precision
from ..checks.image_ids import read_ids
from ..checks.problem import first_of
from ..cpu import fit_model_to_cpu, keep_freed_memory
from ..errors import UserError
from ..files import whole_file
from ..inputs import IMAGES, Source, find, frames, pixels_in
from ..pictures import picture_name
from ..predictors import CheckpointPredictor, FilePredictor, Predictor, is_exported, own_loaders
from ..tiling.job import TiledJob
from ..tiling.memory import measure, too_large
from ..tiling.output import predict_tiled
from ..tiling.results import coco_result
from . import options
from .models import building, checked_config

Frame = tuple[str, Path, np.ndarray]  # name, file and image


def coco_results(
    sample: BaseDataElement,
    name: str,
    image_id: int,
    category_ids: Sequence[int],
    classes: Sequence[str],
) -> list[dict]:
    """What a detector found in one image, in COCO's result format; boxes are x, y, w, h."""
    found = sample.pred_instances.numpy()
    columns = (part.tolist() for part in (found.bboxes, found.scores, found.labels))
    results = [
        coco_result(box, score, category_ids[label], classes[label], name, image_id)
        for box, score, label in zip(*columns, strict=True)
    ]
    if 'masks' in found:
        from pycocotools import mask

        for result, pixels in zip(results, found.masks, strict=True):
            code = mask.encode(np.asfortranarray(pixels, np.uint8))
            result['segmentation'] = dict(code, counts=code['counts'].decode())
    return results


def classification(sample: BaseDataElement, name: str, classes: Sequence[str]) -> dict:
    """The five likeliest classes of an image."""
    scores, labels = sample.pred_score.sort(descending=True)
    return dict(
        file_name=name,
        predictions=[
            dict(category_id=label, category_name=classes[label], score=score)
            for label, score in zip(labels[:5].tolist(), scores[:5].tolist(), strict=True)
        ],
    )


def add_arguments(parser: ArgumentParser) -> None:
    options.add(parser, 'config', help='a config, or an exported file: then no checkpoint')
    options.add(parser, 'checkpoint')
    images = parser.add_argument('images', nargs='*', metavar='IMAGES', help='see above')
    options.complete(images, options.FILE)
    options.add(parser, '--out-dir', required=True, help='folder for the results')
    parser.add_argument(
        '--ann-file',
        metavar='FILE.json',
        help='take image and category ids from '
        'this COCO annotation file (default: images are counted from 1, categories '
        'have the ids of the training file, or are counted too)',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        metavar='X',
        help='draw boxes with at least this score; the file has all (default 0.3)',
    )
    parser.add_argument('--recursive', action='store_true', help='folders in folders, too')
    parser.add_argument(
        '--batch',
        type=int,
        default=1,
        metavar='N',
        help='images that are computed together (default 1)',
    )
    parser.add_argument(
        '--tile',
        metavar='SIZE',
        help='predict in tiles of SIZE pixels, rounded up to what the network needs, or as '
        'large as fits into memory (auto)',
    )
    parser.add_argument(
        '--scale',
        type=float,
        metavar='X',
        help='with --tile: enlarge images so many times (default: scale_factor of the test '
        'pipeline, or 1)',
    )
    parser.add_argument(
        '--halo',
        type=int,
        metavar='PIXELS',
        help='with --tile: how far a tile reaches beyond what is taken of it (default: as far as '
        'the network sees, which is exact)',
    )
    options.add(
        parser,
        '--device',
        '--backbone',
        '--cfg-options',
        '--fuse',
        '--precision',
        '--trust',
        '--no-check',
    )


def load(args: Namespace) -> tuple[Predictor, list[Source]]:
    """The predictor that is asked for, and the images' sources."""
    if is_exported(args.config):
        if args.tile is not None:
            raise UserError('--tile: not for exported files: give config and checkpoint')
        for name in ('fuse', 'backbone', 'cfg_options', 'device'):
            if getattr(args, name):
                raise UserError(f'--{name.replace("_", "-")}: {args.config} is exported, as it is')
        sources = find([args.checkpoint, *args.images], args.recursive)
        predictor = FilePredictor(args.config, precision=args.precision)
        options.tell_precision(args, predictor.runtime.reason)
        return predictor, sources
    cfg = checked_config(args.config, args.cfg_options, args.backbone)
    endings: tuple[str, ...] = IMAGES
    if own_loaders(cfg):
        endings += ('.npy', cfg.test_dataloader.dataset.get('img_suffix', '.npy'))
    sources = find(args.images, args.recursive, endings)
    device = args.device or get_device()
    precision, reason = inference_precision(args.precision or 'f32', device)
    options.tell_precision(args, reason)
    if device == 'cpu':
        keep_freed_memory()
        fit_model_to_cpu(cfg.model)
    with building(cfg.filename):
        fuse = args.fuse and args.tile is None  # else once it is known how far it sees
        return CheckpointPredictor(
            cfg, args.checkpoint, device, args.trust, fuse, not args.no_check, precision
        ), sources


def batches(
    predictor: Predictor, sources: Sequence[Source], size: int, unreadable: list[str]
) -> Iterator[list[Frame]]:
    """Lists of (name, file, image), as many as ``size``; what cannot be read is noted."""
    batch: list[Frame] = []
    need = cache(lambda: measure(lambda *shape: trial(predictor, shape)))
    for source in track(sources, 'Predicting'):
        try:
            if told := too_large(size * pixels_in(source.path), need):
                raise ValueError(f'{told}: --tile auto' + ', or a smaller --batch' * (size > 1))
            for name, image in frames(source, predictor.read, not predictor.own_files):
                batch.append((name, source.path, image))
                if len(batch) == size:
                    yield batch
                    batch = []
        except ValueError as error:
            unreadable.append(f'{source.path} {error}')
    if batch:
        yield batch


def trial(predictor: Predictor, shape: tuple[int, ...]) -> None:
    """What is done with an image, with one of that height and width."""
    image = np.zeros((*shape, predictor.channels), np.uint8)
    predictor.picture(image, predictor([image])[0], 0.3)


def run(args: Namespace) -> None:
    options.require_one_or_more(args, 'batch')
    check_tiles(args)
    predictor, sources = load(args)
    image_ids: dict[Path, int] = {}
    category_ids = predictor.meta.get('category_ids') or range(1, len(predictor.classes) + 1)
    if args.ann_file:
        image_ids, category_ids = read_ids(
            args.ann_file, predictor.classes, [source.path for source in sources]
        )
    out_dir, results, undrawn, number = Path(args.out_dir), [], [], 0
    left_out: list[str] = []
    if args.tile is not None:
        assert isinstance(predictor, CheckpointPredictor)
        job = TiledJob(predictor, out_dir, args.tile, args.scale, args.halo, args.fuse)
        left_out = predict_tiled(job, sources, category_ids, image_ids if args.ann_file else None)
        return tell(left_out)
    for batch in batches(predictor, sources, args.batch, left_out):
        if args.ann_file:
            left_out += [
                f'{name} has no id in {args.ann_file}'
                for name, file, _ in batch
                if file not in image_ids
            ]
            batch = [part for part in batch if part[1] in image_ids]
        for (name, file, image), sample in predicted(predictor, batch, left_out):
            number += 1
            if predictor.scope == 'mmdet':
                results += coco_results(
                    sample, name, image_ids.get(file, number), category_ids, predictor.classes
                )
            elif predictor.scope == 'mmpretrain':
                results.append(classification(sample, name, predictor.classes))
            else:
                path = Path('pred', name).with_suffix('.png')
                with whole_file(out_dir / path) as part:
                    Image.fromarray(sample.pred_sem_seg.data[0].numpy().astype('uint8')).save(part)
                results.append(dict(file_name=name, segmentation=str(path)))
            try:
                with whole_file(out_dir / 'vis' / picture_name(name)) as part:
                    Image.fromarray(predictor.picture(image, sample, args.score_thr)).save(part)
            except Exception as error:  # the prediction is there all the same
                undrawn.append(f'{name} ({type(error).__name__}: {error})')
    path = out_dir / 'predictions.json'
    with whole_file(path) as part:
        part.write_text(
            json.dumps(
                dict(classes=list(predictor.classes), images=results)
                if predictor.scope == 'mmseg'
                else results
            )
        )
    print(f'{number} images: {out_dir / "vis"}, {path}')
    if undrawn:
        print(f'warning: {len(undrawn)} pictures could not be drawn: {first_of(undrawn)}')
    tell(left_out)


def tell(left_out: Sequence[str]) -> None:
    if left_out:
        more = f'; and {len(left_out) - 3} more' if len(left_out) > 3 else ''
        raise UserError(f'left out {len(left_out)} files: {"; ".join(left_out[:3])}{more}')


def check_tiles(args: Namespace) -> None:
    """Raise where the options of tiles are no such."""
    if args.tile is None:
        for name in ('scale', 'halo'):
            if getattr(args, name) is not None:
                raise UserError(f'--{name} {getattr(args, name)}: only with --tile')
    elif args.tile != 'auto' and not (args.tile.isdecimal() and int(args.tile)):
        raise UserError(f'--tile {args.tile}: expected a number of pixels, or auto')
    if args.scale is not None and not 0 < args.scale < math.inf:
        raise UserError(f'--scale {args.scale}: expected a number above 0')
    if args.halo is not None and args.halo < 0:
        raise UserError(f'--halo {args.halo}: expected 0 or more pixels')


def predicted(
    predictor: Predictor, batch: list[Frame], left_out: list[str]
) -> Iterator[tuple[Frame, BaseDataElement]]:
    """(name, file, image) and data sample of each image; where a batch fails, each for itself."""
    try:
        yield from zip(batch, predictor([image for *_, image in batch]), strict=True)
    except UserError:
        raise
    except Exception as error:
        if len(batch) > 1:
            for part in batch:
                yield from predicted(predictor, [part], left_out)
        elif batch:
            left_out.append(f'{batch[0][0]} {type(error).__name__}: {error}')
