"""All of the data of a config: every file, every sample, and the evaluation of the truth."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..config import walk
from .contract import Contract
from .datasets import class_of, classes_of, leaves, scope_of
from .duplicates import duplicate_problems
from .loaders import batch_problems, input_channels, model_classes, unwrap
from .masks import counts_of
from .problem import Problem, alike, error
from .quiet import one_line, quiet
from .samples import Job, Sample, check_samples
from .selftest import self_test
from .statistics import anchor_sizes, histogram, object_lines, size_problems


class Whole:
    """Look at all of a config's data.

    Args:
        cfg (Config): Changed as :class:`Contract` does.
        folder: Where mended annotation files go.
        processes (int): That read samples.
        progress: ``progress(iterable, words, total)`` shows how far one is.
        tell: Takes a line about what there is.

    Attributes:
        count (int): Samples seen.
        datasets (dict): Of the splits that could be built.
        scores (dict): Of the truth as prediction, by split.
    """

    def __init__(
        self,
        cfg: Config,
        folder: str | Path,
        processes: int,
        progress: Callable,
        tell: Callable = print,
    ):
        self.cfg, self.folder, self.processes = cfg, folder, processes
        self.progress, self.tell = progress, tell
        self.count = 0
        self.datasets: dict[str, Any] = {}
        self.scores: dict[str, dict[str, float]] = {}
        self.paths: list[str] = []
        self.splits: list[str] = []
        self.digests: list[bytes] = []
        self.thumbs: list[np.ndarray] = []

    def run(self, splits: Sequence[str] = ('train', 'val')) -> list[Problem]:
        splits = [split for split in splits if self.cfg.get(f'{split}_dataloader')]
        problems = Contract(self.cfg, splits, folder=self.folder, most=10, samples=False).run()
        with scope_of(self.cfg):
            told = any(problem.severity == 'error' for problem in problems)
            for split in splits:
                problems += self.check_split(split, told)
            if self.digests:
                problems += duplicate_problems(
                    self.paths, self.splits, self.digests, np.stack(self.thumbs)
                )
            for split in splits:
                if (
                    split != 'train'
                    and split in self.datasets
                    and not any(problem.severity == 'error' for problem in problems)
                ):
                    words = f'Scoring the truth of {split}'
                    scores, found = self_test(
                        self.cfg,
                        split,
                        self.datasets[split],
                        lambda indices, words=words: self.progress(indices, words, len(indices)),
                    )
                    problems += found
                    self.scores[split] = scores
                    self.tell(
                        f'{split}: the truth as prediction scores '
                        + ', '.join(f'{name} {value:g}' for name, value in scores.items())
                    )
        return list(dict.fromkeys(problems))

    def check_split(self, split: str, told: bool) -> list[Problem]:
        """Look at a split; why it cannot be built may be ``told`` already."""
        settings = self.cfg[f'{split}_dataloader'].dataset
        try:
            with quiet():
                dataset = DATASETS.build(settings)
        except Exception as problem:  # whatever the toolbox raises would end the training too
            return [] if told else [error(f'{split}_dataloader.dataset', one_line(problem))]
        self.datasets[split] = dataset
        problems: list[Problem] = []
        of_samples: list[Problem] = []
        labels: Counter[int] = Counter()
        sizes: list[np.ndarray] = []
        shapes, empty = set(), 0
        parts = list(leaves(settings, f'{split}_dataloader.dataset'))
        places = list(unwrap(dataset))
        for number, part in enumerate(places):
            path, leaf = parts[number if len(parts) == len(places) else 0]
            kind = class_of(leaf)
            counts = (
                counts_of(leaf, kind, classes_of(leaf, kind), path)
                if kind and hasattr(kind, 'get_label_map') and classes_of(leaf, kind)
                else None
            )
            loaders = [t for _, t in walk(settings) if t.get('type') == 'LoadImageFromFile']
            job = Job(
                part,
                model_classes(self.cfg.get('model')),
                input_channels(self.cfg),
                bool(loaders),
                all(t.get('color_type', 'color') == 'color' for t in loaders),
            )
            for sample in check_samples(
                job,
                self.processes,
                lambda found, total: self.progress(found, f'Checking {split}', total),
            ):
                of_samples += sample.problems
                self.keep(split, sample)
                shapes.add(sample.shape)
                labels.update(sample.labels)
                if sample.sizes is not None:
                    sizes.append(sample.sizes)
                    empty += not len(sample.sizes)
                if sample.mask and counts:
                    counts.put(*sample.mask)
            if counts:
                problems += counts.problems(True, split == 'train')
                pixels = Counter(dict(enumerate(counts.classes.tolist())))
                self.tell(f'{split}: pixels: {histogram(+pixels, counts.names)}')
        problems += alike(of_samples)
        classes = list(getattr(dataset, 'metainfo', {}).get('classes') or ())
        all_sizes = np.concatenate(sizes or [np.zeros(0)])
        anchors = anchor_sizes(self.cfg.get('model'))
        for line in object_lines(labels, all_sizes, classes, anchors):
            self.tell(f'{split}: {line}')
        if empty:
            self.tell(f'{split}: {empty} images without an object')
        if split == 'train':
            problems += size_problems(all_sizes, anchors, f'{split}_dataloader.dataset')
        return problems + batch_problems(self.cfg, split, shapes - {()})

    def keep(self, split: str, sample: Sample) -> None:
        """What is needed to find duplicates."""
        self.count += 1
        if sample.digest and sample.thumb is not None:
            self.paths.append(sample.path)
            self.splits.append(split)
            self.digests.append(sample.digest[:16])
            self.thumbs.append(sample.thumb)
