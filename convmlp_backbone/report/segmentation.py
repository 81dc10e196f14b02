"""What a segmentor finds: a class for every pixel."""

import io
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement
from PIL import Image

from ..checks.names import full_palette
from ..errors import UserError
from .bootstrap import Samples
from .evaluation import Evidence, infos
from .gallery import SIDE

IGNORE = 255
NAMES = dict(mIoU='mIoU', fwIoU='fwIoU', mAcc='mean accuracy', aAcc='pixel accuracy')


class Segmentations(Evidence):
    """Maps of classes; kept are counts of each image, and small maps to show."""

    class_score = 'IoU'

    def __init__(self, dataset: Any):
        super().__init__(dataset)
        self.classes = list(dataset.metainfo['classes'])
        self.palette = full_palette(dataset.metainfo.get('palette'), len(self.classes))
        self.paths = [info['img_path'] for info in infos(dataset)]
        size = len(self.classes)
        self.counts = np.zeros((size, size), np.int64)  # pixels, truth by prediction
        # Of each image and class: pixels of both, of the truth, of the prediction.
        self.parts = np.zeros((3, len(self.paths), size), np.int64)
        self.maps: dict[int, tuple[bytes, bytes]] = {}

    def add(self, index: int, sample: BaseDataElement) -> None:
        if 'gt_sem_seg' not in sample:
            raise UserError('the validation set gives no maps: its pipeline needs LoadAnnotations')
        self.count(index, sample.gt_sem_seg.data[0].numpy(), sample.pred_sem_seg.data[0].numpy())

    def add_results(self, index: int, results: list[dict], folder: Path) -> None:
        if not results:
            self.leave_out(index, 'is not in the file of predictions')
            return
        predicted = np.asarray(Image.open(folder / results[0]['segmentation']))
        sample = self.dataset[index]['data_samples']
        self.count(index, sample.gt_sem_seg.data[0].numpy(), predicted)

    def count(self, index: int, truth: np.ndarray, predicted: np.ndarray) -> None:
        """Take the maps (H, W) of an image."""
        import hotcoco.metrics

        if truth.shape != predicted.shape:
            self.leave_out(index, f'has a map of {truth.shape}, predicted is {predicted.shape}')
            return
        size = len(self.classes)
        truth = np.where((truth < 0) | (truth >= size), IGNORE, truth).astype(np.int64)
        counts = hotcoco.metrics.pixel_confusion(
            truth, predicted.astype(np.int64), size, ignore_index=IGNORE
        ).astype(np.int64)
        self.counts += counts
        self.parts[:, index] = counts.diagonal(), counts.sum(1), counts.sum(0)
        self.maps[index] = small_map(truth), small_map(predicted)

    @cached_property
    def metrics(self) -> dict[str, float]:
        """Out of 1."""
        found = self._mean_iou()
        return {name: found[key] for key, name in NAMES.items()}

    def _mean_iou(self) -> dict:
        import hotcoco.metrics

        return hotcoco.metrics.mean_iou(self.counts.astype(np.uint64))

    @cached_property
    def qualities(self) -> np.ndarray:
        """(images,) mean IoU over the classes in an image or in its prediction."""
        return mean_iou(self.parts)

    def sample(self, weights: np.ndarray) -> Samples:
        parts = np.stack([weights @ part.astype(float) for part in self.parts])
        accuracy = parts[0].sum(1) / np.maximum(parts[1].sum(1), 1)
        return Samples({NAMES['mIoU']: mean_iou(parts), NAMES['aAcc']: accuracy}, class_iou(parts))

    def per_class(self) -> list[dict]:
        both, true, found = (part.sum(0) for part in self.parts)
        images = (self.parts[1] > 0).sum(0)
        iou = both / np.maximum(true + found - both, 1)
        return [
            dict(
                name=name,
                share=true[i] / max(true.sum(), 1),
                images=int(images[i]),
                IoU=iou[i] if true[i] + found[i] else None,
                recall=both[i] / true[i] if true[i] else None,
                precision=both[i] / found[i] if found[i] else None,
            )
            for i, name in enumerate(self.classes)
        ]

    def truth_key(self) -> object:
        return self.classes, self.parts[1].sum(0).tolist()


def class_iou(parts: np.ndarray) -> np.ndarray:
    """(3, N, C) pixels of both, truth and prediction to (N, C), NaN where a class is in neither."""
    both, true, found = parts.astype(float)
    union = true + found - both
    return np.divide(both, union, out=np.full(union.shape, np.nan), where=union > 0)


def mean_iou(parts: np.ndarray) -> np.ndarray:
    """(3, N, C) to (N,), the mean over the classes that there are; NaN without any."""
    iou = class_iou(parts)
    number = (~np.isnan(iou)).sum(1)
    return np.divide(np.nansum(iou, 1), number, out=np.full(len(number), np.nan), where=number > 0)


def small_map(values: np.ndarray) -> bytes:
    """A map as PNG, of the size that pictures are shown in."""
    image = Image.fromarray(values.clip(0, IGNORE).astype(np.uint8))
    image.thumbnail((SIDE, SIDE), Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, 'png')
    return content.getvalue()
