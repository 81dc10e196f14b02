"""All values of a config for what was found, see :mod:`.derive`."""

import os
import random
from collections import Counter

import numpy as np
from mmengine.config import ConfigDict

from ..checkpoints import fetch, read, unwrap
from ..errors import UserError
from . import plausible
from .derive import (
    RETINA,
    RPN,
    Plan,
    anchors,
    batch_size,
    crop_size,
    image_scale,
    iterations,
    object_sizes,
    to_32,
    val_images,
)
from .found import Found
from .measure import Cost, mixed_precision
from .split import SEED, subset
from .survey import Look

PUBLISHED = dict(
    boxes='convmlp://detection/retinanet_convmlp_s_coco.pth',
    masks='convmlp://detection/maskrcnn_convmlp_s_coco.pth',
    semantic='convmlp://segmentation/sem_fpn_convmlp_s_ade20k.pth',
    classes='convmlp://convmlp_s_imagenet.pth',
)
RATES = dict(boxes=6e-4, masks=4e-4, semantic=4e-4, classes=3e-4)  # from scratch
FINE_TUNING = 1e-4
START_UP = 15  # seconds from the start to the first iteration, and from the last to the end


def first_plan(found: Found, looks: dict[str, Look], weights: str | None, where: str) -> Plan:
    """All but what is measured: batch and schedule."""
    plan = Plan()
    plan.set('device', where)
    plan.set('workers', 1 if (os.cpu_count() or 1) <= 4 else 4)
    start_from(plan, found.task, weights)
    scratch = not plan['load_from'] and not plan['backbone']
    plan.set(
        'lr',
        RATES[found.task] if scratch else FINE_TUNING,
        plan.why['load_from']
        if scratch
        else 'fine-tuning: a rate that does not spoil what the weights know',
    )
    plan.set('precision', dict(type='OptimWrapper'))
    plan.set('batch', dict(classes=16).get(found.task, 2))
    plan.set('iterations', 100)
    plan.set('warm_up', 5)
    plan.set('evaluations', 10)
    plan.set('patience', 5, 'early stop: half of the evaluations without a better one')
    plan.set('batch', min(plan['batch'], len(found.images('train'))))
    sizes = np.array(
        [looks[image].size for image in found.images('train') if looks[image].size], float
    )
    if found.task == 'classes':
        plan.set('size', 64)
        return plan
    same = bool((sizes == sizes[0]).all())
    width, height = np.median(sizes, 0)
    if found.task == 'semantic':
        factor, why = 1.0, ''
        limit = 512
        if min(width, height) > limit:
            factor = limit / min(width, height)
            why = f'{limit} pixels of the shorter side, as in the recipe for ADE20K'
        factor = to_32(max(width, height) * factor) / max(width, height)
        objects = np.zeros((0, 2))
    else:
        objects = object_sizes(found.splits['train'])
        factor, why = image_scale(objects, max(width, height), where)
    image = width * factor, height * factor
    plan.set('scale', (round(max(image)), round(max(image) if same else min(image))), why)
    if same:
        plan.set(
            'factor',
            factor,
            'all training images are of one size; so others keep the scale, not the size',
        )
    else:
        plan.set('factor', None)
    plan.set('flip', *flip_directions(found))
    if found.task == 'semantic':
        side = min(320 if where == 'cpu' else 512, to_32(min(image)))
        plan.set('crop', side)
        return plan
    plan.set('crop', *crop_size(objects * factor, image, where))
    sides, usual = (RPN, 8) if found.task == 'masks' else (RETINA, 4)
    scale, ratios, why = anchors(objects * factor, sides, usual)
    plan.set('anchors', scale, f'the smallest anchor has {sides[0] * scale:.0f} pixels: {why}')
    plan.set('ratios', ratios)
    counts = Counter(a['image_id'] for part in found.splits.values() for a in part['annotations'])
    most = max(counts.values(), default=1)
    plan.set(
        'most',
        int(np.ceil(max(100, 1.5 * most) / 100) * 100),
        f'up to {most} objects are in an image' if most > 66 else '',
    )
    plan.set(
        'samples', int(np.clip(2 ** np.ceil(np.log2(2 * np.mean(list(counts.values())))), 32, 128))
    )
    plan.set('regions', int(max(100, 2 * plan['samples'])))
    return plan


