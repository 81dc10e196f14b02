"""Data loaders: their settings, and samples that come out of them."""

import copy
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement
from torch import Tensor

from ..config import walk
from .datasets import annotation_path, class_of, default_of, leaves
from .problem import Problem, error, first_of
from .quiet import one_line, quiet

SOME = 3  # samples of a split that the fast part runs through the pipeline


def fit_loaders(cfg: Config) -> None:
    """Leave out what PyTorch refuses of a loader without worker processes."""
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if isinstance(loader, dict) and loader.get('num_workers') == 0:
            loader['persistent_workers'] = False
            loader.pop('prefetch_factor', None)


def loader_problems(cfg: Config, split: str) -> list[Problem]:
    """Parts of a split that MMEngine wants together, and settings of pipelines that contradict."""
    keys = [f'{split}_dataloader', f'{split}_cfg'] + [f'{split}_evaluator'] * (split != 'train')
    absent = [key for key in keys if not cfg.get(key)]
    if absent:
        return (
            [
                error(
                    split,
                    f'the config has {first_of(set(keys) - set(absent))} and no '
                    f'{first_of(absent)}; without this split write '
                    + ' '.join(f'{key}=None' for key in keys),
                )
            ]
            if len(absent) < len(keys)
            else []
        )
    found = []
    for path, leaf in leaves(
        cfg[f'{split}_dataloader'].get('dataset'), f'{split}_dataloader.dataset'
    ):
        for _, part in walk(leaf.get('pipeline') or ()):
            told, kind = part.get('reduce_zero_label'), class_of(leaf)
            if told is not None and kind and hasattr(kind, 'get_label_map'):
                own = default_of(leaf, kind, 'reduce_zero_label', False)
                if bool(told) != bool(own):
                    found.append(
                        error(
                            f'{path}.reduce_zero_label',
                            f'is {own}, that of LoadAnnotations {told}: '
                            'write the one that is true in both',
                        )
                    )
    return found


def unwrap(dataset: Any) -> Iterator:
    """The data sets below wrappers that only repeat or join what they hold."""
    if hasattr(dataset, 'datasets'):
        for part in dataset.datasets:
            yield from unwrap(part)
    elif (
        hasattr(dataset, 'dataset')
        and not hasattr(dataset, 'pipeline')
        and hasattr(dataset.dataset, '__getitem__')
    ):
        yield from unwrap(dataset.dataset)
    else:
        yield dataset


def label_problems(sample: BaseDataElement, num_classes: int | None) -> list[str]:
    """What is wrong with the labels of a data sample that is ready for the model."""
    texts, labels = [], torch.zeros(0)
    if 'gt_instances' in sample:
        boxes, labels = sample.gt_instances.bboxes, sample.gt_instances.labels
        if not torch.isfinite(getattr(boxes, 'tensor', boxes)).all():
            texts.append('has a box that is not finite')
    elif 'gt_sem_seg' in sample:
        labels = sample.gt_sem_seg.data
        if labels.ndim != 3 or len(labels) != 1:
            texts.append(
                f'has a mask of the shape {tuple(labels.shape)}; expected (1, height, width)'
            )
        labels = labels[labels != 255]
    elif 'gt_label' in sample:
        labels = sample.gt_label
    if num_classes is not None:
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if len(wrong):
            texts.append(
                f'has the class index {first_of(sorted(set(wrong.tolist())))}; the model '
                f'has {num_classes} classes'
            )
    return texts


def model_classes(model: dict | None) -> int | None:
    """The number of classes of a model's config: that of the first head that tells it."""
    return next(
        (
            head['num_classes']
            for path, head in walk(model or {})
            if isinstance(head.get('num_classes'), int) and 'preprocessor' not in path
        ),
        None,
    )


def input_channels(cfg: Config) -> int | None:
    """The channels that a model takes: its backbone's, or the means' of its preprocessing."""
    model = cfg.get('model') or {}
    backbone = model.get('backbone') or {}
    if backbone.get('type') == 'ConvMLP':
        return backbone.get('in_channels', 3)
    mean = (model.get('data_preprocessor') or cfg.get('data_preprocessor') or {}).get('mean')
    return len(mean) if mean else None


def input_problems(inputs: Tensor, channels: int | None) -> list[str]:
    """What is wrong with an image (C, H, W) that is ready for the model."""
    if channels is not None and len(inputs) != channels:
        return [
            f'has {len(inputs)} channels after its pipeline, the network takes {channels}: '
            f'model.backbone.in_channels, data_preprocessor.mean and std, and color_type of '
            'LoadImageFromFile belong together'
        ]
    return []


def sample_problems(cfg: Config, split: str, excerpts: dict[str, dict]) -> list[Problem]:
    """Run some samples of a split through its pipeline, and look at what the model would get.

    Args:
        excerpts: Of annotation files, by their paths: so that nothing large is read again.
    """
    loader = cfg.get(f'{split}_dataloader')
    if not loader:
        return []
    with tempfile.TemporaryDirectory() as folder:
        try:
            with quiet():
                dataset = DATASETS.build(_excerpt(loader['dataset'], excerpts, folder))
        except Exception as problem:  # whatever the toolbox raises would end the job too
            return [error(f'{split}_dataloader.dataset', one_line(problem))]
        shapes = set()
        for part in unwrap(dataset):
            count = len(part) if hasattr(part, '__len__') else 1
            if not count:
                return [error(f'{split}_dataloader.dataset', 'has no samples')]
            for index in np.unique(np.linspace(0, count - 1, SOME).astype(int)).tolist():
                where = f'{split}_dataloader.dataset, sample {index}{file_of(part, index)}'
                try:
                    with quiet():
                        sample = part[index]
                    texts = input_problems(sample['inputs'], input_channels(cfg)) + label_problems(
                        sample['data_samples'], model_classes(cfg.model)
                    )
                    shapes.add(tuple(sample['inputs'].shape))
                except Exception as problem:
                    texts = [one_line(problem)]
                if texts:
                    return [error(where, texts[0])]
    return batch_problems(cfg, split, shapes)


def batch_problems(cfg: Config, split: str, shapes: set) -> list[Problem]:
    """Images of several sizes in a batch, where the toolbox does not pad them."""
    batch = cfg[f'{split}_dataloader'].get('batch_size', 1)
    if split != 'train' and batch > 1 and len(shapes) > 1 and cfg.get('default_scope') == 'mmseg':
        first, second = sorted(shapes)[:2]
        return [
            error(
                f'{split}_dataloader.batch_size',
                f'is {batch}, and images have different '
                f'sizes, such as {first[2]}x{first[1]} and {second[2]}x{second[1]}, which '
                'MMSegmentation does not pad in evaluation: --cfg-options '
                f'{split}_dataloader.batch_size=1',
            )
        ]
    return []


def file_of(dataset: Any, index: int) -> str:
    """`` (path)`` of a sample, as far as the data set tells."""
    for part in (dataset, getattr(dataset, 'dataset', dataset)):
        if hasattr(part, 'get_data_info'):
            return f' ({part.get_data_info(index % len(part)).get("img_path", "")})'
    return ''


def _excerpt(dataset: dict, excerpts: dict[str, dict], folder: str) -> dict:
    """The config of a data set whose annotation files hold a few images: no second reading."""
    dataset = copy.deepcopy(dataset)
    for number, (_, leaf) in enumerate(leaves(dataset)):
        if excerpt := excerpts.get(annotation_path(leaf)):
            path = Path(folder, f'{number}.json')
            path.write_text(json.dumps(excerpt))
            leaf['ann_file'] = os.path.abspath(path)
            leaf.pop('indices', None)
    return dataset
