"""What a detector finds: boxes and masks, judged by hotcoco as COCO and TIDE define it."""

import contextlib
import io
import json
import warnings
from collections import Counter, defaultdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.structures import BaseDataElement
from PIL import Image
from rich.progress import track

from ..checks.loaders import unwrap
from .bootstrap import ClassMatches, Samples, average_precisions
from .evaluation import Evidence

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


def truth(dataset: Any) -> dict:
    """The objects of a validation set as COCO's format has them, images counted from 1.

    Areas and crowds are those of a COCO file where the set has one, so that scores are COCO's.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    names = list(dataset.metainfo['classes'])
    for part in unwrap(dataset):
        own, labels = None, {}
        if hasattr(part, 'cat_ids') and str(part.ann_file).endswith('.json'):
            coco = json.loads(Path(part.ann_file).read_text())
            own = defaultdict(list)
            for annotation in coco['annotations']:
                own[annotation['image_id']].append(annotation)
            labels = {number: label for label, number in enumerate(part.cat_ids)}
            known = {category['id']: category['name'] for category in coco['categories']}
            names = [known.get(number, str(number)) for number in part.cat_ids]
        for index in range(len(part)):
            info = part.get_data_info(index)
            number = len(images) + 1
            if 'width' not in info:
                with contextlib.suppress(OSError), Image.open(info['img_path']) as image:
                    info['width'], info['height'] = image.size
            images.append(
                dict(
                    id=number,
                    width=info.get('width', 0),
                    height=info.get('height', 0),
                    file_name=info['img_path'],
                )
            )
            found = (
                [object_of(instance) for instance in info.get('instances', ())]
                if own is None
                else [
                    dict(a, category_id=labels[a['category_id']] + 1)
                    for a in own[info['img_id']]
                    if a['category_id'] in labels
                ]
            )
            annotations += [
                dict(annotation, id=len(annotations) + i, image_id=number)
                for i, annotation in enumerate(found, 1)
            ]
    categories = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def object_of(instance: dict) -> dict:
    """A toolbox's instance as an annotation of COCO."""
    x1, y1, x2, y2 = map(float, instance['bbox'])
    found = dict(
        category_id=instance['bbox_label'] + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        area=(x2 - x1) * (y2 - y1),
        iscrowd=int(instance.get('ignore_flag', 0)),
    )
    return {**found, 'segmentation': instance['mask']} if instance.get('mask') else found


