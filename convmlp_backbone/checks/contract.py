"""What a class index means, from the file to the picture, and that all agree.

    annotation file -> data set -> head -> checkpoint -> evaluator -> prediction file -> picture

MMDetection numbers the labels of a COCO data set by the order of the categories in its file,
whatever the order of ``metainfo.classes``; everything behind it takes the names of
``metainfo.classes``. So here the training file's order is the numbering: ``metainfo`` is written
in it before anything is built, and goes into the checkpoint with the ids of the categories; files
of other splits are read in that order too, from copies where need be. MMPretrain numbers folders
by the alphabet; MMSegmentation takes the values in the masks.

:func:`check` is the fast part, which train and test run first: it reads annotation files once,
lists of files, and some samples; predict asks :func:`numbering`. ``check_dataset`` looks at
everything.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmengine.config import Config

from ..config import walk
from ..errors import UserError
from ..processes import is_first_process
from .coco import CocoFile, collector_paused, read_categories
from .datasets import (
    annotation_path,
    class_of,
    classes_of,
    image_folder,
    is_coco,
    leaves,
    read_classes,
    scope_of,
)
from .file_names import fit_file_names
from .folders import SUFFIXES, folder_problems, list_problems
from .loaders import SOME, loader_problems, sample_problems
from .masks import split_problems
from .names import fill_palette, full_palette, metainfo_problems
from .problem import Problem, error, first_of, note, warning


class Contract:
    """The numbering of the classes, and what is found wrong on the way.

    Args:
        cfg (Config): The whole config. It is changed: classes in the order of their numbers, full
            palettes, annotation files that had to be mended replaced by copies.
        splits: The parts of the data that the job reads; the numbering is that of ``'train'``.
        meta: ``dataset_meta`` of the checkpoint, if the job has one: its numbering goes first.
        folder: Where mended copies go.
        most (int): So many annotations are named for a kind of problem.
        samples (bool): Look into some of them, and run them through their pipelines.
    """

    def __init__(
        self,
        cfg: Config,
        splits: Sequence[str],
        meta: dict | None = None,
        folder: str | Path = 'mended',
        most: int = 3,
        samples: bool = True,
    ):
        self.samples = samples
        self.cfg, self.splits, self.folder, self.most = cfg, list(splits), Path(folder), most
        self.problems: list[Problem] = []
        self.meta = meta or {}
        self.excerpts: dict[str, dict] = {}  # of annotation files, for the samples
        self.names: list[str] | None = None  # of class 0, 1, ...
        self.learned: dict[str, set[str]] = {}  # classes with objects, by the training set's path
        self.ids: list[int] | None = None  # of their categories in the training file
        if 'category_ids' in self.meta:
            self.names, self.ids = list(self.meta['classes']), list(self.meta['category_ids'])

    @property
    def failed(self) -> bool:
        return any(problem.severity == 'error' for problem in self.problems)

    def leaves(self, split: str) -> Iterator[tuple[str, dict, type]]:
        """Path, config and class of every data set of a split, those inside wrappers too."""
        loader = self.cfg.get(f'{split}_dataloader') or {}
        for path, leaf in leaves(loader.get('dataset'), f'{split}_dataloader.dataset'):
            if kind := class_of(leaf):
                yield path, leaf, kind

    def run(self) -> list[Problem]:
        """Check everything that is fast, in the order in which a job would trip over it."""
        with scope_of(self.cfg):
            for split in self.splits:
                for path, leaf, kind in self.leaves(split):
                    self.problems += metainfo_problems(leaf, path)
                    if not self.failed:
                        fill_palette(leaf, kind)
                self.problems += loader_problems(self.cfg, split)
            for step in (
                self.check_coco,
                self.check_masks,
                self.check_folders,
                self.check_heads,
                *[self.check_samples] * self.samples,
            ):
                if self.failed:
                    break
                step()
        return self.problems

    # COCO files

    def check_coco(self) -> None:
        if self.names is None and 'train' not in self.splits:
            self.names, self.ids = training_numbering(self.cfg)
        told = self.meta.get('classes') or ()
        if told and self.names and set(told) != set(self.names) and 'train' not in self.splits:
            self.problems.append(
                warning(
                    'checkpoint',
                    f'was trained on {first_of(told, 5)}, the '
                    f'config names {first_of(self.names, 5)}',
                )
            )
        for split in self.splits:
            parts = [part for part in self.leaves(split) if is_coco(part[2])]
            images: dict[int, str] = {}
            for path, leaf, kind in parts:
                old = annotation_path(leaf)
                images = self._check_coco_file(split, path, leaf, kind) or {}
                for name, evaluator in evaluators(self.cfg, split):
                    file = evaluator.get('ann_file')
                    if not file or len(parts) > 1 or not images:
                        continue
                    if os.path.realpath(file) == os.path.realpath(old):
                        evaluator['ann_file'] = annotation_path(leaf)
                    else:
                        self._check_evaluator_file(name, evaluator, images, old)
        self.check_learned()

    def check_learned(self) -> None:
        """Classes that the config names itself have objects in the training set."""
        seen = set().union(*self.learned.values())
        absent = [name for name in self.names or () if name not in seen]
        if seen and absent:
            self.problems.append(
                warning(
                    ', '.join(self.learned),
                    f'has no object of {first_of(absent, 5)}: never learned, and not in the mean '
                    'of the scores; leave it out of metainfo.classes, or label some',
                )
            )

    @collector_paused()
    def _check_coco_file(self, split: str, path: str, leaf: dict, kind: type) -> dict | None:
        """Check a file, mend it, and return the names of its images by their ids."""
        try:
            file = CocoFile(annotation_path(leaf))
        except UserError as problem:
            self.problems.append(error(path, str(problem)))
            return None
        classes, own = classes_of(leaf, kind), read_classes(leaf) is not None
        if self.names is None:
            self.problems += file.name_problems(classes, own)
            if self.failed:
                return None
            self.names = [name for name in file.names if name in set(classes)]
            self.ids = [c['id'] for c in file.coco['categories'] if c['name'] in set(classes)]
        elif set(classes) != set(self.names):
            self.problems.append(
                error(
                    f'{path}.metainfo',
                    f'names the classes {first_of(classes, 5)}, the training set '
                    f'has {first_of(self.names, 5)}: write classes={tuple(self.names)!r} in both',
                )
            )
            return None
        else:
            self.problems += file.other_name_problems(self.names)
            file.order_categories(self.names)
        fit_file_names(file, path, leaf, self.problems)
        self.problems += file.problems(self.names, needs_outlines(self.cfg, split), self.most)
        if split == 'train':
            if own:
                self.learned[path] = file.learned()
            self.problems += file.filter_problems(
                path, leaf.get('filter_cfg') or {}, self.names, batch_of(self.cfg, split)
            )
        self.write_names(leaf, kind, split)
        if not self.failed:
            leaf['ann_file'] = self.mended(file, split) or leaf['ann_file']
            self.excerpts[annotation_path(leaf)] = file.excerpt(SOME)
        return file.files

    def write_names(self, leaf: dict, kind: type, split: str) -> None:
        """Give a data set its classes in the order of their numbers, and a colour for each."""
        metainfo, names = dict(leaf.get('metainfo') or {}), self.names or []
        classes = classes_of(leaf, kind)
        if list(classes) != names:
            palette = metainfo.get('palette')
            if palette and not isinstance(palette, str):
                colours = dict(zip(classes, palette, strict=False))
                metainfo['palette'] = full_palette(
                    [colours[name] for name in names if name in colours], len(names)
                )
            metainfo['classes'] = tuple(names)
            if split == 'train':
                self.problems.append(
                    note(
                        split,
                        f'classes are numbered as the file has them, {first_of(names, 5)}',
                    )
                )
        if split == 'train':
            metainfo['category_ids'] = list(self.ids or ())
        leaf['metainfo'] = metainfo
        leaf.pop('classes', None)

    def mended(self, file: CocoFile, name: str) -> str | None:
        """The path of a copy of a file in which something was mended."""
        if not file.done:
            return None
        path = self.folder / f'{name}_{Path(file.path).stem}.json'
        file.save(path)
        self.problems.append(note(file.path, f'read as {path}: {"; ".join(file.done)}'))
        return os.path.abspath(path)

    def _check_evaluator_file(
        self, name: str, evaluator: dict, images: dict[int, str], own: str
    ) -> None:
        """An evaluator's file that is not the data set's has to tell of the same images."""
        try:
            file = CocoFile(evaluator['ann_file'])
        except UserError as problem:
            self.problems.append(error(f'{name}.ann_file', str(problem)))
            return
        if _base_names(file.files) != _base_names(images):
            same = set(_base_names(file.files).items()) & set(_base_names(images).items())
            self.problems.append(
                error(
                    f'{name}.ann_file',
                    f'{file.path} tells of {len(file.files)} images, the data set '
                    f'{own} of {len(images)}, {len(same)} of them the same: write '
                    f'{name} = dict(ann_file={own!r})',
                )
            )
        elif not self.failed:
            file.order_categories(self.names or ())
            evaluator['ann_file'] = self.mended(file, name) or file.path

    # Masks and folders

    def check_masks(self) -> None:
        for split in self.splits:
            for path, leaf, kind in self.leaves(split):
                if not hasattr(kind, 'get_label_map'):
                    continue
                classes = classes_of(leaf, kind)
                if not classes:
                    self.problems.append(
                        error(
                            f'{path}.metainfo',
                            'names no classes; write metainfo=dict(classes=('
                            "'background', ...)), in the order of the values in the masks",
                        )
                    )
                    continue
                learned = (
                    self.names
                    or list(self.meta.get('classes') or ())
                    or (
                        classes_of(*part[1:])
                        if split != 'train' and (part := next(self.leaves('train'), None))
                        else None
                    )
                )
                if (
                    learned
                    and list(classes) != list(learned)
                    and (set(classes) == set(learned) or len(classes) != len(learned))
                ):
                    self.problems.append(
                        error(
                            f'{path}.metainfo',
                            f'names the classes {first_of(classes, 5)}, those '
                            f'learned are {first_of(learned, 5)}: write classes={tuple(learned)!r}',
                        )
                    )
                    continue
                self.names = list(classes)
                needed = split == 'train'
                self.problems += split_problems(path, leaf, kind, classes, needed, self.samples)

    def check_folders(self) -> None:
        roots, suffixes = {}, SUFFIXES
        parts = [('train', *part) for part in self.leaves('train')] + [
            (split, *part)
            for split in self.splits
            if split != 'train'
            for part in self.leaves(split)
        ]
        classes = None
        for split, _, leaf, kind in parts:
            if not hasattr(kind, '_find_samples') or leaf.get('with_label') is False:
                continue
            root = image_folder(leaf)
            if leaf.get('split') and not leaf.get('data_prefix'):
                root = os.path.join(root, leaf['split'])
            if leaf.get('ann_file'):
                self.problems += list_problems(annotation_path(leaf), root, head_classes(self.cfg))
            elif 'train' in self.splits or split != 'train' or os.path.isdir(root):
                roots[split] = root
                suffixes = leaf.get('extensions', SUFFIXES)
                classes = classes or classes_of(leaf, kind)
        if roots:
            own = any(read_classes(part[2]) for part in parts)
            learned = list(self.meta.get('classes') or ()) if 'train' not in roots else None
            self.problems += folder_problems(
                roots,
                classes if own else None,
                head_classes(self.cfg),
                batch_of(self.cfg, 'train') if 'train' in self.splits else 0,
                suffixes,
                learned,
            )

    # The model and the evaluators

    def check_heads(self) -> None:
        """The heads' numbers of classes, and what evaluators ask of the heads."""
        names = self.names or []
        number = len(names) or None
        for path, head, classes in heads(self.cfg):
            if number is not None and classes != number:
                self.problems.append(
                    error(
                        f'{path}.num_classes',
                        f'is {classes}, the data set has {number} classes, '
                        f'{first_of(names)}: --cfg-options {path}.num_classes={number}',
                    )
                )
            elif classes == 1 and 'loss_decode' in head:
                self.problems.append(
                    error(
                        f'{path}.num_classes',
                        'is 1: of one class alone there is nothing to tell '
                        "apart; write num_classes=2, classes=('background', ...), masks of 0 and 1",
                    )
                )
        model = [head for _, head in walk(self.cfg.get('model') or {})]
        for split in self.splits:
            for name, evaluator in evaluators(self.cfg, split):
                metrics = evaluator.get('metric') or ()
                if 'segm' in metrics and not any('mask' in key for part in model for key in part):
                    self.problems.append(
                        error(
                            f'{name}.metric',
                            "asks for segm, and the model has no masks: write metric='bbox'",
                        )
                    )
                top = evaluator.get('topk') or ()
                top = max([top] if isinstance(top, int) else top, default=0)
                if (
                    evaluator.get('type') == 'Accuracy'
                    and (number := head_classes(self.cfg))
                    and top > number
                ):
                    self.problems.append(
                        error(f'{name}.topk', f'is {top}, of {number} classes: write topk=(1, )')
                    )

    def check_samples(self) -> None:
        """Some samples of every split run through their pipelines."""
        seen = []
        for split in self.splits:
            if (settings := self.cfg.get(f'{split}_dataloader')) in seen:
                continue  # test is val
            seen.append(settings)
            self.problems += sample_problems(self.cfg, split, self.excerpts)


