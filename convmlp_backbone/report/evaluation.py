"""Predictions on a validation set: by a model, or from the file that `convmlp predict` wrote."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from rich.progress import track
from torch.utils.data import DataLoader, Dataset

from ..checks.image_ids import parts_of
from ..checks.loaders import unwrap
from ..checks.problem import first_of
from ..errors import UserError
from .bootstrap import Samples


class Evidence:
    """What a model found in each image of a validation set, beside what is there.

    Attributes:
        class_score: What each class is judged by.
        classes: Their names, in the order of the labels.
        paths: Of the images, as the data set tells them.
        left_out: In words, which of them could not be read, and why.
    """

    class_score: str
    classes: Sequence[str]
    paths: list[str]

    def __init__(self, dataset: Any):
        self.dataset = dataset
        self.left_out: dict[int, str] = {}

    def add(self, index: int, sample: BaseDataElement) -> None:
        """Take the data sample that a toolbox's model made of an image."""
        raise NotImplementedError

    def add_results(self, index: int, results: list[dict], folder: Path) -> None:
        """Take what a file of predictions says of an image."""
        raise NotImplementedError

    @property
    def metrics(self) -> dict[str, float]:
        """The scores of all."""
        raise NotImplementedError

    def per_class(self) -> list[dict]:
        """Name and scores of each class, None where there is none."""
        raise NotImplementedError

    def truth_key(self) -> object:
        """What is equal where the truth is."""
        raise NotImplementedError

    def sample(self, weights: np.ndarray) -> Samples:
        """Scores where images count ``weights`` (samples, images)."""
        raise NotImplementedError

    def leave_out(self, index: int, reason: str) -> None:
        self.left_out[index] = reason


class Tolerant(Dataset):
    """A data set that gives a text instead of a sample that cannot be loaded."""

    def __init__(self, dataset: Any):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, dict | str]:
        try:
            return index, self.dataset[index]
        except Exception as error:  # a toolbox raises anything
            return index, ' '.join(f'{type(error).__name__}: {error}'.split())


def infos(dataset: Any) -> list[dict]:
    """What a data set tells of each image, without loading it."""
    return [
        part.get_data_info(index)
        for part in unwrap(dataset)
        if hasattr(part, 'get_data_info')
        for index in range(len(part))
    ]


def predict_all(model: Any, evidence: Evidence, batch: int, workers: int) -> None:
    """Run a model over the validation set, with progress."""
    size = len(evidence.dataset)
    loader = DataLoader(
        Tolerant(evidence.dataset), batch, num_workers=min(workers, size), collate_fn=list
    )
    for part in track(loader, 'Predicting', total=len(loader)):
        read = {index: data for index, data in part if not isinstance(data, str)}
        for index, reason in part:
            if isinstance(reason, str):
                evidence.leave_out(index, reason)
        if read:
            data = {
                key: [sample[key] for sample in read.values()] for key in ('inputs', 'data_samples')
            }
            with torch.no_grad():
                samples = model.test_step(data)
            for index, sample in zip(read, samples, strict=True):
                evidence.add(index, sample.cpu())


def read_predictions(file: Path, evidence: Evidence) -> None:
    """Take predictions from a file that `convmlp predict` wrote, or COCO's results.

    Raises:
        UserError: It is no such file, or tells of no image of the validation set.
    """
    if file.suffix != '.json':
        raise UserError(
            f'--predictions {file}: expected predictions.json of convmlp predict, or another list '
            "in COCO's result format, such as the NAME.bbox.json that CocoMetric writes with "
            'outfile_prefix=NAME'
        )
    try:
        content = json.loads(file.read_text())
        images = content['images'] if isinstance(content, dict) else content
        if not isinstance(images, list) or not all(isinstance(part, dict) for part in images):
            raise ValueError('no list of results')
    except (ValueError, KeyError, RecursionError) as error:
        raise UserError(f'--predictions {file} is no file of predictions: {error}') from None
    by_name, by_id = names_and_ids(evidence)
    results: dict[int, list[dict]] = {index: [] for index in range(len(evidence.paths))}
    unknown = set()
    for result in images:
        name = result.get('file_name')
        key = result.get('image_id') if name is None else name
        index = by_id.get(key) if name is None else known(by_name, name)
        if index is None:
            unknown.add(str(key))
        else:
            results[index].append(result)
    if images and len(unknown) and not any(results.values()):
        raise UserError(
            f'--predictions {file} tells of {first_of(sorted(unknown), 2)}, none of which is in '
            f'the validation set, which has {first_of(evidence.paths, 2)}'
        )
    for index, part in results.items():
        try:
            evidence.add_results(index, part, file.parent)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f'--predictions {file}: what it says of {evidence.paths[index]} cannot be '
                f'understood ({type(error).__name__}: {error})'
            ) from None
    if unknown:
        print(f'warning: {len(unknown)} images of {file} are not in the validation set')


def finite(values: Sequence[Any]) -> list[float]:
    """Numbers of a file of predictions; ValueError where one is none, or not finite."""
    numbers = [float(value) for value in values]
    if not np.isfinite(numbers).all():
        raise ValueError(f'{values} are not all finite')
    return numbers


def names_and_ids(evidence: Evidence) -> tuple[dict[str, int | None], dict[Any, int]]:
    """Which image a name means, by every end of its path that only one has; and which an id."""
    by_name: dict[str, int | None] = {}
    by_id = {}
    for index, (path, info) in enumerate(zip(evidence.paths, infos(evidence.dataset), strict=True)):
        parts = parts_of(path)
        for start in range(len(parts)):
            tail = '/'.join(parts[start:])
            by_name[tail] = None if tail in by_name else index
        by_id[info.get('img_id', index)] = index
    return by_name, by_id


def known(by_name: dict[str, int | None], name: str) -> int | None:
    """The image that a relative name means: by all of it, or else by its end."""
    parts = parts_of(name)
    for start in range(len(parts)):
        if (index := by_name.get('/'.join(parts[start:]))) is not None:
            return index
    return None
