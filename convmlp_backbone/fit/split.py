"""A validation set from a folder that has none: by image, seeded."""

import random
import re
from collections.abc import Callable, Hashable

from .found import Found
from .survey import Look, copies

SHARE = 0.2  # of the images
SEED = 0


def make_splits(found: Found, looks: dict[str, Look]) -> None:
    """Divide the only split of ``found``, if it has no training or no validation set.

    Copies of an image stay together: see :func:`.survey.copies`, and those that Roboflow's
    augmentation made of one (``NAME.rf.HASH.jpg``). Of classes, each gives its share.
    """
    if 'train' in found.splits and 'val' in found.splits:
        return
    if 'train' in found.splits:
        source = 'train'
    elif 'all' in found.splits:
        source = 'all'
    else:
        source = next(iter(found.splits))
    part = found.splits.pop(source)
    images = (
        [image['file_name'] for image in part['images']]
        if isinstance(part, dict)
        else [image for image, _ in part]
    )
    strata = {} if found.task != 'classes' else dict(part)
    twice = copies(images, images, looks)
    held = held_out(
        {
            image: (
                re.sub(r'\.rf\.\w+$', '', image.rsplit('.', 1)[0]),
                *twice.get(image, [image]),
            )
            for image in images
        },
        strata,
    )
    for split, inside in (('train', lambda image: image not in held), ('val', held.__contains__)):
        found.splits[split] = subset(part, inside)
    found.notes.append(
        f'no validation set was there: {len(held)} of {len(images)} images, taken '
        f'at random (seed {SEED}), are one'
    )
    if 'test' in found.splits:
        found.splits['test'] = found.splits.pop('test')


def held_out(keys: dict[str, tuple[Hashable, ...]], strata: dict[str, Hashable]) -> set[str]:
    """The images of the validation set.

    Args:
        keys: For every image its keys; images that have one in common stay together.
        strata: For every image what it is to be represented by, such as its class.
    """
    group_of: dict[Hashable, int] = {}
    groups: list[list[str]] = []
    for image in sorted(keys):
        known = {group_of[key] for key in keys[image] if key in group_of}
        number = min(known, default=len(groups))
        if number == len(groups):
            groups.append([])
        for other in known - {number}:
            groups[number] += groups[other]
            groups[other] = []
            group_of.update({key: number for key, g in group_of.items() if g == other})
        groups[number].append(image)
        group_of.update(dict.fromkeys(keys[image], number))
    by_stratum: dict[Hashable, list[list[str]]] = {}
    for group in filter(None, groups):
        by_stratum.setdefault(strata.get(group[0]), []).append(group)
    rng, held = random.Random(SEED), set()
    for stratum in sorted(by_stratum, key=str):
        its = by_stratum[stratum]
        rng.shuffle(its)
        wanted = max(1, round(SHARE * sum(map(len, its))))
        count = 0
        for group in its[: len(its) - 1]:  # one at least is trained on
            if count >= wanted:
                break
            held.update(group)
            count += len(group)
    return held


def subset(part: dict | list, inside: Callable[[str], bool]) -> dict | list:
    """What of a split belongs to images for which ``inside`` is true."""
    if not isinstance(part, dict):
        return [pair for pair in part if inside(pair[0])]
    images = [image for image in part['images'] if inside(image['file_name'])]
    ids = {image['id'] for image in images}
    return dict(images=images, annotations=[a for a in part['annotations'] if a['image_id'] in ids])
