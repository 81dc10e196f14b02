"""A folder of images for each class, with or without ``train/`` and ``val/`` above."""

from pathlib import Path

from .found import SPLITS, SUFFIXES, Found, files_below, some


def read(root: Path) -> Found | None:
    """The data set of the folders below ``root``; None if they are no classes."""
    images = files_below(root, SUFFIXES)
    above = wrapping([Path(image).parts[:-1] for image in images])
    folders = {inner[0] for image in images if len(inner := Path(image).parts[above:]) > 1}
    by_split = {SPLITS[f.lower()]: f for f in sorted(folders) if f.lower() in SPLITS}
    if not by_split and len(folders) < 2:
        return None
    if not by_split or 'train' not in by_split and 'val' not in by_split:
        by_split = {'all': ''}
    parts: dict[str, list[tuple[str, str]]] = {}
    for split, folder in by_split.items():
        depth = above + bool(folder)
        inside = [i for i in images if not folder or Path(i).parts[above] == folder]
        parts[split] = [(i, Path(i).parts[depth]) for i in inside if len(Path(i).parts) > depth + 1]
        if not folder and len(parts[split]) < len(images):
            return None  # images outside of all classes
    parts = {split: part for split, part in parts.items() if part}
    if not parts:
        return None
    learned = parts.get('train') or parts.get('all') or next(iter(parts.values()))
    names = sorted({name for _, name in learned})
    found = Found(root, 'folders of classes', 'classes', names, {})
    if not by_split.keys() <= {'all'} and 'train' in by_split and not parts.get('train'):
        found.errors.append(f'{by_split["train"]}/ has no images in folders of classes')
    for split, part in parts.items():
        if more := sorted({name for _, name in part} - set(names)):
            found.errors.append(
                f'{by_split[split]}/ has images of {some(more)}, which the '
                f'training images have not ({some(names, 8)})'
            )
        if lacking := sorted(set(names) - {name for _, name in part}):
            found.notes.append(f'{by_split[split]}/ has no images of {some(lacking)}')
        found.splits[split] = [(image, names.index(name)) for image, name in part if name in names]
    return found


def wrapping(folders: list[tuple[str, ...]]) -> int:
    """How many folders all images have in common above those of splits and classes, as where an
    archive was unpacked into one of its own."""
    count = 0
    for names in zip(*folders, strict=False):
        if len(set(names)) > 1 or names[0].lower() in SPLITS:
            break
        count += 1
    # A folder that holds all images is a class, or one that others lie in.
    return count if all(len(parts) > count for parts in folders) else 0
