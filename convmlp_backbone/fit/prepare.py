"""The whole way from a folder to a config."""

from pathlib import Path

from ..errors import UserError
from . import checks
from .derive import Plan
from .found import Found
from .layouts import read
from .measure import device, free_memory, measure
from .plan import choose_size, first_plan, schedule
from .split import make_splits
from .survey import Look, survey
from .write_config import write_config, write_data

MASKS = 600  # iterations from scratch without which Mask R-CNN learns next to nothing
MASKS_FROM_WEIGHTS = 150


def look_at(
    folder: Path,
    task: str | None = None,
    unlabelled: int | None = None,
    classes: list[str] | None = None,
    force: bool = False,
) -> tuple[Found, dict[str, Look]]:
    """What is in a folder, with ``train`` and ``val``, and whether it is worth training on.

    Args:
        folder, task, unlabelled, classes: As :func:`.layouts.read` has them.
        force: Look on where the labels themselves are wrong.

    Returns:
        What was found, ``errors`` and ``notes`` filled, and a look of every image.

    Raises:
        UserError: There is nothing to look at.
    """
    found = read(folder, task, unlabelled, classes)
    found.errors += checks.empty_split(folder, found)
    images = sorted({image for split in found.splits for image in found.images(split)})
    if not images and not found.errors:
        raise UserError(f'{folder}: {found.layout}, but no labelled image')
    looks = survey(folder, images)
    if images and (force or not found.errors):
        make_splits(found, looks)
        checks.check(found, looks)
    return found, looks


def make_config(
    found: Found,
    looks: dict[str, Look],
    folder: Path,
    minutes: float,
    weights: str | None,
    or_boxes: bool,
) -> tuple[Plan, Path]:
    """Derive and measure all values, and write ``folder/config.py``.

    Args:
        or_boxes: Take boxes where the time does not suffice for masks.
    """
    where = device()
    while True:
        plan = first_plan(found, looks, weights, where)
        write_data(found, folder / 'data')
        cost = measure(write_config(found, plan, folder))
        if found.task == 'classes':
            choose_size(plan, found, cost, minutes, looks)
        schedule(plan, found, cost, minutes, free_memory())
        wanted = MASKS_FROM_WEIGHTS if plan['load_from'] else MASKS
        if found.task != 'masks' or not or_boxes or plan['iterations'] >= wanted:
            break
        found.notes.append(
            f'the objects have masks; the {plan["iterations"]} iterations of '
            f'{minutes:g} minutes are too few to learn them, so boxes it is. Masks: '
            f'--task masks --minutes {minutes * wanted / plan["iterations"]:.0f}'
        )
        found.task = 'boxes'
    if cost.busy > 2:
        found.notes.append(
            f'others work on this machine: everything takes {cost.busy:.0f} times '
            'as long as it could'
        )
    write_data(found, folder / 'data')  # schedule may have taken a part of the validation images
    return plan, write_config(found, plan, folder)