def training_numbering(cfg: Config) -> tuple[list[str] | None, list[int] | None]:
    """Names of class 0, 1, ... and ids of their categories by the config's COCO training file.

    None where there is no such file, or not with the classes of the config.
    """
    loader = cfg.get('train_dataloader') or {}
    with scope_of(cfg):
        for _, leaf in leaves(loader.get('dataset')):
            kind, file = class_of(leaf), annotation_path(leaf)
            if kind and is_coco(kind) and os.path.isfile(file):
                classes = set(classes_of(leaf, kind))
                categories = [c for c in read_categories(file) if c['name'] in classes]
                if {c['name'] for c in categories} == classes and len(categories) == len(classes):
                    return [c['name'] for c in categories], [c['id'] for c in categories]
                break
    return None, None


def numbering(cfg: Config, meta: dict | None) -> tuple[list[str] | None, list[int] | None]:
    """Names of class 0, 1, ... of a checkpoint, and ids of their categories where they are known.

    A checkpoint with ``category_ids`` tells itself. In others, of MMDetection's own training, the
    names have the config's order while the labels had the annotation file's: that of the config's
    training file, as long as it is there.

    Args:
        meta: ``dataset_meta`` of the checkpoint.
    """
    meta = meta or {}
    if 'category_ids' in meta:
        return list(meta['classes']), list(meta['category_ids'])
    names, ids = training_numbering(cfg)
    told = list(meta.get('classes') or ())
    if names is None or told and set(told) != set(names):
        return told or None, None
    return names, ids


