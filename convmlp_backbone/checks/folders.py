"""Classification data in folders, one a class: MMPretrain numbers the folders of every split for
itself, in the order of the alphabet."""

import os
import shlex
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from .problem import Problem, error, first_of, warning

SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif')
NO_CLASS = ('.', '@', '__')  # .ipynb_checkpoints, @eaDir, __MACOSX: beginnings of such folders


def class_folders(root: str | Path) -> list[str]:
    """The folders right below ``root``: MMPretrain's classes, in its order, hidden ones too."""
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir())


def files_below(folder: str | Path) -> Iterator[str]:
    """Every file below a folder that is not hidden, as a path."""
    for path, _, names in os.walk(folder, followlinks=True):
        yield from (os.path.join(path, name) for name in names if not name.startswith('.'))


def images_below(folder: str | Path, suffixes: Sequence[str] = SUFFIXES) -> Iterator[str]:
    """Those that MMPretrain takes for images."""
    return (path for path in files_below(folder) if path.lower().endswith(tuple(suffixes)))


def folder_problems(
    roots: dict[str, str],
    classes: Sequence[str] | None,
    num_classes: int | None,
    batch: int = 0,
    suffixes: Sequence[str] = SUFFIXES,
    learned: Sequence[str] | None = None,
) -> list[Problem]:
    """What is wrong with the folders of a classification set.

    Args:
        roots: The folder of each split; the first one's numbering is what the network learns.
        classes: The class names that the config gives, None for the folders' names.
        num_classes: Of the model's head.
        batch: So many images the first split needs for one iteration.
        learned: The classes in their order, if the first split is not the one learned from.
    """
    found: list[Problem] = []
    for split, root in roots.items():
        if not Path(root).is_dir():
            return [*found, error(root, 'no such folder')]
        folders = class_folders(root)
        if not folders:
            return [
                *found,
                error(root, 'has no folders; expected one for each class, with its images in it'),
            ]
        hidden = [name for name in folders if name.startswith(NO_CLASS)]
        empty = [
            name
            for name in folders
            if name not in hidden and not next(images_below(Path(root, name), suffixes), None)
        ]
        if hidden:
            found.append(
                error(root, f'{first_of(hidden)} would be a class: rm -r {_paths(root, hidden)}')
            )
        if learned is None:
            if empty:
                found.append(_empty_problem(root, empty, suffixes))
            elif not hidden:
                found += _numbering_problems(root, folders, classes, num_classes)
            count = sum(1 for _ in islice(images_below(root, suffixes), batch))
            if count < batch:
                found.append(
                    error(
                        root,
                        f'{count} images are less than a batch of {batch}, so '
                        'that nothing would be learned: --cfg-options '
                        f'{split}_dataloader.batch_size={count}',
                    )
                )
            if found:  # the others are judged by this one
                return found
            learned = folders
            continue
        lacking = [name for name in learned if name not in folders]
        more = [name for name in folders if name not in learned and name not in hidden]
        if more:
            found.append(
                error(
                    root,
                    f'has the folder {first_of(more)}, a class that was not '
                    f'trained on; take it away: mv {_paths(root, more)} ELSEWHERE',
                )
            )
        if lacking:
            found.append(
                error(
                    root,
                    f'has no folder {first_of(lacking)}, so that the classes behind it '
                    f'would have other numbers than in training: mkdir {_paths(root, lacking)}',
                )
            )
        elif empty and not more:
            found.append(warning(root, f'has no image of {first_of(empty)}'))
    return found


def _empty_problem(root: str, empty: Sequence[str], suffixes: Sequence[str]) -> Problem:
    other = {Path(path).suffix for name in empty for path in files_below(Path(root, name))}
    return error(
        root,
        f'{first_of(empty)} holds no image that is read '
        + (
            f'but files that end in {first_of(sorted(other))}: write '
            f'extensions={(*suffixes, *sorted(other))!r} in the data sets'
            if other
            else f'and would be a class: rm -r {_paths(root, empty)}'
        ),
    )


def _numbering_problems(
    root: str, folders: list[str], classes: Sequence[str] | None, num_classes: int | None
) -> list[Problem]:
    if num_classes and len(folders) != num_classes:
        return [
            error(
                root,
                f'has {len(folders)} folders, {first_of(folders)}, and the model '
                f'{num_classes} classes: --cfg-options model.head.num_classes='
                f'{len(folders)} data_preprocessor.num_classes={len(folders)}',
            )
        ]
    if classes and set(classes) == set(folders) and list(classes) != folders:
        return [
            error(
                root,
                f'the classes are numbered by its folders, {first_of(folders, 5)}; '
                f'the config names {first_of(classes, 5)}: write '
                f'classes={tuple(folders)!r}',
            )
        ]
    return []


def _paths(root: str, names: Sequence[str]) -> str:
    return ' '.join(shlex.quote(str(Path(root, name))) for name in names)


def list_problems(path: str, root: str, num_classes: int | None) -> list[Problem]:
    """What is wrong with a list of images: on each line a name below ``root`` and its label."""
    try:
        lines = Path(path).read_text().splitlines()
    except OSError as problem:
        return [error(path, problem.strerror or str(problem))]
    labels = []
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(' ')
        if not name or not label.isdecimal():
            return [
                error(
                    f'{path}, line {number}',
                    f'{line!r}: expected the name of an image, a space, and the index of its class',
                )
            ]
        labels.append(int(label))
        if number % max(1, len(lines) // 16) == 0 and not Path(root, name).is_file():
            return [error(f'{path}, line {number}', f'there is no {Path(root, name)}')]
    if not labels:
        return [error(path, 'lists no image')]
    if num_classes and max(labels) >= num_classes:
        return [
            error(
                path,
                f'has the class index {max(labels)}, and the model {num_classes} '
                f'classes: --cfg-options model.head.num_classes={max(labels) + 1}',
            )
        ]
    return []
