"""Optimizer and schedule on resume: the config's settings hold, the checkpoint's state goes on."""

import copy
from collections import Counter
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from mmengine.optim import OptimWrapper
from mmengine.runner import Runner

from ..errors import TrainingStopped

LENGTHS = ('end', 'T_max', 'total_steps', 'milestones')  # of a schedule
INF = int(1e9)  # MMEngine's end of a schedule that has none
WAY_OUT = (
    'put it back, or start anew from the weights: --cfg-options load_from=CHECKPOINT '
    'instead of --resume'
)


def plain(items: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of a dict that are numbers, texts, None, or lists and tuples of these."""
    found = {}
    for key, value in items.items():
        if isinstance(value, Counter):  # milestones
            value = sorted(value.items())
        if hasattr(value, 'item') and getattr(value, 'size', None) == 1:  # a number of NumPy's
            value = value.item()
        if _is_plain(value):
            found[key] = value
    return found


def _is_plain(value):
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def settings(runner: Runner) -> dict[str, Any]:
    """What the config makes of optimizer and schedule before the first step; {} of several."""
    wrapper, schedulers = runner.optim_wrapper, runner.param_schedulers or []
    if not isinstance(wrapper, OptimWrapper) or not isinstance(schedulers, list):
        return {}
    return dict(
        optimizer=type(wrapper.optimizer).__name__,
        wrapper=dict(
            optim_wrapper=type(wrapper).__name__,
            accumulative_counts=wrapper._accumulative_counts,
            dtype=str(getattr(wrapper, 'cast_dtype', None)),
        ),
        groups=[plain(group) for group in wrapper.param_groups],
        schedule=[plain(scheduler.state_dict()) for scheduler in schedulers],
    )


def differences(old: Sequence[dict], new: Sequence[dict]) -> dict[str, tuple]:
    """What differs of two lists of dicts: {key: (old value, new value)}, each the first."""
    return {
        key: (a[key], b[key])
        for a, b in reversed(list(zip(old, new, strict=False)))
        for key in sorted(a.keys() & b.keys())
        if a[key] != b[key]
    }


def adopt(
    runner: Runner,
    fresh: dict,
    checkpoint: dict,
    old: dict,
    lengths: dict,
    iteration: int,
    epoch: int,
    moved: bool,
) -> list[str]:
    """Make ``checkpoint`` agree with what the config says of optimizer and schedule.

    Nothing is changed, to the last bit, where the config says the same as before. Else the
    schedule is that of a training that had this config from its beginning.

    Args:
        runner (Runner): Its optimizer and schedulers have not stepped.
        fresh (dict): The :func:`settings` of its config.
        checkpoint (dict): Changed in place.
        old (dict): The settings that the checkpoint was made with; {} if it does not tell.
        lengths (dict): ``iters``, ``epochs`` (1 where they are not counted) and ``epoch``, the
            iterations of one, of the training by this config; ``old_iters``, ``old_epochs``.
        iteration (int): How many iterations this config takes to where the checkpoint is.
        epoch (int): How many epochs are done.
        moved (bool): Whether ``iteration`` is not the checkpoint's.

    Returns:
        list[str]: What differs, as ``name old -> new``.

    Raises:
        TrainingStopped: The optimizer is another, or the training longer than its schedule.
    """
    if not fresh or 'optimizer' not in checkpoint:
        return []
    state = checkpoint['optimizer']
    _require_same_optimizer(runner.optim_wrapper.optimizer, fresh, state, old)
    schedule, before = fresh['schedule'], old.get('schedule')
    if before is None:  # a checkpoint of MMEngine alone: what it counts is no setting
        counts = ('last_step', 'best', 'num_bad_epochs', 'cooldown_counter')
        before, schedule = (
            [
                {
                    key: value
                    for key, value in plain(part).items()
                    if key not in counts and key[0] != '_'
                }
                for part in parts
            ]
            for parts in (checkpoint.get('param_schedulers') or [], schedule)
        )
    changed = differences(old.get('groups', []), fresh['groups'])
    other = differences([old.get('wrapper', {})], [fresh['wrapper']])
    for unit in ('epochs', 'iters'):
        if lengths[f'old_{unit}'] not in (None, lengths[unit]):
            other[f'max_{unit}'] = lengths[f'old_{unit}'], lengths[unit]
    steps = differences(before, schedule)
    if len(before) != len(schedule):
        steps['param_scheduler'] = len(before), len(schedule)
    rescheduled = bool(steps)
    # MMEngine's end is that of the training where the config gives none.
    if steps.keys() <= {'end'}:
        _require_schedule_for_length(runner, schedule, lengths, 'end' in steps)
        steps = {}
    told = {
        **other,
        **changed,
        **{
            key: value
            for key, value in steps.items()
            if not (old and key in ('base_values', '_last_value'))
        },
    }
    schedulers = runner.param_schedulers or []
    groups = runner.optim_wrapper.param_groups
    keys = set(changed)
    if schedulers and (rescheduled or moved and not all(s.by_epoch for s in schedulers)):
        if any(getattr(s, 'need_val_args', False) for s in schedulers):
            raise TrainingStopped(
                f'the schedule is another ({listed(told)}), and ReduceOnPlateau '
                f'cannot be taken up at another: {WAY_OUT}'
            )
        schedulers, groups, _ = rehearse(schedulers, groups, iteration, epoch, lengths['epoch'])
        checkpoint['param_schedulers'] = [s.state_dict() for s in schedulers]
        names = {s.param_name for s in schedulers}
        keys |= names | {f'initial_{name}' for name in names}
    saved = [*state['param_groups'], *filter(None, [state.get('base_param_settings')])]
    for there, here in zip(saved, groups, strict=True):
        there.update({key: here[key] for key in keys & here.keys()})
    return [listed(told)] if told else []


def listed(changes: Mapping[str, tuple]) -> str:
    return ', '.join(
        f'{key} {old} -> {new}'
        for key, (old, new) in changes.items()
        if not key.startswith(('initial_', '_'))
    )


def _require_same_optimizer(optimizer, fresh, state, old):
    saved, now = state['param_groups'], optimizer.param_groups
    unknown = saved[0].keys() - now[0].keys() if saved else set()
    missing = optimizer.defaults.keys() - saved[0].keys() if saved else set()
    if old.get('optimizer', fresh['optimizer']) != fresh['optimizer'] or unknown and missing:
        raise TrainingStopped(
            f'the checkpoint is of the optimizer {old.get("optimizer", "")} '
            f'({", ".join(sorted(unknown))}), the config says '
            f'{fresh["optimizer"]}: {WAY_OUT}'
        )
    sizes = [[len(group['params']) for group in groups] for groups in (saved, now)]
    if sizes[0] != sizes[1]:
        raise TrainingStopped(
            f"the checkpoint's optimizer has {sum(sizes[0])} parameters in {len(saved)} groups, "
            f"the config's {sum(sizes[1])} in {len(now)} (frozen_stages or paramwise_cfg?): "
            f'{WAY_OUT}'
        )


def _require_schedule_for_length(runner, schedule, lengths, open_end):
    """Raise where the training has become longer, but not the schedule that ends with it."""
    unit = 'epochs' if lengths['epoch'] else 'iters'
    new, old = lengths[unit], lengths[f'old_{unit}']
    if not old or new <= old or not schedule:
        return
    old_iters = old * (lengths['epoch'] or 1)

    def made_for(by_epoch, value):
        length = max((key for key, _ in value), default=0) if isinstance(value, list) else value
        end = old if by_epoch and lengths['epoch'] else old_iters
        return isinstance(length, int) and end / 2 <= length <= end

    ends = [
        s for s in schedule for key in LENGTHS[open_end:] if made_for(s['by_epoch'], s.get(key))
    ]
    _, groups, peak = rehearse(
        runner.param_schedulers,
        runner.optim_wrapper.param_groups[:1],
        old_iters,
        old,
        lengths['epoch'],
    )
    if not ends or groups[0]['lr'] > 0.99 * peak:
        return
    options = []
    written = runner.cfg.get('param_scheduler') or []
    for i, part in enumerate(written if isinstance(written, list) else [written]):
        for key in LENGTHS:
            value = part.get(key)
            pairs = [(v, 1) for v in value] if isinstance(value, (list, tuple)) else value
            if value and value != INF and made_for(part.get('by_epoch', True), pairs):
                longer = (
                    str([round(v * new / old) for v in value]).replace(' ', '')
                    if isinstance(value, (list, tuple))
                    else round(value * new / old)
                )
                options.append(f'param_scheduler.{i}.{key}={longer}')
    raise TrainingStopped(
        f'the training is to have {new} {unit}, and the schedule is made for {old}: the learning '
        f'rate would go on from {groups[0]["lr"]:.3g}. Give one for the new length, for example '
        f'--cfg-options {" ".join(options) or "param_scheduler..."}'
    )


def rehearse(
    schedulers: list, groups: list[dict], iterations: int, epochs: int, epoch_length: int
) -> tuple[list, list[dict], float]:
    """Take schedulers that have not stepped through a training, on copies.

    Args:
        schedulers (list): They stay as they are, and so do the ``groups``.
        groups (list[dict]): The optimizer's, of which schedulers set entries.
        iterations (int): How many.
        epochs (int): How many times those that count epochs step.
        epoch_length (int): Iterations of an epoch, 0 where epochs are not counted.

    Returns:
        tuple[list, list[dict], float]: The schedulers and the groups at the end; the largest
        learning rate on the way.
    """

    def step():
        """An optimizer's, as MMEngine's schedulers want to see it."""

    step._with_counter = True  # type: ignore[attr-defined]
    groups = [dict(group) for group in groups]
    optimizer = SimpleNamespace(param_groups=groups, step=step, _global_step=0)
    schedulers = [copy.copy(scheduler) for scheduler in schedulers]
    for scheduler in schedulers:
        scheduler.optimizer = optimizer
    peak = groups[0]['lr']
    for i in range(1, iterations + 1):
        for scheduler in schedulers:
            if not scheduler.by_epoch:
                scheduler.step()
        if epoch_length and i % epoch_length == 0 and i // epoch_length <= epochs:
            for scheduler in schedulers:
                if scheduler.by_epoch:
                    scheduler.step()
        peak = max(peak, groups[0]['lr'])
    return schedulers, groups, peak