class Detections(Evidence):
    """Boxes, and masks where ``masks``, of a detector."""

    class_score = 'AP'

    def __init__(self, dataset: Any, masks: bool):
        super().__init__(dataset)
        self.truth = truth(dataset)
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
            x, y, width, height = result['bbox']
            self.rows.append([index + 1, x, y, width, height, result['score'], category])
            if self.masks:
                self.codes.append(result['segmentation'])

    @cached_property
    def results(self) -> np.ndarray:
        """(N, 7): image, x, y, width, height, score, category."""
        return np.asarray(self.rows, float).reshape(-1, 7)

    def evaluated(self, kind: str) -> Any:
        """hotcoco's evaluation of boxes (bbox) or masks (segm), of the images that were read."""
        import hotcoco

        read = dict(
            self.truth,
            images=[i for i in self.truth['images'] if i['id'] - 1 not in self.left_out],
            annotations=[
                a for a in self.truth['annotations'] if a['image_id'] - 1 not in self.left_out
            ],
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
            evaluation = hotcoco.COCOeval(coco, coco.load_res(found), kind)
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
        objects = np.zeros((len(self.classes), len(self.paths)), int)
        for a in self.truth['annotations']:
            if not a.get('iscrowd') and a['image_id'] - 1 not in self.left_out:
                objects[a['category_id'] - 1, a['image_id'] - 1] += 1
        order = np.argsort(-self.results[:, 5], kind='stable')
        found = []
        for c in range(len(self.classes)):
            own = order[self.results[order, 6] == c + 1]
            images = self.results[own, 0].astype(int) - 1
            found.append(ClassMatches(images, hits[:, own], objects[c]))
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

    def counts(self) -> Counter:
        """How many objects of each category count."""
        return Counter(
            a['category_id']
            for a in self.truth['annotations']
            if not a.get('iscrowd') and a['image_id'] - 1 not in self.left_out
        )

    def curve(self, category: int | None = None) -> 'Curve':
        """Precision and recall of a category, or of all predictions together."""
        chosen = self.hits >= 0
        if category is not None:
            chosen &= self.results[:, 6] == category
        counts = self.counts()
        number = sum(counts.values()) if category is None else counts[category]
        return Curve(self.results[chosen, 5], self.hits[chosen] == 1, number)

    @cached_property
    def threshold(self) -> float:
        """The score from which all predictions together have the best F1."""
        return self.curve().best()[0]

    @cached_property
    def qualities(self) -> np.ndarray:
        """(images,) F1 at the threshold; 1 where nothing is and nothing was found; NaN left out."""
        summary = self.errors
        values = np.array([f1(*summary[i]) for i in range(len(self.paths))], float)
        values[list(self.left_out)] = np.nan
        return values

    @cached_property
    def errors(self) -> list[tuple[int, int, int]]:
        """Right, wrong and missed of each image, at the threshold."""
        counted: list[list[int]] = [[0, 0, 0] for _ in self.paths]
        for row, hit in zip(self.results, self.hits, strict=True):
            if row[5] >= self.threshold and hit >= 0:
                counted[int(row[0]) - 1][0 if hit else 1] += 1
        for annotation in self.truth['annotations']:
            if not annotation.get('iscrowd'):
                counted[annotation['image_id'] - 1][2] += 1
        return [(right, wrong, there - right) for right, wrong, there in counted]

    def truth_key(self) -> object:
        return self.classes, [
            (a['image_id'], a['category_id'], a['bbox']) for a in self.truth['annotations']
        ]

    def per_class(self) -> list[dict]:
        """AP and the best threshold of each class, with counts; None where there is no object."""
        precision = self.evaluation.eval['precision']  # IoU, recall, class, area, most
        counts = self.counts()
        rows = []
        for k, name in enumerate(self.classes):
            ap = [mean(precision[i, :, k, 0, -1]) for i in (slice(None), 0, 5)]
            threshold, best, right, recall = self.curve(k + 1).best()
            rows.append(
                dict(
                    name=name,
                    objects=counts[k + 1],
                    found=int((self.results[:, 6] == k + 1).sum()),
                    AP=ap[0],
                    AP50=ap[1],
                    AP75=ap[2],
                    threshold=threshold if counts[k + 1] else None,
                    f1=best if counts[k + 1] else None,
                    precision=right if counts[k + 1] else None,
                    recall=recall if counts[k + 1] else None,
                )
            )
        return rows

    def per_size(self) -> list[tuple[str, int, float | None]]:
        """Name, objects and AP of COCO's three sizes."""
        limits = dict(s=(0, 32**2), m=(32**2, 96**2), l=(96**2, 1e10))
        areas = [
            a.get('area', 0)
            for a in self.truth['annotations']
            if not a.get('iscrowd') and a['image_id'] - 1 not in self.left_out
        ]
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


class Curve:
    """Precision and recall by score.

    Args:
        scores (N,): Of predictions.
        hits (N,): Which of them found an object.
        number: Of objects.
    """

    def __init__(self, scores: np.ndarray, hits: np.ndarray, number: int):
        order = np.argsort(-scores, kind='stable')
        self.scores, right = scores[order], np.cumsum(hits[order])
        self.precision = right / np.arange(1, len(right) + 1)
        self.recall = right / max(number, 1)
        self.f1 = 2 * right / np.maximum(np.arange(1, len(right) + 1) + number, 1)

    def best(self) -> tuple[float, float, float, float]:
        """Score of the best F1, that F1, precision and recall there; zeros if nothing is found."""
        if not len(self.f1) or not self.f1.max():
            return 0.0, 0.0, 0.0, 0.0
        # Of equal scores all count, or none.
        last = np.flatnonzero(np.append(self.scores[1:] != self.scores[:-1], True))
        i = last[self.f1[last].argmax()]
        return (
            float(self.scores[i]),
            float(self.f1[i]),
            float(self.precision[i]),
            float(self.recall[i]),
        )


def f1(right: int, wrong: int, missed: int) -> float:
    errors = wrong + missed
    return 2 * right / (2 * right + errors) if right or errors else 1.0


def mean(values: np.ndarray) -> float | None:
    """Of COCO's precisions, of which -1 means that there is no object."""
    values = values[values > -1]
    return float(values.mean()) if values.size else None


def none_if_missing(value: float) -> float | None:
    return None if value == -1 else value