def _base_names(files: dict[int, str]) -> dict[int, str]:
    return {number: re.split(r'[\\/]', str(path))[-1] for number, path in files.items()}


def evaluators(cfg: Config, split: str) -> list[tuple[str, dict]]:
    """The evaluators of a split, each with its path in the config."""
    if split == 'train':
        return []
    found = cfg.get(f'{split}_evaluator') or []
    return (
        [(f'{split}_evaluator', found)]
        if isinstance(found, dict)
        else [(f'{split}_evaluator.{i}', part) for i, part in enumerate(found)]
    )


def needs_outlines(cfg: Config, split: str) -> bool:
    """Whether the job fails where an object has no outline: it loads or evaluates masks."""
    loader = cfg.get(f'{split}_dataloader') or {}
    return any(part.get('with_mask') for _, part in walk(loader.get('dataset') or {})) or any(
        'segm' in (evaluator.get('metric') or ()) for _, evaluator in evaluators(cfg, split)
    )


def batch_of(cfg: Config, split: str) -> int:
    """The images without which an epoch has no iteration."""
    loader = cfg.get(f'{split}_dataloader') or {}
    return loader.get('batch_size', 1) if loader.get('drop_last') else 1


def heads(cfg: Config) -> Iterator[tuple[str, dict, int]]:
    """Path, config and number of classes of every head that tells it."""
    for path, head in walk(cfg.get('model') or {}, 'model'):
        classes = head.get('num_classes')
        if not path.endswith('data_preprocessor') and isinstance(classes, int):
            yield path, head, classes


