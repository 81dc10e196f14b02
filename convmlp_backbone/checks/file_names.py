"""Names of images in annotation files, and the files they mean."""

import os
import re
from collections.abc import Callable
from urllib.parse import unquote

import numpy as np

from .coco import CocoFile
from .datasets import image_folder
from .problem import Problem, error, first_of

SOME = 16  # files are looked for; all of them only where some of these are not there


def finder(folder: str, root: str) -> Callable[[str], str | None]:
    """A function from a name as other systems and tools write it to a name below ``folder``.

    Tried are slashes for backslashes, the name without its first folders, and, for each, letters
    in the other case; then the same with ``%20`` and the like as what they stand for. Files in
    ``root`` get their absolute path.
    """
    listings: dict[str, dict[str, str]] = {}

    def existing(base, name):
        if os.path.isfile(os.path.join(base, name)):
            return name
        inner, last = os.path.split(name)
        path = os.path.join(base, inner)
        if path not in listings:
            listings[path] = (
                {file.lower(): file for file in os.listdir(path)} if os.path.isdir(path) else {}
            )
        other = listings[path].get(last.lower())
        return other and os.path.join(inner, other)

    def find(name: str) -> str | None:
        plain = unquote(name)
        return spelled(name) or (spelled(plain) if plain != name else None)

    def spelled(name: str) -> str | None:
        parts = [part for part in re.split(r'[\\/]+', name) if part not in ('', '.')]
        tails = [os.path.join(*parts[start:]) for start in range(len(parts))]
        if found := next(filter(None, (existing(folder, tail) for tail in tails)), None):
            return found
        found = next(filter(None, (existing(root, tail) for tail in tails)), None)
        return found and os.path.abspath(os.path.join(root, found))

    return find


def fit_file_names(file: CocoFile, path: str, leaf: dict, problems: list[Problem]) -> None:
    """Change the names of images that are not there to those of the files they mean.

    Some names are looked up; only where one is not there, all of them. What cannot be found goes
    to ``problems``.
    """
    folder, images = image_folder(leaf), file.coco['images']
    if '://' in folder or not images:
        return

    def absent(image):
        return not os.path.isfile(os.path.join(folder, image['file_name']))

    some = np.unique(np.linspace(0, len(images) - 1, SOME).astype(int))
    if not any(absent(images[i]) for i in some):
        return
    find, lost, changed = finder(folder, leaf.get('data_root') or '.'), [], 0
    told: dict[str, str] = {}
    for image in images:
        before = name = str(image['file_name'])
        if absent(image):
            there = find(before)
            if there is None:
                lost.append(before)
                continue
            image['file_name'] = name = there
            changed += 1
        if told.setdefault(name, before) != before:
            problems.append(
                error(
                    path,
                    f'{told[name]} and {before} are not in {folder}, and '
                    f'{name} cannot be both; {_there_is(folder, leaf, before)}',
                )
            )
            return
    if lost:
        problems.append(
            error(
                path,
                f'{len(lost)} of {len(images)} images are not in {folder}, '
                f'such as {lost[0]}; {_there_is(folder, leaf, lost[0])}',
            )
        )
    if changed:
        file.done.append(f'{changed} names of images to those of the files there')


def _there_is(folder: str, leaf: dict, name: str) -> str:
    """Where a lost file could be."""
    root, base = leaf.get('data_root') or '.', re.split(r'[\\/]+', str(name))[-1]
    for path, folders, files in os.walk(root):
        if base in files:
            return f"write data_prefix=dict(img='{os.path.relpath(path, root)}/')"
        if path.count(os.sep) - root.count(os.sep) > 2:
            folders.clear()
    if not os.path.isdir(folder):
        return 'there is no such folder: data_prefix=dict(img=...) names the one below data_root'
    return f'there are {first_of(sorted(os.listdir(folder))) or "no files"}'
