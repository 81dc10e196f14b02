"""Images that a data set holds twice, to the byte or to the eye."""

from collections.abc import Sequence

import numpy as np

from .problem import Problem, first_of, note, warning

ALIKE = 0.995  # correlation of small pictures
AGREEING = 0.95  # of the differences between neighbours, which are quickly compared
FLAT = 2.0  # grey values: standard deviation of a picture that shows nothing
BLOCK = 1000


def duplicate_problems(
    paths: Sequence[str], splits: Sequence[str], digests: Sequence[bytes], thumbs: np.ndarray
) -> list[Problem]:
    """The same file, or the same picture: a warning where it is in two splits, a note in one.

    Args:
        thumbs: (N, 16, 17), small grey pictures; see :func:`.images.image_facts`.
    """
    order: dict[tuple[str, str], int] = {}  # one entry of a file that several data sets read
    for i, path in enumerate(zip(splits, paths, strict=True)):
        order.setdefault(path, i)
    keep = list(order.values())
    first: dict[bytes, int] = {}
    same, alike, alone = [], [], []
    for i in keep:
        if digests[i] in first:
            same.append((first[digests[i]], i))
        else:
            first[digests[i]] = i
            alone.append(i)
    alike = [(alone[a], alone[b]) for a, b in similar(thumbs[alone])]
    found = []
    for pairs, what in ((same, 'same file'), (alike, 'same picture, as far as 16x17 pixels tell')):
        inside = [pair for pair in pairs if splits[pair[0]] == splits[pair[1]]]
        across = [pair for pair in pairs if splits[pair[0]] != splits[pair[1]]]
        if across:
            some = first_of(f'{paths[a]} and {paths[b]}' for a, b in across)
            found.append(
                warning(
                    'train and val',
                    f'{len(across)} images are in both, the {what}: '
                    f'scores will be too good; {some}',
                )
            )
        for split in dict.fromkeys(splits):
            here = [pair for pair in inside if splits[pair[0]] == split]
            if here:
                some = first_of(f'{paths[a]} and {paths[b]}' for a, b in here)
                found.append(note(split, f'{len(here)} images are there twice, the {what}: {some}'))
    return found


def similar(thumbs: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of indices of small pictures (N, H, W) that look alike (difference hash, then
    correlation); each picture is paired with the first one like it."""
    if len(thumbs) < 2:
        return []
    # Which neighbour is brighter, as 1 and -1: a matrix product counts agreements.
    signs = (
        np.where(thumbs[:, :, 1:] > thumbs[:, :, :-1], 1, -1)
        .reshape(len(thumbs), -1)
        .astype(np.float32)
    )
    grey = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    grey -= grey.mean(1, keepdims=True)
    spread = grey.std(1)
    grey /= np.maximum(spread, 1e-6)[:, None]
    least = (2 * AGREEING - 1) * signs.shape[1]
    pairs: dict[int, int] = {}
    for start in range(0, len(thumbs), BLOCK):
        stop = min(start + BLOCK, len(thumbs))
        a, b = np.nonzero(signs[start:stop] @ signs[:stop].T >= least)
        a += start
        later = b < a
        a, b = a[later], b[later]
        like = ((grey[a] * grey[b]).mean(1) > ALIKE) & (spread[a] > FLAT) & (spread[b] > FLAT)
        for i, j in zip(a[like].tolist(), b[like].tolist(), strict=True):
            pairs[i] = min(j, pairs.get(i, j))
    return [(j, i) for i, j in pairs.items()]
