"""Every sample of a data set: its files, and what its pipeline makes of them."""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from .images import image_facts
from .loaders import input_problems, label_problems
from .masks import read_mask, value_counts
from .problem import Problem, error
from .quiet import one_line, quiet

_job: 'Job'  # of this process; the pool's workers inherit it


class Sample(NamedTuple):
    """What is told of one sample.

    Attributes:
        problems: All that is wrong.
        path: Of the image, '' where it lies in no file of its own.
        digest, thumb: See :class:`.images.ImageFacts`.
        labels: How many objects there are of each class, or the image's class.
        sizes: (objects, ), square roots of the boxes' areas after the pipeline.
        values: (256, ), pixels of each value in the mask as it is read.
        shape: Of what the model gets, (C, H, W).
    """

    problems: list[Problem]
    path: str = ''
    digest: bytes | None = None
    thumb: np.ndarray | None = None
    labels: dict[int, int] = {}
    sizes: np.ndarray | None = None
    mask: tuple | None = None
    shape: tuple = ()


class Job(NamedTuple):
    """What the samples of a data set are checked for."""

    dataset: Any
    num_classes: int | None
    channels: int | None
    reads_files: bool  # with Pillow or OpenCV, by LoadImageFromFile
    as_colour: bool  # as three channels of 8 bits


def check_sample(index: int) -> Sample:
    """Read the files of the sample ``index`` and run its pipeline."""
    dataset = _job.dataset
    source = dataset if hasattr(dataset, 'get_data_info') else getattr(dataset, 'dataset', dataset)
    info = source.get_data_info(index) if hasattr(source, 'get_data_info') else {}
    path = info.get('img_path') or ''
    where = f'{path or type(dataset).__name__} (id {info.get("img_id", index)})'
    size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
    facts, problems, mask = None, [], None
    if path and _job.reads_files:
        facts = image_facts(path, size, _job.as_colour)
        problems = [Problem(severity, where, text) for severity, text in facts.problems]
    map_path = info.get('seg_map_path')
    if map_path:
        values, fault, change = read_mask(map_path)
        size = facts and facts.size
        if values is not None and size and values.shape[::-1] != size:
            problems.append(
                error(
                    f'{map_path} of {where}',
                    f'is {values.shape[1]}x{values.shape[0]}, its image {size[0]}x{size[1]}',
                )
            )
        mask = map_path, fault, change, value_counts(values)
    labels: dict[int, int] = {}
    sizes, shape = None, ()
    try:
        with quiet():
            sample = dataset[index]
        texts = input_problems(sample['inputs'], _job.channels)
        shape = tuple(sample['inputs'].shape)
        truth = sample['data_samples']
        texts += label_problems(truth, _job.num_classes)
        if 'gt_instances' in truth:
            boxes = truth.gt_instances.bboxes
            boxes = getattr(boxes, 'tensor', boxes)
            sizes = ((boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(1) ** 0.5).numpy()
            labels = Counter(truth.gt_instances.labels.tolist())
        elif 'gt_label' in truth:
            labels = Counter(truth.gt_label.tolist())
    except Exception as problem:  # whatever the toolbox raises would end the training too
        # Of a file that is no image, that has been said.
        texts = [] if facts and facts.size is None else [one_line(problem)]
    if not (mask and mask[1]):  # a mask that is none is told by its counts
        problems += [error(where, text) for text in texts]
    return Sample(
        problems,
        path,
        facts and facts.digest,
        facts and facts.thumb,
        dict(labels),
        sizes,
        mask,
        shape,
    )


def check_samples(job: Job, processes: int, progress: Callable) -> Iterator[Sample]:
    """Every sample of a data set, looked at by several processes, in order.

    Args:
        progress: Takes what it is wrapped round and its length.
    """
    global _job
    _job = job
    count = len(job.dataset)
    # fork: a data set need not be picklable. A process that dies raises an error here.
    with ProcessPoolExecutor(
        processes, multiprocessing.get_context('fork'), torch.set_num_threads, (1,)
    ) as pool:
        yield from progress(pool.map(check_sample, range(count), chunksize=8), count)
