"""Predict on images, and draw what was predicted.

  convmlp predict retinanet_convmlp_s_fpn_coins epoch_80.pth photos/ --out-dir out

Writes DIR/vis/NAME, the image with the prediction drawn in, and DIR/predictions.json: for a
detector a list in COCO's result format, with file and class names besides; for a segmentor the
class names and the files DIR/pred/NAME.png, in which a pixel's value is the index of its class; for
a classifier the five likeliest classes of every image.
"""
import json
import warnings
from collections import Counter
from pathlib import Path

from mmcv import imwrite
from mmengine.device import get_device
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from rich.progress import track

from ..checkpoints import load_model
from ..checks.files import image_problems
from ..cpu import fit_model_to_cpu, keep_freed_memory
from ..errors import UserError
from ..fused import fuse_model
from ..hooks import AtomicBackend
from . import options
from .models import building, checked_config

IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')


def find_images(sources):
    """The image files among ``sources`` and right in the folders among them."""
    images = []
    for source in map(Path, sources):
        if not source.exists():
            raise UserError(f'no image or folder {source}')
        files = sorted(source.iterdir()) if source.is_dir() else [source]
        images += [path for path in files if path == source or path.suffix.lower() in IMAGES]
    if not images:
        raise UserError(f'no images in {", ".join(sources)}; they end in {" ".join(IMAGES)}')
    name, count = Counter(path.stem for path in images).most_common(1)[0]
    if count > 1:
        raise UserError(f'{count} images called {name}: their results would overwrite one another')
    return images


def build_inferencer(cfg, source, device=None, trust=False):
    """The toolbox's inferencer with the weights and class names of a file.

    Where the file has no class names, they are those of the config's data set, or numbers.
    """
    if cfg.get('default_scope') == 'mmseg':
        from mmseg.apis import MMSegInferencer as Inferencer
    elif cfg.get('default_scope') == 'mmpretrain':
        from mmpretrain.apis import ImageClassificationInferencer as Inferencer
    else:
        from mmdet.apis import DetInferencer as Inferencer
    with warnings.catch_warnings(), building(cfg.filename):
        warnings.simplefilter('ignore')  # that it has no weights: they come next, checked
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        inferencer = Inferencer(cfg, device=device or get_device())
    model, dataset = inferencer.model, cfg.test_dataloader.dataset
    inferencer.show_progress = False
    if cfg.get('default_scope') == 'mmpretrain':  # whose data sets cannot be had without the data
        with DATASETS.switch_scope_and_registry(None) as registry:
            known = {'classes': list(map(str, range(model.head.num_classes))),
                     **getattr(registry.get(dataset.type), 'METAINFO', {})}
    else:
        known = DATASETS.build(dict(dataset, lazy_init=True)).metainfo
    names = {key: known[key] for key in ('classes', 'palette') if key in known}
    names.update(load_model(model, source, trust).get('dataset_meta', {}))
    model.dataset_meta, inferencer.classes = names, names['classes']
    if inferencer.visualizer:
        inferencer.visualizer.dataset_meta = names
    return inferencer


def classify(inferencer, path, folder):
    """The five likeliest classes of an image, which is drawn into ``folder``."""
    path = str(path)
    sample, = inferencer.forward(next(inferencer.preprocess([path])))
    inferencer.visualize([path], [sample], show_dir=folder)
    scores, labels = sample.pred_score.sort(descending=True)
    return [dict(category_id=label, category_name=inferencer.classes[label], score=score)
            for label, score in zip(labels[:5].tolist(), scores[:5].tolist(), strict=True)]


def coco_results(prediction, path, image_id, category_ids, classes):
    """What DetInferencer found in one image, in COCO's result format; boxes are x, y, w, h."""
    results = []
    masks = prediction.get('masks', [None] * len(prediction['labels']))
    for label, score, (x1, y1, x2, y2), mask in zip(
            prediction['labels'], prediction['scores'], prediction['bboxes'], masks,
            strict=True):
        result = dict(image_id=image_id, category_id=category_ids[label], score=score,
                      bbox=[x1, y1, x2 - x1, y2 - y1],
                      file_name=path.name, category_name=classes[label])
        results.append(result if mask is None else dict(result, segmentation=mask))
    return results


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
    options.add(parser, 'config', 'checkpoint')
    parser.add_argument('images', nargs='+', metavar='IMAGE_OR_FOLDER', help='photos, or folders '
                        'right in which they lie').complete = options.FILE
    options.add(parser, '--out-dir', required=True, help='folder for the results')
    parser.add_argument('--ann-file', metavar='FILE.json', help='take image and category ids from '
                        'this COCO annotation file (default: both are counted from 1)')
    parser.add_argument('--score-thr', type=float, default=0.3, metavar='X',
                        help='draw boxes with at least this score; the file has all (default 0.3)')
    options.add(parser, '--device', '--cfg-options', '--fuse', '--trust')


def run(args):
    images = find_images(args.images)
    cfg = checked_config(args.config, args.cfg_options)
    if (args.device or get_device()) == 'cpu':
        keep_freed_memory()
        fit_model_to_cpu(cfg.model)
    inferencer = build_inferencer(cfg, args.checkpoint, args.device, args.trust)
    if args.fuse:
        fuse_model(inferencer.model)
    classes = inferencer.model.dataset_meta['classes']
    segments, classifies = (cfg.get('default_scope') == scope for scope in ('mmseg', 'mmpretrain'))
    image_ids = {path.name: i for i, path in enumerate(images, 1)}
    category_ids = range(1, len(classes) + 1)
    if args.ann_file:
        image_ids, category_ids = read_ids(args.ann_file, classes)

    out_dir, results, unreadable = Path(args.out_dir), [], []
    for folder in ('vis', 'pred') if segments else ('vis',):
        Path(out_dir, folder).mkdir(parents=True, exist_ok=True)
    options = {} if segments else dict(pred_score_thr=args.score_thr)
    for path in track(images, 'Predicting'):
        errors = [text for severity, text in image_problems(path) if severity == 'error']
        if path.name not in image_ids:
            errors = [f'has no id in {args.ann_file}']
        if errors:
            unreadable.append(f'{path.name} {errors[0]}')
            continue
        if classifies:
            results.append(dict(file_name=path.name,
                                predictions=classify(inferencer, path, out_dir / 'vis')))
            continue
        output = inferencer(str(path), return_vis=True, **options)
        prediction, picture = output['predictions'], output['visualization']
        if segments:
            Image.fromarray(prediction.astype('uint8')).save(out_dir / 'pred' / f'{path.stem}.png')
            results.append(dict(file_name=path.name, segmentation=f'pred/{path.stem}.png'))
        else:
            prediction, picture = prediction[0], picture[0]
            results += coco_results(
                prediction, path, image_ids[path.name], category_ids, classes)
        imwrite(picture[..., ::-1], str(out_dir / 'vis' / path.name))  # RGB to BGR
    path = out_dir / 'predictions.json'
    AtomicBackend().put_text(
        json.dumps(dict(classes=classes, images=results) if segments else results), path)
    print(f'{len(images) - len(unreadable)} images: {out_dir / "vis"}, {path}')
    if unreadable:
        raise UserError(f'left out {len(unreadable)} files: {"; ".join(unreadable[:3])}')
