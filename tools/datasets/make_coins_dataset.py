"""Make the coins data set from scikit-image's photograph: ``make_coins_dataset.py DIR``.

24 Greek coins from Pompeii. The left part of the photograph gives the training images, random
crops of it; the right part is untouched and is the validation image. Layout: COCO annotation files
with boxes and masks in annotations/, images in train/ and val/, semantic maps in masks/ by
ADE20K's convention (0 unlabelled, 1 background, 2 coin).
"""

import argparse
import json
import os
import shutil
from pathlib import Path

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage
from skimage import data, filters, io, measure, segmentation

SPLIT_COLUMN = 250  # cuts one coin in two; each half is annotated as far as it is seen
NUM_CROPS = 32
CROP_SIZE = 250  # pixels: all of the training part's width, so the crops differ in height only
MIN_AREA = 150  # pixels; a smaller piece of a coin at the edge of a crop is background


def segment(photo):
    """Label image (H, W) of the coins in a photograph (H, W), 0 = background."""
    # The light is uneven, so the watershed floods the edges from sure seeds on both sides.
    seeds = np.zeros(photo.shape, dtype=int)
    seeds[photo < 30] = 1
    seeds[photo > 150] = 2
    coins = ndimage.binary_fill_holes(segmentation.watershed(filters.sobel(photo), seeds) == 2)
    return measure.label(ndimage.binary_opening(coins, iterations=2))


def crops(labels, rng):
    """Top and left of ``NUM_CROPS`` random crops of the training part."""
    for _ in range(NUM_CROPS):
        yield (
            rng.integers(labels.shape[0] - CROP_SIZE + 1),
            rng.integers(SPLIT_COLUMN - CROP_SIZE + 1),
        )


def annotations(labels, image_id, min_area):
    """COCO annotations of the objects in a label image that have ``min_area`` pixels."""
    for label in np.unique(labels[labels > 0]):
        mask = labels == label
        if mask.sum() < min_area:
            continue
        rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        yield dict(
            image_id=image_id,
            category_id=1,
            iscrowd=0,
            area=int(mask.sum()),
            bbox=coco_mask.toBbox(rle).tolist(),
            segmentation=dict(size=rle['size'], counts=rle['counts'].decode()),
        )


def write_split(root, split, pieces, name='coin', min_area=MIN_AREA):
    """Write images, semantic maps and the annotation file of (photo, labels) pieces."""
    for folder in (root / split, root / 'masks' / split, root / 'annotations'):
        folder.mkdir(parents=True, exist_ok=True)
    # MMDetection's analysis of errors asks for the supercategory.
    category = dict(id=1, name=name, supercategory='none')
    coco = dict(images=[], annotations=[], categories=[category])
    for image_id, (photo, labels) in enumerate(pieces):
        file_name = f'{image_id:02d}.png'
        coco['images'].append(
            dict(id=image_id, file_name=file_name, height=photo.shape[0], width=photo.shape[1])
        )
        coco['annotations'] += annotations(labels, image_id, min_area)
        io.imsave(root / split / file_name, np.stack([photo] * 3, -1), check_contrast=False)
        io.imsave(
            root / 'masks' / split / file_name,
            np.where(labels > 0, 2, 1).astype(np.uint8),
            check_contrast=False,
        )
    for number, annotation in enumerate(coco['annotations'], 1):
        annotation['id'] = number
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(coco))
    return len(coco['annotations'])


def make(root):
    """Make the data set in the folder ``root``, all of it or nothing; leave one that is there."""
    if root.exists():
        print(f'{root} is there already; delete it to make it again')
        return
    photo = data.coins()
    labels = segment(photo)
    rng = np.random.default_rng(0)
    unfinished = Path(f'{root}.unfinished')
    shutil.rmtree(unfinished, ignore_errors=True)
    train = [
        (photo[y : y + CROP_SIZE, x : x + CROP_SIZE], labels[y : y + CROP_SIZE, x : x + CROP_SIZE])
        for y, x in crops(labels, rng)
    ]
    val = [(photo[:, SPLIT_COLUMN:], labels[:, SPLIT_COLUMN:])]
    counts = write_split(unfinished, 'train', train), write_split(unfinished, 'val', val)
    os.replace(unfinished, root)
    print(
        f'{root}: {len(train)} training crops with {counts[0]} coins, '
        f'1 validation image with {counts[1]} coins'
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('root', nargs='?', default='data/coins', help='folder to make')
    make(Path(parser.parse_args().root))
