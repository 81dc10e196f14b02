"""Make a COCO-format data set of nuclei: ``make_nuclei_dataset.py STAGE1_TRAIN DIR``.

STAGE1_TRAIN is the unpacked stage1_train.zip of https://bbbc.broadinstitute.org/BBBC038 (Data
Science Bowl 2018, CC0): a folder per image with images/*.png and a mask per nucleus, masks/*.png.
Taken are 100 of its 256x256 micrographs with a dark background, 80 to train, 20 to validate.
"""

import argparse
import os
import random
import shutil
from pathlib import Path

import numpy as np
from make_coins_dataset import write_split
from skimage import io

from convmlp_backbone.errors import UserError, one_line_errors

SIZE, NUM_TRAIN, NUM_VAL = (256, 256), 80, 20
MIN_AREA = 10  # pixels; less is a slip of the annotator


def read_piece(folder):
    """Grey image and label image (0 = background) of an image's folder; None if not of the kind."""
    photo = io.imread(next((folder / 'images').glob('*.png')))[..., :3].mean(axis=2)
    if photo.shape != SIZE or photo.mean() > 128:
        return None
    labels = np.zeros(SIZE, int)
    for number, mask in enumerate(sorted((folder / 'masks').glob('*.png')), 1):
        mask = io.imread(mask)
        labels[(mask if mask.ndim == 2 else mask[..., 0]) > 0] = number
    return photo.astype(np.uint8), labels


def make(source, root):
    """Make the data set in the folder ``root``, all of it or nothing."""
    folders = sorted(path.parent for path in source.glob('*/images'))
    if root.exists() or not folders:
        raise UserError(
            f'{root} is there already'
            if root.exists()
            else f'{source} has no folders with images/; unpack stage1_train.zip there'
        )
    random.Random(0).shuffle(folders)
    pieces = []
    for folder in folders:
        if (piece := read_piece(folder)) is not None:
            pieces.append(piece)
        if len(pieces) == NUM_TRAIN + NUM_VAL:
            break
    unfinished = Path(f'{root}.unfinished')
    shutil.rmtree(unfinished, ignore_errors=True)
    for split, part in (('train', pieces[NUM_VAL:]), ('val', pieces[:NUM_VAL])):
        number = write_split(unfinished, split, part, 'nucleus', MIN_AREA)
        print(f'{split}: {len(part)} images, {number} nuclei')
    os.replace(unfinished, root)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('source', type=Path, metavar='STAGE1_TRAIN')
    parser.add_argument('root', type=Path, nargs='?', default='data/nuclei', metavar='DIR')
    args = parser.parse_args()
    with one_line_errors():
        make(args.source, args.root)
