"""Statistics that betray labels which belong to other pixels, or to other classes."""

import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

OBJECTS = 400  # that are looked at
STEPS = np.arange(-4, 5) / 4  # of an object's size: shifts that are tried
SURE = 5  # standard errors
FEW = 8  # objects of a class tell nothing


def open_image(path: Path, mode: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert(mode), np.float64)


def sample_of(coco: dict, count: int = OBJECTS) -> dict[str, list[dict]]:
    """Objects of random images, by image."""
    by_id: dict[int, list[dict]] = {}
    for annotation in coco['annotations']:
        if not annotation['iscrowd'] and min(annotation['bbox'][2:]) >= 4:
            by_id.setdefault(annotation['image_id'], []).append(annotation)
    images = [image for image in coco['images'] if image['id'] in by_id]
    random.Random(0).shuffle(images)
    chosen: dict[str, list[dict]] = {}
    for image in images:
        if count <= 0:
            break
        chosen[image['file_name']] = by_id[image['id']][:50]
        count -= len(chosen[image['file_name']])
    return chosen


def misplaced(root: Path, coco: dict) -> str | None:
    """How the boxes lie beside the objects, in words; None if they do not, or not surely.

    What is in a box differs from what is round it. If on average it differs far more in boxes
    that are moved or mirrored, all in the same way, that is where the objects are.
    """
    chosen = sample_of(coco)
    boxes = [a['bbox'] for part in chosen.values() for a in part]
    if len(boxes) < 3 * FEW:
        return None
    size = float(np.median([np.sqrt(w * h) for _, _, w, h in boxes]))
    moves = [(dx * size, dy * size) for dy in STEPS for dx in STEPS]
    rows = []
    for name, part in chosen.items():
        pixels = open_image(root / name, 'L')
        total = np.pad(pixels.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
        for a in part:
            x, y, w, h = a['bbox']
            box = np.array([x, y, x + w, y + h])
            tried = np.concatenate([box + np.tile(moves, 2), mirrored(box, *pixels.shape)])
            rows.append(contrast(total, tried) / (pixels.std() + 1))
    contrasts = np.array(rows)
    seen = np.isfinite(contrasts).sum(0)
    mean = np.where(2 * seen >= len(rows), np.nansum(contrasts, 0) / np.maximum(seen, 1), 0)
    best, centre = int(mean.argmax()), len(moves) // 2
    gain = contrasts[:, best] - contrasts[:, centre]
    gain = gain[np.isfinite(gain)]
    if (
        len(gain) < 2 * FEW
        or mean[best] < 1.25 * mean[centre]
        or (gain.mean() < SURE * gain.std() / np.sqrt(len(gain)))
    ):
        return None
    if best >= len(moves):
        return MIRRORED[best - len(moves)]
    x, y = moves[best]
    return f'shifted: the objects are about {x:+.0f}, {y:+.0f} pixels (right, down) from them'


MIRRORED = (
    'y, x, height, width: x and y are exchanged',
    'mirrored, left to right',
    'upside down',
    'turned by 180 degrees',
)


def mirrored(box: np.ndarray, height: int, width: int) -> np.ndarray:
    """The boxes that were meant if ``box`` is what :data:`MIRRORED` tells, (4, 4)."""
    x1, y1, x2, y2 = box
    across, down = (width - x2, width - x1), (height - y2, height - y1)
    meant = [(y1, y2), (x1, x2)], [across, (y1, y2)], [(x1, x2), down], [across, down]
    return np.array([(x[0], y[0], x[1], y[1]) for x, y in meant])


def contrast(total: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """How much the mean in a box differs from that of a frame round it, (N, ).

    Args:
        total: (H + 1, W + 1), sums of the pixels above and to the left.
        boxes: (N, 4), x1, y1, x2, y2.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    margin = 0.2 * size.min(1, keepdims=True) * [-1, -1, 1, 1]
    inner, pixels = region(total, boxes)
    outer, more = region(total, boxes + margin)
    with np.errstate(invalid='ignore', divide='ignore'):
        found = np.abs(inner / pixels - (outer - inner) / (more - pixels))
    return np.where((more > pixels) & (pixels > 0.5 * size.prod(1)), found, np.nan)


def region(total: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number of the pixels in boxes, as far as they are in the image."""
    height, width = total.shape[0] - 1, total.shape[1] - 1
    x1, y1, x2, y2 = np.clip(boxes.round(), 0, [width, height] * 2).astype(int).T
    return (
        total[y2, x2] - total[y1, x2] - total[y2, x1] + total[y1, x1],
        ((x2 - x1) * (y2 - y1)).astype(float),
    )


def box_features(root: Path, coco: dict) -> tuple[np.ndarray, np.ndarray]:
    """Size, form and colours of objects, (N, 9), and their classes, (N, )."""
    features, labels = [], []
    for name, part in sample_of(coco, 2 * OBJECTS).items():
        pixels = open_image(root / name, 'RGB')
        for a in part:
            x, y, w, h = a['bbox']
            inside = pixels[max(0, round(y)) : round(y + h), max(0, round(x)) : round(x + w)]
            if inside.size:
                features.append([np.log(w), np.log(h), np.log(w / h), *colours(inside)])
                labels.append(a['category_id'])
    return np.array(features), np.array(labels)


def image_features(root: Path, pairs: list[tuple[str, int]]) -> tuple[np.ndarray, np.ndarray]:
    pairs = random.Random(0).sample(pairs, min(len(pairs), OBJECTS))
    return (
        np.array([[*colours(open_image(root / image, 'RGB'))] for image, _ in pairs]),
        np.array([label for _, label in pairs]),
    )


def colours(pixels: np.ndarray) -> list[float]:
    return [*pixels.mean((0, 1)), *pixels.std((0, 1))]


def exchanged(train: tuple, val: tuple, names: list[str]) -> list[tuple[str, str]]:
    """Pairs (class, the class of the training set that it looks like in the validation set).

    Only what is sure: a naive Bayes of a few features, learned on ``train``, takes most objects of
    these classes of ``val`` for one another, a permutation, and tells them apart on ``train``.
    """
    (x, labels), (y, wanted) = train, val
    classes = [
        i for i in range(len(names)) if (labels == i).sum() >= FEW and (wanted == i).sum() >= FEW
    ]
    if len(classes) < 2:
        return []
    means = np.array([x[labels == i].mean(0) for i in classes])
    spread = np.array([x[labels == i].std(0) for i in classes]) + 0.1 * x.std(0) + 1e-9

    def guess(z):
        scores = -(((z[:, None] - means) / spread) ** 2).sum(-1) / 2 - np.log(spread).sum(-1)
        return np.array(classes)[scores.argmax(1)]

    on_train, on_val = guess(x), guess(y)
    looks = {}
    for i in classes:
        taken = np.bincount(on_val[wanted == i], minlength=len(names))
        most = int(taken.argmax())
        if (
            most != i
            and taken[most] > 0.7 * taken.sum()
            and (on_train[labels == i] == i).mean() > 0.7
        ):
            looks[i] = most
    pairs = {i: j for i, j in looks.items() if set(looks) == set(looks.values())}
    return [(names[i], names[j]) for i, j in pairs.items()]
