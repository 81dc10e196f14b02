"""A large image with known objects, and the AP of predictions on it: docs/large_images.md.

``make`` puts the images of a COCO data set, all of one size, beside each other, turned and mirrored
at random, as a TIFF with its annotation file. ``score`` tells the AP of predictions on it, each of
the pieces being an image: in one of 100,000 objects COCO's AP has no meaning.
"""

import argparse
import contextlib
import io
import json
from pathlib import Path

import numpy as np
import tifffile
from faster_coco_eval import COCO, COCOeval_faster
from PIL import Image

from convmlp_backbone.errors import UserError, one_line_errors


def turned(box, turns, mirrored, side):
    """A box x, y, w, h in an image of that side after ``np.rot90(image, turns)`` and a mirror."""
    x, y, w, h = box
    for _ in range(turns):
        x, y, w, h = y, side - x - w, h, w
    return [side - x - w if mirrored else x, y, w, h]


def make(ann_file, folder, size, path, enlarge, compressed):
    source = json.loads(ann_file.read_text())
    images = [
        Image.open(folder / Path(image['file_name']).name).convert('RGB')
        for image in source['images']
    ]
    sides = {side for image in images for side in image.size}
    if len(sides) != 1 or (side := sides.pop() * enlarge) > size or side % 16:
        raise UserError(f'{ann_file}: expected square images of one size, a multiple of 16')
    pixels = [np.asarray(image.resize((side, side), Image.Resampling.BILINEAR)) for image in images]
    ids = [image['id'] for image in source['images']]
    boxes = {id_: [a for a in source['annotations'] if a['image_id'] == id_] for id_ in ids}
    rng, whole, annotations, order = np.random.default_rng(0), size // side, [], []

    def pieces():
        for row in range(-(-size // side)):
            for column in range(-(-size // side)):
                if max(row, column) >= whole:  # which would not be a whole piece
                    yield np.zeros((side, side, 3), np.uint8)
                    continue
                if not order:
                    order.extend(rng.permutation(len(ids)).tolist())
                number, turns, mirrored = order.pop(), int(rng.integers(4)), bool(rng.integers(2))
                piece = np.rot90(pixels[number], turns)
                for annotation in boxes[ids[number]]:
                    box = [value * enlarge for value in annotation['bbox']]
                    x, y, w, h = turned(box, turns, mirrored, side)
                    annotations.append(
                        dict(
                            id=len(annotations) + 1,
                            image_id=1,
                            category_id=annotation['category_id'],
                            bbox=[x + column * side, y + row * side, w, h],
                            area=annotation['area'] * enlarge**2,
                            iscrowd=annotation.get('iscrowd', 0),
                        )
                    )
                yield np.ascontiguousarray(piece[:, ::-1] if mirrored else piece)

    tifffile.imwrite(
        path,
        pieces(),
        shape=(size, size, 3),
        dtype=np.uint8,
        tile=(side, side),
        photometric='rgb',
        compression='zlib' if compressed else None,
        bigtiff=size * size * 3 > 1 << 31,
    )
    image = dict(id=1, file_name=path.name, width=size, height=size)
    truth = dict(
        info=dict(piece=side),
        images=[image],
        annotations=annotations,
        categories=source['categories'],
    )
    path.with_suffix('.json').write_text(json.dumps(truth))
    print(f'{path}: {whole**2} images, {len(annotations)} objects; {path.with_suffix(".json")}')


def score(truth, predictions):
    """COCO's AP and AP50, without a limit of predictions; a piece has what has its centre there."""
    truth, found = (json.loads(path.read_text()) for path in (truth, predictions))
    if not isinstance(found, list) or 'piece' not in truth.get('info', {}):
        raise UserError('expected the annotation file of a mosaic, and predictions of a detector')
    side, (image,) = truth['info']['piece'], truth['images']
    across = image['width'] // side

    def piece(box):
        column, row = (min(int((box[i] + box[i + 2] / 2) // side), across - 1) for i in (0, 1))
        return row * across + column

    for item in truth['annotations'] + found:
        item['image_id'] = piece(item['bbox'])
    truth['images'] = [dict(image, id=i) for i in range(across**2)]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval_faster(coco, coco.loadRes(found), 'bbox')
        evaluation.params.maxDets = [1, 10, 10_000]
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision'][..., 0, -1]
    print(f'AP {precision.mean():.4f}, AP50 {precision[0].mean():.4f}; {len(found)} predictions')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    commands = parser.add_subparsers(required=True, dest='command')
    sub = commands.add_parser('make')
    sub.add_argument('ann_file', type=Path, metavar='INSTANCES.json')
    sub.add_argument('folder', type=Path, metavar='IMAGES')
    sub.add_argument('size', type=int, help='pixels, of both sides')
    sub.add_argument('path', type=Path, metavar='OUT.tif', help='and OUT.json')
    sub.add_argument('--enlarge', type=int, default=1, metavar='N', help='pieces, so many times')
    sub.add_argument('--uncompressed', dest='compressed', action='store_false')
    sub = commands.add_parser('score')
    sub.add_argument('truth', type=Path, metavar='MOSAIC.json')
    sub.add_argument('predictions', type=Path, metavar='PREDICTIONS.json')
    args = vars(parser.parse_args())
    with one_line_errors():
        dict(make=make, score=score)[args.pop('command')](**args)
