"""The proof: what a file predicts against what its toolbox predicts, on the same images."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from ..errors import UserError
from ..runtime import Detections, Runtime, prepare, resize
from .models import swapped

SIZES = ((64, 64), (97, 161), (160, 128), (256, 192))  # and the images' own
BATCHES = (1, 2, 5)
PIXELS = 1.2e6  # of a batch, unless it is one image

BOXES, SCORES, MASKS, LEVELS = 1e-2, 1e-4, 1e-4, 1e-4  # what may differ, in pixels, ...


class Row(NamedTuple):
    """One comparison; ``differences`` by what was compared."""

    batch: int
    height: int
    width: int
    found: int | None  # detections
    differences: dict[str, float]


class Program(Runtime):
    """A ``.pt2`` file as the runtime of other files, in PyTorch.

    One from elsewhere may hold code, so only what was just written is loaded.
    """

    def __init__(self, file: Path):
        extra = {'convmlp.json': ''}
        # Guards would ask for sizes like those of the example.
        program = torch.export.load(file, extra_files=extra).module(check_guards=False)
        self.file, self.facts = file, json.loads(extra['convmlp.json'])

        def run(inputs):
            with torch.no_grad():
                found = program(*map(torch.from_numpy, inputs))
            return [x.numpy() for x in (found if isinstance(found, (list, tuple)) else [found])]

        self._run = run


def open_file(file: Path) -> Runtime:
    """The runtime of a file of ours in any format, in float32."""
    return Program(file) if file.suffix == '.pt2' else Runtime(file, precision='f32')


def agreement(
    model: nn.Module,
    runtime: Runtime,
    photos: Sequence[np.ndarray],
    sizes: Sequence[tuple[int, int]] = SIZES,
    batches: Sequence[int] = BATCHES,
    strict: bool = True,
) -> Iterator[Row]:
    """Compare, in every size and batch.

    Args:
        model: The toolbox's model, not fused, or a backbone.
        runtime: The file.
        photos: RGB images, of which models of other channels get the first, or repeated ones; a
            dark one of noise, in which there is nothing, is added.
        sizes: Heights and widths besides those that the model was evaluated with.
        strict: Raise where they differ.

    Raises:
        UserError: They differ by more than :data:`BOXES`, :data:`SCORES`, ...
    """
    channels = np.arange(len(runtime.facts['mean'])) % 3
    photos = [np.ascontiguousarray(photo[..., channels]) for photo in photos]
    nothing = np.random.default_rng(0).integers(0, 16, photos[0].shape, dtype=np.uint8)
    own = prepare(photos[0], runtime.facts['resize']).shape[:2]
    for height, width in (*sizes, own):
        images = np.stack(
            [resize(photo, height, width, 'cv2-bilinear') for photo in (*photos[:4], nothing)]
        )
        for batch in batches:
            if batch > 1 and batch * height * width > PIXELS:
                continue
            # The last ones in turn, so that nothing and something lie in one batch.
            row = compare(
                model,
                runtime,
                np.resize(images[::-1], (batch, *images.shape[1:])) if batch > 1 else images[:1],
            )
            yield row
            limits = dict(boxes=BOXES, scores=SCORES, masks=MASKS, labels=MASKS)
            for name, value in row.differences.items():
                if strict and not value <= limits.get(name, LEVELS):
                    raise UserError(
                        f"not written: {name} differ by {value:.1e} from the toolbox's, at most "
                        f'{limits.get(name, LEVELS):.0e} may, in {batch} images of {height} x '
                        f'{width}'
                    )


def compare(model: nn.Module, runtime: Runtime, images: np.ndarray) -> Row:
    """One comparison, of images (N, height, width, C)."""
    batch, height, width = images.shape[:3]
    task = runtime.facts['task']
    # A segmentor's map, as if images had been resized.
    size = (height + 7, width + 5) if task == 'segmentation' else (height, width)
    theirs = predict(model, images, size, runtime.facts)
    ours = answers(runtime, images, size)
    found = None
    differences: dict[str, float] = {}
    if task in ('detection', 'instances'):
        found = sum(len(found.scores) for found in theirs)
        for a, b in zip(ours, theirs, strict=True):
            for name, value in differ(a, b).items():
                differences[name] = max(differences.get(name, 0.0), value)
    elif task == 'segmentation':
        differences['labels'] = float((ours != theirs).mean())
    else:
        for name, output, wanted in zip(runtime.facts['outputs'], ours, theirs, strict=True):
            differences[name] = float(
                abs(output - wanted).max() / (1 if task == 'classification' else abs(wanted).max())
            )
    return Row(batch, height, width, found, differences)


def answers(runtime: Runtime, images: np.ndarray, size: tuple[int, int]) -> Any:
    """What a file predicts, as :func:`predict` gives what a model does."""
    outputs = runtime.run(given(runtime.facts, images), size)
    task = runtime.facts['task']
    if task in ('detection', 'instances'):
        given_size = images.shape[1], images.shape[2]
        return [
            runtime.result({k: v[i] for k, v in outputs.items()}, given_size, size)
            for i in range(len(images))
        ]
    return outputs['labels'] if task == 'segmentation' else list(outputs.values())


def given(facts: dict, images: np.ndarray) -> np.ndarray:
    """RGB images as the file takes them."""
    return images if facts['input'] == 'rgb' else normalise(images, facts)


def normalise(images: np.ndarray, facts: dict) -> np.ndarray:
    """RGB images (N, height, width, C) as floats (N, C, height, width)."""
    if facts['channels'] == 'bgr':
        images = images[..., swapped(images.shape[-1])]
    mean, std = (np.float32(facts[key]) for key in ('mean', 'std'))
    return np.ascontiguousarray(((images - mean) / std).transpose(0, 3, 1, 2))


@torch.no_grad()
def predict(model: Any, images: np.ndarray, size: tuple[int, int], facts: dict) -> Any:
    """What the toolbox's model predicts."""
    task = facts['task']
    if task == 'backbone':
        levels = model(torch.from_numpy(normalise(images, facts)))
        return [level.float().numpy() for level in levels]
    if task == 'segmentation':
        from mmseg.structures import SegDataSample as Sample
    elif task == 'classification':
        from mmpretrain.structures import DataSample as Sample
    else:
        from mmdet.structures import DetDataSample as Sample
    bgr = [
        torch.from_numpy(image[..., swapped(image.shape[-1])].transpose(2, 0, 1).copy())
        for image in images
    ]
    meta = dict(img_shape=images.shape[1:3], ori_shape=size, scale_factor=(1.0, 1.0))
    data = model.data_preprocessor(
        dict(inputs=bgr, data_samples=[Sample(metainfo=meta) for _ in bgr]), False
    )
    samples = model(**data, mode='predict')
    if task == 'segmentation':
        return np.stack([sample.pred_sem_seg.data[0].numpy() for sample in samples])
    if task == 'classification':
        return [np.stack([sample.pred_score.numpy() for sample in samples])]
    found = [sample.pred_instances for sample in samples]
    return [
        Detections(
            x.bboxes.numpy(),
            x.scores.numpy(),
            x.labels.numpy(),
            x.masks.numpy() if 'masks' in x else None,
        )
        for x in found
    ]


def differ(ours: Detections, theirs: Detections) -> dict[str, float]:
    """Largest differences between detections, each paired with the nearest of its label.

    Those of equal scores may come in any order. ``inf`` where their numbers differ.
    """
    if len(ours.scores) != len(theirs.scores):
        return dict(number=abs(len(ours.scores) - len(theirs.scores)))
    boxes = abs(theirs.boxes[:, None] - ours.boxes).max(2, initial=0)
    scores = abs(theirs.scores[:, None] - ours.scores)
    cost = np.where(theirs.labels[:, None] == ours.labels, boxes / BOXES + scores / SCORES, np.inf)
    pairs = []
    for i in range(len(cost)):
        pairs.append(int(cost[i].argmin()))
        if not np.isfinite(cost[i, pairs[-1]]):
            return dict(labels=np.inf)
        cost[:, pairs[-1]] = np.inf
    rows = range(len(pairs))
    found = dict(
        boxes=float(boxes[rows, pairs].max(initial=0)),
        scores=float(scores[rows, pairs].max(initial=0)),
    )
    if theirs.masks is not None and ours.masks is not None:
        found['masks'] = float(
            (theirs.masks != ours.masks[pairs]).sum() / max(1, theirs.masks.sum())
        )
    return found
