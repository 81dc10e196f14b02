"""Look at all the data before a long training.

  convmlp check_dataset retinanet_convmlp_s_fpn_1x_coco --data-root data/coco

Reads every image and annotation of the config's training and validation set as the training will,
reports each problem with its file and id, and draws 16 training samples as the model sees them.
Ends with status 1 if training would fail or learn something wrong.
"""
import multiprocessing
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image, ImageDraw
from rich.progress import track

from ..checks.files import coco_problems, image_problems
from ..config import datasets
from ..errors import UserError
from . import options
from .models import load_config

SHEET = 16  # samples
CELL, GAP = 320, 6  # pixels: height and width of a sample on the sheet, distance to the next

_dataset = _num_classes = None  # of this process; the pool's workers inherit them


def sample_problems(index):
    """Problems of the sample ``index``: its files are read and its pipeline is run."""
    info = _dataset.get_data_info(index)
    path = info.get('img_path')
    where = f'{path} (id {info.get("img_id", index)})'
    size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
    problems = [(severity, where, text)
                for severity, text in (image_problems(path, size) if path else [])]
    map_path = info.get('seg_map_path')
    if map_path and not problems:
        with Image.open(path) as image:
            problems = [(severity, f'{map_path} of {where}', text)
                        for severity, text in image_problems(map_path, image.size)
                        if severity == 'error']
    try:
        sample = _dataset.prepare_data(index)
        texts = [] if sample is None else label_problems(sample['data_samples'], _num_classes)
    except Exception as error:  # whatever the toolbox raises would end the training too
        texts = [f'{type(error).__name__}: {str(error) or "no message"}'.split('\n')[0]]
    return problems + [('error', where, text) for text in texts]


def label_problems(sample, num_classes):
    """What is wrong with the labels of a data sample that is ready for the model."""
    texts = []
    if 'gt_instances' in sample:
        boxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
        boxes = getattr(boxes, 'tensor', boxes)
        if not torch.isfinite(boxes).all():
            texts.append('has a box that is not finite')
        wrong = labels[(labels < 0) | (labels >= num_classes)]
    elif 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.data
        wrong = labels[((labels < 0) | (labels >= num_classes)) & (labels != 255)]
    else:
        labels = sample.get('gt_label', torch.zeros(0))
        wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        texts.append(f'has the class index {sorted(set(wrong.tolist()))[:3]}; the model has '
                     f'{num_classes} classes')
    return texts


def walk(dataset, num_classes, split, processes):
    """Problems of all samples of a data set, found by several processes."""
    global _dataset, _num_classes
    _dataset, _num_classes = dataset, num_classes
    problems = []
    # fork: a data set need not be picklable.
    with multiprocessing.get_context('fork').Pool(processes, torch.set_num_threads, [1]) as pool:
        found = pool.imap_unordered(sample_problems, range(len(dataset)), chunksize=4)
        for part in track(found, f'Checking {split}', total=len(dataset)):
            problems += part
    return problems


def model_classes(model):
    """The number of classes of a model's config: that of the first head that tells it."""
    if isinstance(model, dict):
        if 'num_classes' in model and ('loss_cls' in model or 'loss_decode' in model
                                       or 'loss' in model):
            return model['num_classes']
        model = model.values()
    if isinstance(model, (str, bytes)) or not hasattr(model, '__iter__'):
        return None
    return next((n for n in map(model_classes, model) if n is not None), None)


def draw(sample, classes, bgr):
    """The image of a sample with its boxes, masks or map, as a picture CELL x CELL."""
    pixels = sample['inputs'].numpy()[::-1 if bgr else 1].transpose(1, 2, 0).astype(np.uint8)
    truth = sample['data_samples']
    masks, boxes, names = [], [], []
    if 'gt_instances' in truth:
        instances = truth.gt_instances
        boxes = getattr(instances.bboxes, 'tensor', instances.bboxes).tolist()
        names = [classes[i] if len(classes) > 1 else '' for i in instances.labels]
        masks = list(instances.masks.masks) if hasattr(
            instances.get('masks', None), 'masks') else []
    elif 'gt_sem_seg' in truth:
        labels = truth.gt_sem_seg.data[0].numpy()
        masks = [labels == i for i in np.unique(labels[labels != 255])]
    colours = [tuple(Image.new('HSV', (1, 1), (i * 97 % 256, 200, 230)).convert('RGB')
                     .getpixel((0, 0))) for i in range(max(len(masks), len(boxes), 1))]
    for mask, colour in zip(masks, colours, strict=False):
        mask = np.asarray(mask, bool)
        pixels[mask] = (0.6 * pixels[mask] + 0.4 * np.array(colour)).astype(np.uint8)
    picture = Image.fromarray(pixels)
    scale = CELL / max(picture.size)
    picture = picture.resize([max(1, round(side * scale)) for side in picture.size])
    pen = ImageDraw.Draw(picture)
    for box, name, colour in zip(boxes, names, colours, strict=False):
        pen.rectangle([v * scale for v in box], outline=colour, width=2)
        pen.text((box[0] * scale + 3, box[1] * scale + 1), name, fill='white',
                 stroke_width=1, stroke_fill='black')
    if 'gt_label' in truth:
        pen.text((3, 1), str([classes[i] for i in truth.gt_label.tolist()]), fill='red')
    return picture


def draw_sheet(dataset, classes, bgr, path):
    """Draw SHEET samples, spread over the data set, on one picture."""
    side = round(SHEET ** 0.5)
    sheet = Image.new('RGB', (side * (CELL + GAP),) * 2, 'white')
    for place, index in enumerate(np.linspace(0, len(dataset) - 1, SHEET).astype(int)):
        picture = draw(dataset[int(index)], classes, bgr)
        sheet.paste(picture, (place % side * (CELL + GAP), place // side * (CELL + GAP)))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def add_arguments(parser):
    parser.add_argument('--processes', type=int, default=multiprocessing.cpu_count(),
                        help='that read the data (default: one a core)')
    options.add(parser, 'config', *options.JOB)


def run(args):
    cfg = load_config(args, splits=['train', 'val'])
    init_default_scope(cfg.default_scope)
    problems, count = [], 0
    num_classes, sheet = model_classes(cfg.model), Path(cfg.work_dir, 'samples.png')
    for split in ('train', 'val'):
        part = cfg[f'{split}_dataloader'].dataset
        for source in datasets(part):
            if str(source.get('ann_file', '')).endswith('.json'):
                problems += coco_problems(Path(source.data_root or '', source.ann_file),
                                          source.get('metainfo', {}).get('classes'))
        try:
            dataset = DATASETS.build(part)
        except Exception as error:  # as above
            problems.append(('error', split, f'{type(error).__name__}: {error}'.split('\n')[0]))
            continue
        count += len(dataset)
        problems += walk(dataset, num_classes, split, args.processes)
        if split == 'train' and not any(severity == 'error' for severity, *_ in problems):
            classes = dataset.metainfo['classes']
            draw_sheet(dataset, classes, cfg.model.data_preprocessor.get('bgr_to_rgb'), sheet)
            print(f'samples as the model sees them: {sheet}')
    for severity, where, text in dict.fromkeys(problems):
        print(f'{severity}: {where} {text}')
    counts = Counter(severity for severity, *_ in dict.fromkeys(problems))
    print(f'{count} samples, {counts["error"]} errors, {counts["warning"]} warnings')
    if counts['error']:
        raise UserError('training would fail or learn something wrong')
