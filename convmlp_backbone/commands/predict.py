"""Predict on images, and draw what was predicted.

  convmlp predict retinanet_convmlp_s_fpn_coins epoch_80.pth photos/ --out-dir out

Writes DIR/vis/NAME, the image with the prediction drawn in (NAME.png where its format takes no
colours; below its folders where two have one name), and DIR/predictions.json: for a detector a list
in COCO's result format, with file and class names besides; for a segmentor the class names and the
files DIR/pred/NAME.png, in which a pixel's value is the index of its class.
"""
import json
import warnings
from pathlib import Path

from mmengine.device import get_device
from mmengine.registry import DATASETS
from PIL import Image
from rich.progress import track

from ..checkpoints import load_model
from ..checks.contract import numbering
from ..checks.datasets import class_of, classes_of, leaves, scope_of
from ..checks.image_ids import read_ids
from ..checks.images import image_problems
from ..checks.names import full_palette
from ..checks.problem import first_of
from ..config import read_config, walk
from ..cpu import fit_model_to_cpu, keep_freed_memory
from ..errors import UserError
from ..files import whole_file
from ..fused import fuse_model
from ..pictures import distinct_names, picture_name, with_suffix
from . import options

IMAGES = ('.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')


def find_images(sources):
    """The image files among ``sources`` and right in the folders among them."""
    images = []
    for source in map(Path, sources):
        if not source.exists():
            raise UserError(f'no image or folder {source}')
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        images += [path for path in files if path == source or path.is_file() and (
            path.suffix.lower() in IMAGES or not path.suffix and is_image(path))]
    if not images:
        raise UserError(f'no images in {", ".join(sources)}; they end in {" ".join(IMAGES)}')
    return list({path.resolve(): path for path in images}.values())


def is_image(path):
    try:
        with Image.open(path):
            return True
    except OSError:
        return False


def build_inferencer(cfg, source, device=None, trust=False):
    """MMDetection's or MMSegmentation's inferencer with the weights and class names of a file,
    and an id for the category of each class.

    Where the file has no class names, they are those of the config's data set. The names are in
    the order of the numbers that were learned, see :func:`..checks.contract.numbering`.
    """
    if cfg.get('default_scope') == 'mmseg':
        from mmseg.apis import MMSegInferencer as Inferencer
    elif cfg.get('default_scope') == 'mmdet':
        from mmdet.apis import DetInferencer as Inferencer
    else:
        raise UserError('predict takes detectors and segmentors; for a classifier: convmlp test '
                        'CONFIG CHECKPOINT --show-dir DIR')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # that it has no weights: they come next, checked
        inferencer = Inferencer(cfg, device=device)
    inferencer.show_progress = False
    _, leaf = next(leaves(cfg.test_dataloader.dataset))
    with scope_of(cfg):
        kind = class_of(leaf)
        own = DATASETS.build(dict(leaf, lazy_init=True)).metainfo
    meta = load_model(inferencer.model, source, trust).get('dataset_meta') or {}
    names, ids = numbering(cfg, meta)
    classes = list(names or own['classes'])
    colours = dict(zip(meta.get('classes') or classes_of(leaf, kind),
                       meta.get('palette') or own.get('palette') or (), strict=False))
    palette = full_palette([colours[name] for name in classes if name in colours]
                           if not isinstance(own.get('palette'), str) else (), len(classes))
    inferencer.model.dataset_meta = inferencer.visualizer.dataset_meta = dict(
        classes=tuple(classes), palette=palette)
    return inferencer, ids or range(1, len(classes) + 1)


def coco_results(prediction, name, image_id, category_ids, classes):
    """What DetInferencer found in one image, in COCO's result format; boxes are x, y, w, h."""
    results = []
    masks = prediction.get('masks', [None] * len(prediction['labels']))
    for label, score, (x1, y1, x2, y2), mask in zip(
            prediction['labels'], prediction['scores'], prediction['bboxes'], masks,
            strict=True):
        result = dict(image_id=image_id, category_id=category_ids[label], score=score,
                      bbox=[x1, y1, x2 - x1, y2 - y1],
                      file_name=name, category_name=classes[label])
        results.append(result if mask is None else dict(result, segmentation=mask))
    return results


