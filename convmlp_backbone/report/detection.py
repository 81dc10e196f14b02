"""What a detector finds: boxes and masks, judged by hotcoco as COCO and TIDE define it."""

import contextlib
import io
import warnings
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement
from rich.progress import track

from ..checks.loaders import unwrap
from ..errors import UserError
from .bootstrap import ClassMatches, Samples, average_precisions
from .coco_truth import coco_truth
from .curve import Curve, f1
from .evaluation import Evidence, finite

IOU = 0.5  # from which a box counts as found, wherever the report does not say otherwise
IOUS = np.linspace(0.5, 0.95, 10)  # of COCO's AP
MOST = 100  # predictions of an image that count: COCO's number
WORDS = dict(segm='mask', bbox='box')
SIZES = dict(s='small, below 32²', m='medium', l='large, from 96²')
KINDS = dict(  # of TIDE, https://arxiv.org/abs/2008.08115
    Cls='wrong class',
    Loc='bad place',
    Both='class and place',
    Dupe='found twice',
    Bkg='background',
    Miss='missed',
)


class Detections(Evidence):
    """Boxes, and masks where ``masks``, of a detector."""

    class_score = 'AP'

    def __init__(self, dataset: Any, masks: bool):
        super().__init__(dataset)
        self.truth = coco_truth(dataset)
        self.classes = [category['name'] for category in self.truth['categories']]
        self.paths = [image['file_name'] for image in self.truth['images']]
        self.masks = masks
        self.rows: list[list[float]] = []  # image, x, y, width, height, score, category
        self.codes: list[dict] = []  # a mask for each row

    @property
    def kind(self) -> str:
        return 'segm' if self.masks else 'bbox'

    def add(self, index: int, sample: BaseDataElement) -> None:
        found = sample.pred_instances.numpy()
        boxes = np.asarray(found.bboxes, float).reshape(-1, 4)
        for (x1, y1, x2, y2), score, label in zip(boxes, found.scores, found.labels, strict=True):
            self.rows.append([index + 1, x1, y1, x2 - x1, y2 - y1, float(score), int(label) + 1])
        if self.masks:
            from pycocotools import mask

            self.codes += [mask.encode(np.asfortranarray(m, np.uint8)) for m in found.masks]

    def add_results(self, index: int, results: list[dict], folder: Path) -> None:
        names = {name: i for i, name in enumerate(self.classes, 1)}
        ids = next((part.cat_ids for part in unwrap(self.dataset) if hasattr(part, 'cat_ids')), ())
        numbers = {number: i for i, number in enumerate(ids or range(1, len(names) + 1), 1)}
        for result in results:
            if 'category_name' in result:
                category = names[result['category_name']]
            else:
                category = numbers[result['category_id']]
            x, y, width, height, score = finite([*result['bbox'], result['score']])
            self.rows.append([index + 1, x, y, width, height, score, category])
            if self.masks:
                self.codes.append(result['segmentation'])

    @cached_property
    def results(self) -> np.ndarray:
        """(N, 7): image, x, y, width, height, score, category."""
        return np.asarray(self.rows, float).reshape(-1, 7)

    @property
    def annotations(self) -> list[dict]:
        """Of the images that were read."""
        return [a for a in self.truth['annotations'] if a['image_id'] - 1 not in self.left_out]

    def evaluated(self, kind: str) -> Any:
        """hotcoco's evaluation of boxes (bbox) or masks (segm), of the images that were read."""
        import hotcoco

        read = dict(
            self.truth,
            images=[i for i in self.truth['images'] if i['id'] - 1 not in self.left_out],
            annotations=self.annotations,
        )
        if kind == 'bbox':
            found: Any = self.results
        else:
            found = [
                dict(image_id=int(row[0]), category_id=int(row[6]), score=row[5], segmentation=code)
                for row, code in zip(self.rows, self.codes, strict=True)
            ]
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that there is nothing
            coco = hotcoco.COCO(read)
            try:
                results = coco.load_res(found)
            except (ValueError, TypeError) as error:  # masks from a file are whatever they are
                raise UserError(f'these predictions cannot be evaluated: {error}') from error
            evaluation = hotcoco.COCOeval(coco, results, kind)
            evaluation.run()
        return evaluation

    @cached_property
    def evaluation(self) -> Any:
        return self.evaluated(self.kind)

    @property
    def kinds(self) -> list[str]:
        """The main one first."""
        return ['segm', 'bbox'] if self.masks else ['bbox']

    @cached_property
    def metrics(self) -> dict[str, float]:
        """AP and AR of COCO, of masks before those of boxes; -1 where there is no such object."""
        found: dict[str, float] = {}
        for kind in self.kinds:
            evaluation = self.evaluation if kind == self.kind else self.evaluated(kind)
            values = evaluation.report()['metrics']
            found |= {f'{WORDS[kind]} {key}': values[key] for key in evaluation.metric_keys()}
        return found

    @cached_property
    def hits(self) -> np.ndarray:
        """(N,) of the results: 1 found an object, 0 found none, -1 does not count."""
        return self.matched(self.evaluation, IOU)

    def matched(self, evaluation: Any, iou: float) -> np.ndarray:
        status = evaluation.image_diagnostics(iou_thr=iou, score_thr=0.0)['dt_status']
        values = dict(tp=1, fp=0)
        return np.array([values.get(status.get(i), -1) for i in range(1, len(self.rows) + 1)], int)

    def class_matches(self, kind: str) -> list[ClassMatches]:
        """Which predictions of each class found an object, at each IoU of COCO."""
        evaluation = self.evaluated(kind)
        hits = np.stack([self.matched(evaluation, iou) for iou in track(IOUS, 'Matching')])
        order = np.argsort(-self.results[:, 5], kind='stable')
        found = []
        for c in range(len(self.classes)):
            own = order[self.results[order, 6] == c + 1]
            images = self.results[own, 0].astype(int) - 1
            found.append(ClassMatches(images, hits[:, own], self.objects[c]))
        return found

    def sample(self, weights: np.ndarray) -> Samples:
        metrics: dict[str, list] = {}
        per_class = []
        for kind in self.kinds:
            matches = self.class_matches(kind)
            for row in track(weights, f'Sampling images, {WORDS[kind]}'):
                ap, recall = average_precisions(matches, row)
                there = ~np.isnan(ap[:, 0])
                ap, recall = ap[there], recall[there]
                for name, part in (
                    ('AP', ap), ('AP50', ap[:, :1]), ('AP75', ap[:, 5:6]), ('AR100', recall)
                ):  # fmt: skip
                    value = part.mean() if part.size else np.nan
                    metrics.setdefault(f'{WORDS[kind]} {name}', []).append(value)
                if kind == self.kind:
                    row_of = np.full(len(there), np.nan)
                    row_of[there] = ap.mean(1)
                    per_class.append(row_of)
        return Samples({name: np.array(v) for name, v in metrics.items()}, np.array(per_class))

    @cached_property
    def objects(self) -> np.ndarray:
        """(classes, images): how many objects count."""
        found = np.zeros((len(self.classes), len(self.paths)), int)
        for a in self.annotations:
            if not a.get('iscrowd'):
                found[a['category_id'] - 1, a['image_id'] - 1] += 1
        return found

    def curve(self, category: int | None = None) -> Curve:
        """Precision and recall of a category, or of all predictions together."""
        chosen = self.hits >= 0
        if category is not None:
            chosen &= self.results[:, 6] == category
        objects = self.objects if category is None else self.objects[category - 1]
        return Curve(self.results[chosen, 5], self.hits[chosen] == 1, int(objects.sum()))

    @cached_property
    def threshold(self) -> float:
        """The score from which all predictions together have the best F1."""
        return self.curve().best()[0]

    @cached_property
    def qualities(self) -> np.ndarray:
        """(images,) F1 at the threshold; 1 where nothing is and nothing was found; NaN left out."""
        values = np.array([f1(*errors) for errors in self.errors], float)
        values[list(self.left_out)] = np.nan
        return values

    @cached_property
    def errors(self) -> list[tuple[int, int, int]]:
        """Right, wrong and missed of each image, at the threshold."""
        images = self.results[:, 0].astype(int) - 1
        shown = self.results[:, 5] >= self.threshold
        right, wrong = (
            np.bincount(images[shown & (self.hits == hit)], minlength=len(self.paths))
            for hit in (1, 0)
        )
        missed = self.objects.sum(0) - right
        return list(zip(right.tolist(), wrong.tolist(), missed.tolist(), strict=True))

    def truth_key(self) -> object:
        return self.classes, [
            (a['image_id'], a['category_id'], a['bbox']) for a in self.truth['annotations']
        ]

    def per_class(self) -> list[dict]:
        """AP and the best threshold of each class, with counts; None where there is no object."""
        precision = self.evaluation.eval['precision']  # IoU, recall, class, area, most
        rows = []
        for k, name in enumerate(self.classes):
            objects = int(self.objects[k].sum())
            ap = [mean(precision[i, :, k, 0, -1]) for i in (slice(None), 0, 5)]
            best = self.curve(k + 1).best() if objects else [None] * 4
            rows.append(
                dict(
                    name=name,
                    objects=objects,
                    found=int((self.results[:, 6] == k + 1).sum()),
                    **dict(zip(('AP', 'AP50', 'AP75'), ap, strict=True)),
                    **dict(zip(('threshold', 'f1', 'precision', 'recall'), best, strict=True)),
                )
            )
        return rows

    def per_size(self) -> list[tuple[str, int, float | None]]:
        """Name, objects and AP of COCO's three sizes."""
        limits = dict(s=(0, 32**2), m=(32**2, 96**2), l=(96**2, 1e10))
        areas = [a.get('area', 0) for a in self.annotations if not a.get('iscrowd')]
        scores = self.evaluation.report()['metrics']
        return [
            (
                SIZES[key],
                sum(low <= area < high for area in areas),
                none_if_missing(scores[f'AP{key}']),
            )
            for key, (low, high) in limits.items()
        ]

    def confusion(self) -> tuple[np.ndarray, list[str]]:
        """(C + 1, C + 1) true by predicted class at the threshold; the last is the background."""
        found = self.evaluation.confusion_matrix(
            iou_thr=IOU, max_det=MOST, min_score=self.threshold
        )
        return np.asarray(found['matrix'], float), [*self.classes, 'background']

    def error_kinds(self) -> list[tuple[str, int, float]]:
        """Name, number and cost in AP50 of TIDE's kinds of errors."""
        found = self.evaluation.tide_errors(pos_thr=IOU)
        return [(name, found['counts'][key], found['delta_ap'][key]) for key, name in KINDS.items()]


def mean(values: np.ndarray) -> float | None:
    """Of COCO's precisions, of which -1 means that there is no object."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def none_if_missing(value: float) -> float | None:
    return None if value == -1 else value
