"""Values of a config from the data, the machine and the time: each with why it was taken."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

# RetinaNet's anchors at octave_base_scale 1: three to each octave on the strides 8 to 128; the
# RPN's at scale 1 on the strides 4 to 64.
RETINA = [stride * 2 ** (i / 3) for stride in (8, 16, 32, 64, 128) for i in range(3)]
RPN = [4.0, 8.0, 16.0, 32.0, 64.0]
USUAL = [0.5, 1.0, 2.0]  # height to width
WANTED = 16  # pixels that a small object should have: two cells of the finest level
LARGEST = 2.0  # times: what an image is enlarged at most, as nothing is added to what is seen
LIMITS = dict(cpu=640, cuda=1333)  # pixels of the longer side, if no object gets too small by it
LEAST = 20  # validation images
CROPS = dict(cpu=320, cuda=1024)  # pixels, side of a training crop where it pays


@dataclass
class Plan:
    """What a config is made of: ``values`` by name, and ``why`` by the same names."""

    values: dict[str, Any] = field(default_factory=dict)
    why: dict[str, str] = field(default_factory=dict)

    def set(self, name: str, value: Any, why: str = '') -> None:
        self.values[name], self.why[name] = value, why

    def __getitem__(self, name: str) -> Any:
        return self.values[name]


def to_32(pixels: float) -> int:
    """The nearest multiple of 32, the network's coarsest stride."""
    return max(32, round(pixels / 32) * 32)


def object_sizes(coco: dict) -> np.ndarray:
    """Width and height in pixels of the objects to learn, (N, 2)."""
    sides = [a['bbox'][2:] for a in coco['annotations'] if not a['iscrowd']]
    boxes = np.array(sides, float).reshape(-1, 2)
    return boxes[(boxes >= 1).all(1)]


def image_scale(sizes: np.ndarray, long_side: float, device: str) -> tuple[float, str]:
    """Factor by which images are enlarged or made smaller.

    Args:
        sizes: Of objects, (N, 2), pixels.
        long_side: Median of the images' longer sides, pixels.
        device: ``'cpu'`` or ``'cuda'``.
    """
    small = float(np.quantile(np.sqrt(sizes.prod(1)), 0.1))
    factor = min(LARGEST, max(1.0, WANTED / small))
    why = f'a tenth of the objects is smaller than {small:.0f} pixels' + (
        '' if factor == 1 else f'; {WANTED} are two cells of the finest level'
    )
    limit = LIMITS[device]
    if long_side * factor > limit:
        # Nothing is gained by many pixels of large objects; small ones need theirs.
        least = min(factor, WANTED / small)
        factor = max(limit / long_side, least)
        why += (
            f', and {limit} pixels are enough'
            if factor > least
            else ', so the images are not made smaller'
        )
    return to_32(long_side * factor) / long_side, why


def overlaps(sizes: np.ndarray, sides: list[float], ratios: list[float]) -> np.ndarray:
    """Best overlap (IoU) of each object with an anchor at the same place, (N, )."""
    roots = np.sqrt(np.array(ratios))
    anchors = np.stack([np.outer(sides, 1 / roots).ravel(), np.outer(sides, roots).ravel()], -1)
    both = np.minimum(sizes[:, None], anchors).prod(-1)
    return (both / (sizes.prod(1)[:, None] + anchors.prod(1) - both)).max(1)


def anchors(sizes: np.ndarray, sides: list[float], usual: float) -> tuple[float, list, str]:
    """Scale and ratios (height to width) of anchors that overlap the objects best.

    Args:
        sizes: Of objects in the resized image, (N, 2), pixels.
        sides: Sides of the anchors at scale 1, pixels.
        usual: The usual scale, which is taken where others are not clearly better.
    """
    own = [
        float(f'{2**form:.2g}')
        for form in np.quantile(np.log2(sizes[:, 1] / sizes[:, 0]), [0.1, 0.5, 0.9])
    ]
    # Small scales last: they put objects on coarser levels, where they are less well located.
    scales = [usual, usual * 3 / 4, usual / 2, usual / 4, usual * 2]

    def hit(scale, ratios):  # as they match in training, from 0.5 on
        return float(np.clip(overlaps(sizes, [s * scale for s in sides], ratios), 0, 0.6).mean())

    forms = [USUAL, own] if len(set(own)) == 3 else [USUAL]
    hits = {(scale, i): hit(scale, forms[i]) for i in range(len(forms)) for scale in scales}
    scale, form = next(key for key, value in hits.items() if value > max(hits.values()) - 0.02)
    ratios = forms[form]
    share = (overlaps(sizes, [s * scale for s in sides], ratios) >= 0.5).mean()
    text = f'{share:.0%} of the objects overlap an anchor by half'
    if (scale, form) != (usual, 0):
        before = (overlaps(sizes, [s * usual for s in sides], USUAL) >= 0.5).mean()
        text += f', {before:.0%} with the usual ones'
    return (int(scale) if scale == int(scale) else scale), ratios, text


def crop_size(sizes: np.ndarray, image: tuple[float, float], device: str) -> tuple[int | None, str]:
    """Side of the square that is cut out of an image in training, None for the whole image.

    Args:
        sizes: Of objects in the resized image, (N, 2), pixels.
        image: Width and height of the resized image, pixels.
    """
    large = float(np.quantile(np.sqrt(sizes.prod(1)), 0.9)) if len(sizes) else 0
    side = to_32(max(CROPS[device], 6 * large))
    if side**2 * 1.5 > image[0] * image[1] or side >= max(image):
        return None, 'the whole image'
    return side, (
        f'{side**2 / (image[0] * image[1]):.0%} of an image, and six times as wide as '
        'its large objects: as many iterations in less time'
    )


def iterations(seconds: float, step: float, evaluation: float, least: int = 20) -> tuple[int, int]:
    """Iterations and evaluations that fit into a time.

    Args:
        seconds: The time.
        step: Of an iteration, seconds.
        evaluation: Of one, seconds.
    """
    evaluations = int(np.clip(0.15 * seconds / max(evaluation, 1e-3), 1, 10))
    left = seconds - (evaluations + 1) * evaluation  # the last is of the best checkpoint
    return max(least, math.floor(left / step / evaluations) * evaluations), evaluations


def val_images(seconds: float, per_image: float, count: int) -> int:
    """How many validation images can be looked at in 15 % of the time, all of them if they can."""
    return int(np.clip(0.15 * seconds / per_image, min(count, LEAST), count))


def batch_size(
    task: str, device: str, free: float, per_image: float, images: int
) -> tuple[int, str]:
    """Images of a batch.

    Args:
        free: Bytes of memory.
        per_image: Bytes that an image takes in training.
        images: Of the training set.
    """
    wanted = dict(classes=16, semantic=2, boxes=2, masks=2)[task] * (1 if device == 'cpu' else 4)
    fits = max(1, int(0.7 * free / max(per_image, 1)))
    size = max(1, min(wanted, fits, images))
    why = f'of {free / 2**30:.0f} GiB of memory {size} take {size * per_image / 2**30:.1f}' + (
        ''
        if device == 'cuda' or size < wanted
        else ': without a GPU more would only mean fewer iterations'
    )
    return size, why
