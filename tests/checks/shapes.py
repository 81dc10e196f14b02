"""Bright squares and dark discs on noise, as boxes, outlines and masks; and configs for them."""

import json

import numpy as np
from mmengine.config import Config
from PIL import Image, ImageDraw

ARCH = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2)
NAMES = ('square', 'disc')


def make(root, train=6, val=3, size=96, mode='RGB'):
    """COCO files in annotations/, images in train/ and val/, masks of 0, 1 and 2 in masks/."""
    rng, number = np.random.default_rng(0), 0
    for split, count in (('train', train), ('val', val)):
        for folder in (split, f'masks/{split}', 'annotations'):
            (root / folder).mkdir(parents=True, exist_ok=True)
        coco = dict(
            images=[],
            annotations=[],
            categories=[
                dict(id=i, name=name, supercategory='x') for i, name in enumerate(NAMES, 1)
            ],
        )
        for i in range(count):
            image = Image.fromarray(rng.integers(90, 130, (size, size, 3), np.uint8))
            mask = Image.new('L', (size, size))
            coco['images'].append(dict(id=i + 1, file_name=f'{i}.png', width=size, height=size))
            for kind in range(2):
                side = int(rng.integers(30, 44))
                x, y = (int(v) for v in rng.integers(0, size - side, 2))
                box = [x, y, x + side, y + side]
                for target, fill in (
                    (image, ((240, 240, 200), (10, 20, 60))[kind]),
                    (mask, kind + 1),
                ):
                    pen = ImageDraw.Draw(target)
                    (pen.rectangle if kind == 0 else pen.ellipse)(box, fill=fill)
                number += 1
                coco['annotations'].append(
                    dict(
                        id=number,
                        image_id=i + 1,
                        category_id=kind + 1,
                        bbox=[x, y, side, side],
                        area=side * side,
                        iscrowd=0,
                        segmentation=[[x, y, x + side, y, x + side, y + side, x, y + side]],
                    )
                )
            image.convert(mode).save(root / split / f'{i}.png')
            mask.save(root / f'masks/{split}/{i}.png')
        path = root / f'annotations/instances_{split}.json'
        path.write_text(json.dumps(coco))
    return root


def change_coco(root, split, change):
    """Change an annotation file of :func:`make`."""
    path = root / f'annotations/instances_{split}.json'
    coco = json.loads(path.read_text())
    change(coco)
    path.write_text(json.dumps(coco))


def config(base, root, options=None, names=NAMES):
    """A shipped config of the coins for these data, with a tiny network.

    Args:
        base (Path): The shipped config.
        options (dict): As of --cfg-options.
    """
    cfg = Config.fromfile(base)
    segments = cfg.default_scope == 'mmseg'
    if segments:
        names = ('background', *names)
    for split in ('train', 'val', 'test'):
        dataset = cfg[f'{split}_dataloader'].dataset
        dataset.data_root = str(root)
        dataset.metainfo = dict(classes=names)
        if segments:
            dataset.reduce_zero_label = False
            for step in dataset.pipeline:
                if step.type == 'LoadAnnotations':
                    step.reduce_zero_label = False
        elif split != 'train':
            cfg[f'{split}_evaluator'].ann_file = f'{root}/annotations/instances_val.json'
    cfg.model.backbone = dict(type='ConvMLP', arch=ARCH)
    cfg.model.neck.update(in_channels=[8, 8, 16, 24], out_channels=8)
    if segments:
        cfg.model.decode_head.update(in_channels=[8] * 4, channels=8, num_classes=len(names))
    elif 'roi_head' in cfg.model:
        for head in ('bbox_head', 'mask_head'):
            cfg.model.roi_head[head].update(num_classes=len(names))
    else:
        cfg.model.bbox_head.update(
            in_channels=8, feat_channels=8, stacked_convs=1, num_classes=len(names)
        )
    cfg.merge_from_dict(options or {})
    return cfg