def head_classes(cfg: Config) -> int | None:
    """The number of classes of a classifier's head."""
    head = (cfg.get('model') or {}).get('head') or {}
    return head.get('num_classes') if isinstance(head, dict) else None


def check(
    cfg: Config,
    splits: Sequence[str],
    meta: dict | None = None,
    folder: str | Path = 'mended',
    most: int = 3,
) -> list[Problem]:
    """The fast part of the checks; see :class:`Contract`, whose arguments these are."""
    return Contract(cfg, splits, meta, folder, most).run()


def require_names(cfg: Config, names: Sequence[str]) -> None:
    """Check the names that predictions will get, the checkpoint's or the config's.

    Raises:
        UserError: There are more or fewer than the heads have classes, or the config writes them
            in a way that no toolbox reads.
    """
    loader = cfg.get('test_dataloader') or {}
    for path, leaf in leaves(loader.get('dataset'), 'test_dataloader.dataset'):
        for problem in metainfo_problems(leaf, path):
            raise UserError(str(problem))
    for path, _, number in heads(cfg):
        if number != len(names):
            raise UserError(
                f'{path}.num_classes: is {number}, and there are names of {len(names)} '
                f'classes, {first_of(names)}: write test_dataloader.dataset.metainfo='
                f'dict(classes=(...)) with {number} names, or --no-check'
            )


def require(cfg: Config, splits: Sequence[str], meta: dict | None = None) -> None:
    """Check the data of a job before anything is loaded, and print what is left out.

    Raises:
        UserError: One line: the first error, and how many more there are.
    """
    problems = check(cfg, splits, meta, Path(cfg.get('work_dir') or '.', 'mended'))
    errors = [problem for problem in problems if problem.severity == 'error']
    if errors:
        more = f' ({len(errors) - 1} more: check_dataset lists them)' if errors[1:] else ''
        raise UserError(f'{errors[0]}{more}')
    if is_first_process():
        told = [problem for problem in problems if problem.severity != 'error']
        for problem in told[:5]:
            print(f'{problem.severity}: {problem}', flush=True)
        if told[5:]:
            print(f'{len(told) - 5} more such lines: check_dataset', flush=True)
