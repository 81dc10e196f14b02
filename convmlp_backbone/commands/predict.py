"""Predict on images, and draw what was predicted.

  convmlp predict retinanet_convmlp_s_fpn_coins epoch_80.pth photos/ --out-dir out
  convmlp predict model.onnx photos/ film.mp4 'more/**/*.jpg' list.txt --out-dir out --batch 4

The first takes a config and a checkpoint, the second a file that `convmlp export` wrote. Images are
files, folders, patterns, videos (their frames), text files with such a name a line, and - for one
on the standard input. Those that cannot be read are named at the end, the others are not lost.

Writes DIR/vis/NAME, the image with the prediction drawn in, and DIR/predictions.json: for a
detector a list in COCO's result format, with file and class names besides; for a segmentor the
class names and the files DIR/pred/NAME.png, in which a pixel's value is the index of its class; for
a classifier the five likeliest classes of every image.
"""
import json
from pathlib import Path

import numpy as np
from mmcv import imwrite
from mmengine.device import get_device
from PIL import Image
from rich.progress import track

from ..cpu import fit_model_to_cpu, keep_freed_memory
from ..errors import UserError
from ..hooks import AtomicBackend
from ..inputs import find, frames
from ..predictors import CheckpointPredictor, FilePredictor, is_exported
from . import options
from .models import building, checked_config


def coco_results(sample, name, image_id, category_ids, classes):
    """What a detector found in one image, in COCO's result format; boxes are x, y, w, h."""
    found = sample.pred_instances.numpy()
    results = [
        dict(image_id=image_id, category_id=category_ids[label], score=score,
             bbox=[x1, y1, x2 - x1, y2 - y1], file_name=name, category_name=classes[label])
        for label, score, (x1, y1, x2, y2) in zip(
            found.labels.tolist(), found.scores.tolist(), found.bboxes.tolist(), strict=True)]
    if 'masks' in found:
        from pycocotools import mask
        for result, pixels in zip(results, found.masks, strict=True):
            code = mask.encode(np.asfortranarray(pixels, np.uint8))
            result['segmentation'] = dict(code, counts=code['counts'].decode())
    return results


def classification(sample, name, classes):
    """The five likeliest classes of an image."""
    scores, labels = sample.pred_score.sort(descending=True)
    return dict(file_name=name, predictions=[
        dict(category_id=label, category_name=classes[label], score=score)
        for label, score in zip(labels[:5].tolist(), scores[:5].tolist(), strict=True)])


def read_ids(ann_file, classes):
    """The ids that a COCO annotation file gives to file names and to ``classes``."""
    with open(ann_file) as file:
        coco = json.load(file)
    categories = {category['name']: category['id'] for category in coco['categories']}
    if missing := [name for name in classes if name not in categories]:
        raise UserError(f'{ann_file} has no category {", ".join(missing[:3])}')
    return ({Path(image['file_name']).name: image['id'] for image in coco['images']},
            [categories[name] for name in classes])


def add_arguments(parser):
    options.add(parser, 'config', help='a config, or an exported file: then no checkpoint')
    options.add(parser, 'checkpoint')
    parser.add_argument('images', nargs='*', metavar='IMAGES', help='see above'
                        ).complete = options.FILE
    options.add(parser, '--out-dir', required=True, help='folder for the results')
    parser.add_argument('--ann-file', metavar='FILE.json', help='take image and category ids from '
                        'this COCO annotation file (default: both are counted from 1)')
    parser.add_argument('--score-thr', type=float, default=0.3, metavar='X',
                        help='draw boxes with at least this score; the file has all (default 0.3)')
    parser.add_argument('--recursive', action='store_true', help='folders in folders, too')
    parser.add_argument('--batch', type=int, default=1, metavar='N',
                        help='images that are computed together (default 1)')
    options.add(parser, '--device', '--cfg-options', '--fuse', '--precision', '--trust')


def load(args):
    """The predictor that is asked for, and the images' sources."""
    if is_exported(args.config):
        for name in ('fuse', 'cfg_options', 'device'):
            if getattr(args, name):
                raise UserError(f'--{name.replace("_", "-")}: {args.config} is exported, as it is')
        sources = find([args.checkpoint, *args.images], args.recursive)
        return FilePredictor(args.config, precision=args.precision or 'f32'), sources
    if args.precision:
        raise UserError(f'--precision {args.precision}: only for exported files')
    sources = find(args.images, args.recursive)
    cfg = checked_config(args.config, args.cfg_options)
    device = args.device or get_device()
    if device == 'cpu':
        keep_freed_memory()
        fit_model_to_cpu(cfg.model)
    with building(cfg.filename):
        return CheckpointPredictor(cfg, args.checkpoint, device, args.trust, args.fuse), sources


def batches(sources, size, unreadable):
    """Lists of (name, file, image), as many as ``size``; what cannot be read is noted."""
    batch = []
    for source in track(sources, 'Predicting'):
        try:
            for name, image in frames(source):
                batch.append((name, source.path.name, image))
                if len(batch) == size:
                    yield batch
                    batch = []
        except ValueError as error:
            unreadable.append(f'{source.path} {error}')
    if batch:
        yield batch


def run(args):
    if args.batch < 1:
        raise UserError(f'--batch {args.batch}: expected 1 or more')
    predictor, sources = load(args)
    image_ids, category_ids = {}, range(1, len(predictor.classes) + 1)
    if args.ann_file:
        image_ids, category_ids = read_ids(args.ann_file, predictor.classes)
    out_dir, results, unreadable, number = Path(args.out_dir), [], [], 0
    for batch in batches(sources, args.batch, unreadable):
        if args.ann_file:
            unreadable += [f'{file} has no id in {args.ann_file}' for _, file, _ in batch
                           if file not in image_ids]
            batch = [part for part in batch if part[1] in image_ids]
        for (name, file, image), sample in zip(
                batch, predictor([image for *_, image in batch]), strict=True):
            number += 1
            if predictor.scope == 'mmdet':
                results += coco_results(sample, name, image_ids.get(file, number), category_ids,
                                        predictor.classes)
            elif predictor.scope == 'mmpretrain':
                results.append(classification(sample, name, predictor.classes))
            else:
                path = Path('pred', name).with_suffix('.png')
                (out_dir / path).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(sample.pred_sem_seg.data[0].numpy().astype('uint8')).save(
                    out_dir / path)
                results.append(dict(file_name=name, segmentation=str(path)))
            picture = predictor.picture(image, sample, args.score_thr)
            imwrite(picture[..., ::-1], str(out_dir / 'vis' / name))  # RGB to BGR
    path = out_dir / 'predictions.json'
    AtomicBackend().put_text(json.dumps(
        dict(classes=predictor.classes, images=results) if predictor.scope == 'mmseg'
        else results), path)
    print(f'{number} images: {out_dir / "vis"}, {path}')
    if unreadable:
        raise UserError(f'left out {len(unreadable)} files: {"; ".join(unreadable[:3])}')
