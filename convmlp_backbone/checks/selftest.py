"""The truth, handed to a config's own evaluator as the prediction, has to score 1.0."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from .datasets import scope_of
from .problem import Problem, error, note, warning
from .quiet import one_line, quiet

PERFECT = 0.99  # some metrics round, and one object of a thousand may be left out for a reason
# Scores that are 1 for the truth; the others, such as those of small objects, may have no objects.
SCORES = ('mAP', 'mAP_50', 'mIoU', 'aAcc', 'mAcc', 'mDice', 'mFscore', 'top1', 'AP50')
MOST = 100  # objects of a class in an image that COCO's AP takes


def truth_of_detection(info: dict, with_masks: bool) -> BaseDataElement:
    """The objects of a data set's entry, in the original image, as a detector's prediction."""
    objects = [part for part in info.get('instances', ()) if not part.get('ignore_flag')]
    pred = InstanceData(
        bboxes=torch.tensor([part['bbox'] for part in objects]).float().reshape(-1, 4),
        labels=torch.tensor([part['bbox_label'] for part in objects]).long(),
        scores=torch.ones(len(objects)),
    )
    if with_masks:
        pred.masks = [_rle(part.get('mask'), info['height'], info['width']) for part in objects]
    return pred


def _rle(mask: Any, height: int, width: int) -> dict:
    from pycocotools import mask as tool

    if isinstance(mask, dict) and not isinstance(mask['counts'], list):
        return dict(mask)
    found = tool.frPyObjects(mask, height, width)
    return tool.merge(found) if isinstance(found, list) else found


def predict_truth(dataset: Any, index: int, with_masks: bool, by_files: bool) -> dict:
    """A data sample with its truth for a prediction, as evaluators of the toolboxes take it.

    Args:
        by_files (bool): The evaluators have the truth from an annotation file: no image is read.
    """
    if by_files:
        info = dataset.get_data_info(index)
        return dict(
            img_id=info['img_id'],
            ori_shape=(info['height'], info['width']),
            instances=info['instances'],
            pred_instances=truth_of_detection(info, with_masks),
        )
    sample = dataset[index]['data_samples']
    if 'gt_sem_seg' in sample:
        truth = sample.gt_sem_seg.data
        sample.pred_sem_seg = PixelData(data=torch.where(truth == 255, 0, truth))
    elif 'gt_label' in sample:
        number = len(dataset.metainfo['classes'])
        sample.pred_score = torch.nn.functional.one_hot(sample.gt_label.long(), number).float()[0]
        sample.pred_label = sample.gt_label
    else:
        sample.pred_instances = truth_of_detection(dataset.get_data_info(index), with_masks)
    return sample.to_dict()


def self_test(
    cfg: Config, split: str, dataset: Any, progress: Callable = iter
) -> tuple[dict, list[Problem]]:
    """Score the truth of a split by the config's own evaluator.

    Args:
        cfg (Config): The whole config.
        dataset: The split's data set, built.
        progress: Wrapped round the indices of the samples.

    Returns:
        tuple[dict, list[Problem]]: The scores, and what is wrong where they are not 1.0.
    """
    where, settings = f'{split}_evaluator', cfg[f'{split}_evaluator']
    parts = [settings] if isinstance(settings, dict) else settings
    with_masks = any('segm' in (part.get('metric') or ()) for part in parts)
    by_files = all(part.get('type') in ('CocoMetric', 'FasterCocoMetric') for part in parts)
    crowd = 0
    with scope_of(cfg):
        try:
            with quiet():
                evaluator = Evaluator(settings)
                evaluator.dataset_meta = dataset.metainfo
            for index in progress(range(len(dataset))):
                with quiet():
                    sample = predict_truth(dataset, index, with_masks, by_files)
                    evaluator.process([sample])
                if 'pred_instances' in sample and len(sample['pred_instances']['labels']):
                    crowd = max(crowd, int(np.bincount(sample['pred_instances']['labels']).max()))
            with quiet():
                scores = evaluator.evaluate(len(dataset))
        except Exception as problem:  # whatever a metric raises would end the training too
            return {}, [error(where, f'fails with the truth for predictions: {one_line(problem)}')]
    return scores, score_problems(scores, where, crowd)


def score_problems(scores: dict, where: str, crowd: int) -> list[Problem]:
    """What is wrong where the truth does not score 1.0 (100 for scores in per cent)."""
    found = []
    for name, value in scores.items():
        last = name.rpartition('/')[2]
        if not (last in SCORES or last.endswith(('_mAP', '_mAP_50'))):
            continue
        value = float(value) / (
            100 if last in ('mIoU', 'aAcc', 'mAcc', 'mDice', 'mFscore', 'top1') else 1
        )
        if np.isfinite(value) and value >= PERFECT:
            continue
        if crowd > MOST and 'mAP' in last:
            found.append(
                warning(
                    where,
                    f'the truth as prediction has {name} {value:.3f}: an image '
                    f"has {crowd} objects of a class, COCO's AP takes {MOST}",
                )
            )
        else:
            found.append(
                error(
                    where,
                    f'the truth as prediction has {name} {value:.3f} instead of '
                    '1.0: evaluator and data set do not mean the same files, ids or '
                    'classes, or count objects that training leaves out',
                )
            )
    return found or [note(where, 'the truth as prediction scores 1.0')] if scores else found