def flip_directions(found: Found) -> tuple[str, str]:
    """``'all'`` or ``'horizontal'``, and why."""
    if len(found.names) > (2 if found.task == 'semantic' else 1):
        return 'horizontal', ''
    images = [found.root / image for image in found.images('train')[:200]]
    if len(images) < 16:
        return 'horizontal', ''
    tilt = []
    for path in images:
        pixels = plausible.open_image(path, 'L')
        half = len(pixels) // 2
        tilt.append(
            (pixels[:half].mean() - pixels[-half:].mean()) / (pixels.std() + 1) if half else 0
        )
    mean, error = np.mean(tilt), np.std(tilt) / np.sqrt(len(tilt))
    if abs(mean) < 0.1 or abs(mean) < 3 * error:
        return 'all', 'one class, and above is no brighter or darker than below: any side up'
    return 'horizontal', ''


def start_from(plan: Plan, task: str, weights: str | None) -> None:
    """Set ``load_from``, of a whole model, or ``backbone``, of a classifier's weights."""
    plan.set('load_from', None)
    plan.set('backbone', None)
    if weights == 'none':
        plan.why['load_from'] = 'from scratch, as asked'
        return
    source = PUBLISHED[task] if weights in (None, 'published') else weights
    try:
        path = fetch(source)
    except UserError as error:
        if weights is not None:
            raise
        plan.why['load_from'] = (
            f'from scratch, as {PUBLISHED[task]} could not be had: {str(error).split(";")[0]}'
        )
        return
    whole = any(name.startswith('backbone.') for name in unwrap(read(path))[1])
    if whole and task != 'classes' or whole and weights not in (None, 'published'):
        plan.set(
            'load_from',
            source,
            'its layers of another number of classes are left out, with a warning',
        )
    else:
        plan.set('backbone', source)


def choose_size(
    plan: Plan, found: Found, cost: Cost, minutes: float, looks: dict[str, Look]
) -> None:
    """The side of a classifier's images, the largest that leaves 50 passes over them.

    Args:
        cost: Measured at the plan's size; changed to that of the new one.
    """
    side = float(
        np.median([min(shown) for image in found.images('train') if (shown := looks[image].size)])
    )
    passes = 60 * minutes / (cost.step * len(found.images('train')) / plan['batch'])
    for size in (224, 192, 160, 128, 96, 64):
        growth = (size / plan['size']) ** 2
        if size <= max(64, 1.25 * side) and passes / growth >= 50:
            break
    cost.step, cost.val_image, cost.memory = (
        growth * value for value in (cost.step, cost.val_image, cost.memory)
    )
    if cost.mixed is not None:
        cost.mixed *= growth
    plan.set('size', size, f'{size} pixels: the most with 50 passes over the images in the time')


def schedule(plan: Plan, found: Found, cost: Cost, minutes: float, free: float) -> None:
    """Set what depends on the measured costs."""
    seconds = max(60 * minutes - START_UP, 20)
    size, why = batch_size(
        found.task, plan['device'], free, cost.memory, len(found.images('train'))
    )
    step = cost.step
    if cost.mixed is not None and cost.mixed < step:
        step, cfg = cost.mixed, ConfigDict(optim_wrapper=dict(type='OptimWrapper'))
        words = mixed_precision(cfg, plan['device'])
        plan.set(
            'precision',
            dict(cfg.optim_wrapper),
            f'{words}: {cost.mixed:.2f} s an iteration, float32 {cost.step:.2f} s',
        )
    step *= size / plan['batch']
    plan.set('batch', size, why)
    count = len(found.images('val'))
    wanted = val_images(seconds, cost.val_image, count)
    if wanted < count:
        kept = set(random.Random(SEED).sample(found.images('val'), wanted))
        found.splits['val'] = subset(found.splits['val'], kept.__contains__)
        plan.set(
            'val',
            wanted,
            f'{wanted} of the {count} validation images, taken at random (seed '
            f'{SEED}): all would take {count * cost.val_image / 60:.0f} minutes',
        )
        count = wanted
    number, evaluations = iterations(seconds, step, cost.val_image * count)
    plan.set('evaluations', evaluations)
    passes = number * size / len(found.images('train'))
    plan.set(
        'iterations',
        number,
        f'{minutes:g} minutes: an iteration takes {step:.2f} s here, an '
        f'evaluation {cost.val_image * count:.0f} s; {passes:.0f} passes over the images',
    )
    # At least a tenth of a short training: the first steps of a high rate spoil random weights.
    plan.set('warm_up', min(500, max(1, number // 20, min(20, number // 10))))