def add_arguments(parser):
    options.add(parser, 'config', 'checkpoint')
    parser.add_argument('images', nargs='+', metavar='IMAGE_OR_FOLDER')
    options.add(parser, '--out-dir', required=True)
    parser.add_argument('--ann-file', metavar='FILE.json', help='take image and category ids from '
                        'this COCO annotation file (default: images are counted from 1, categories '
                        'have the ids of the training file, or are counted too)')
    parser.add_argument('--score-thr', type=float, default=0.3, metavar='X',
                        help='draw boxes with at least this score; the file has all (default 0.3)')
    options.add(parser, '--device', '--cfg-options', '--fuse', '--trust', '--no-check')


def run(args):
    images = find_images(args.images)
    cfg = read_config(args.config, args.cfg_options)
    if (args.device or get_device()) == 'cpu':
        keep_freed_memory()
        fit_model_to_cpu(cfg.model)
    inferencer, category_ids = build_inferencer(cfg, args.checkpoint, args.device, args.trust)
    if args.fuse:
        fuse_model(inferencer.model)
    classes = list(inferencer.model.dataset_meta['classes'])
    segments = cfg.get('default_scope') == 'mmseg'
    if not args.no_check:
        check_classes(cfg, classes)
    image_ids = {path: i for i, path in enumerate(images, 1)}
    if args.ann_file:
        image_ids, category_ids = read_ids(args.ann_file, classes, images)

    out_dir, results, left_out, undrawn = Path(args.out_dir), [], [], []
    names = distinct_names(images)
    options = {} if segments else dict(pred_score_thr=args.score_thr)
    for path, name, map_name in track(list(zip(
            images, names, with_suffix(names, '.png'), strict=True)), 'Predicting'):
        try:
            if path not in image_ids:
                raise UserError(f'has no id in {args.ann_file}')
            for severity, text in image_problems(path):
                if severity == 'error':
                    raise UserError(text)
            prediction, picture = infer(inferencer, path, options)
            if segments:
                file = Path('pred', map_name)
                with whole_file(out_dir / file) as part:
                    Image.fromarray(prediction.astype('uint8')).save(part)
                results.append(dict(file_name=name, segmentation=str(file)))
            else:
                results += coco_results(
                    prediction, name, image_ids[path], category_ids, classes)
        except Exception as error:  # the others are worth their time
            left_out.append(f'{name} {error}')
            continue
        try:
            with whole_file(out_dir / 'vis' / picture_name(name)) as part:
                Image.fromarray(picture()).save(part)
        except Exception as error:
            undrawn.append(f'{name} ({type(error).__name__}: {error})')
    path = out_dir / 'predictions.json'
    with whole_file(path) as part:
        part.write_text(json.dumps(dict(classes=classes, images=results) if segments else results))
    print(f'{len(images) - len(left_out)} images: {out_dir / "vis"}, {path}')
    if undrawn:
        print(f'warning: {len(undrawn)} pictures could not be drawn: {first_of(undrawn)}')
    if left_out:
        raise UserError(f'left out {len(left_out)} files: {"; ".join(left_out[:3])}')


def infer(inferencer, path, options):
    """What a model finds in an image, and a function that draws it, which may fail."""
    def only(output, key):
        return output[key][0] if isinstance(output[key], list) else output[key]
    try:
        output = inferencer(str(path), return_vis=True, **options)
        return only(output, 'predictions'), lambda: only(output, 'visualization')
    except Exception as error:  # of the model, or of the picture only
        problem = error
        output = inferencer(str(path), return_vis=False, **options)

        def fail():
            raise problem
        return only(output, 'predictions'), fail


def check_classes(cfg, classes):
    """Raise where a head of the model has another number of classes than there are names."""
    for path, head in walk(cfg.model, 'model'):
        number = head.get('num_classes')
        if isinstance(number, int) and 'preprocessor' not in path and number != len(classes):
            raise UserError(f'{path}.num_classes={number}, and the checkpoint has the classes '
                            f'{first_of(classes, 5)}: take the config that it was trained with')
