"""What a report says of a training: its curves, its config's essence, its versions."""

import math
from collections.abc import Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from ..checks.datasets import leaves
from .charts import Html, Series, line_chart
from .page import Section, beside, folded, table, text
from .work_dir import WorkDir, versions_here

# What is logged beside the metrics of a validation.
NO_METRICS = {'step', 'epoch', 'iter', 'time', 'data_time', 'memory', 'eta', 'lr'}
MOST_CURVES = 8


def metric_names(records: Sequence[dict]) -> list[str]:
    """The metrics that validations logged."""
    return list(
        dict.fromkeys(
            key
            for record in records
            for key, value in record.items()
            if key not in NO_METRICS and isinstance(value, Real)
        )
    )


def series(
    runs: Sequence[tuple[str, WorkDir]], part: str, keys: Sequence[str], marks: bool = False
) -> list[Series]:
    """What the trainings logged under ``keys``, in their ``part`` train or val.

    Of several trainings the first key, under their names. COCO's -1, for no such object, is a gap.
    """
    found = []
    for name, run in runs:
        for key in keys if len(runs) == 1 else keys[:1]:
            records = [r for r in getattr(run, part) if isinstance(r.get(key), Real)]
            if records:
                values = [math.nan if r[key] == -1 and marks else r[key] for r in records]
                label = key if len(runs) == 1 else f'{name}, {key}' if marks else name
                found.append(Series(label, [r['step'] for r in records], values, marks))
    return found


def curves(runs: Sequence[tuple[str, WorkDir]]) -> list[Html]:
    """Loss, learning rate and metrics; several trainings in one frame each."""
    train = [record for _, run in runs for record in run.train]
    val = [record for _, run in runs for record in run.val]
    parts = sorted({key for record in train for key in record if 'loss' in key} - {'loss'})
    drawn = [
        line_chart(title, series(runs, 'train', keys), 'iteration', log=log)
        for title, keys, log in (
            ('Training loss', ['loss', *parts][:MOST_CURVES], True),
            ('Learning rate', ['lr'], False),
            ('Norm of the gradient', ['grad_norm'], True),
        )
    ]
    groups: dict[bool, list[str]] = {}
    for key in metric_names(val)[:MOST_CURVES]:  # those out of 1 and those out of 100
        values = [r[key] for r in val if isinstance(r.get(key), Real)]
        groups.setdefault(max(values) > 1, []).append(key)
    unit = 'epoch' if any('epoch' in record for record in train) else 'iteration'
    drawn += [
        line_chart('Validation', series(runs, 'val', keys, marks=True), unit)
        for keys in groups.values()
    ]
    lost = sum(
        isinstance(value, Real) and not math.isfinite(value)
        for record in train
        for value in record.values()
    )
    warning = f'{lost} logged values are not finite (NaN or infinite): gaps in the curves.'
    if not any(drawn):
        return [text('There is no log.')]
    return [*([text(warning)] if lost else []), beside(*filter(None, drawn))]


def training_section(run: WorkDir) -> Section:
    last = run.train[-1] if run.train else {}
    told = [f'Logged up to iteration {last["step"]}.'] if last else []
    return Section('Training', [text(*told, *run.notes), *curves([('', run)])])


def essence(cfg: Any) -> dict[str, str]:
    """What of a config one would tell another."""
    told = cfg.to_dict()

    def get(path: str, default: Any = None) -> Any:
        value: Any = told
        for key in path.split('.'):
            value = value.get(key) if isinstance(value, dict) else None
        return default if value is None else value

    data = [
        f'{split}: {leaf.get("type")} {leaf.get("data_root") or ""} {leaf.get("ann_file") or ""}'
        for split in ('train', 'val')
        for _, leaf in leaves(get(f'{split}_dataloader.dataset'))
    ]
    steps = [
        f'{step["type"]} {step.get("scale") or step.get("crop_size") or ""}'.strip()
        for _, leaf in leaves(get('train_dataloader.dataset'))
        for step in leaf.get('pipeline') or ()
        if isinstance(step, dict) and 'type' in step
    ]
    schedule = get('param_scheduler', [])
    schedule = schedule if isinstance(schedule, list) else [schedule]
    length = {k: v for k, v in get('train_cfg', {}).items() if k.startswith('max')}
    rows = {
        'model': f'{get("model.type")}, {get("model.backbone.type")} {get("model.backbone.arch")}',
        'weights': get('load_from') or get('model.backbone.init_cfg.checkpoint', 'from scratch'),
        'data': '; '.join(data),
        'training steps': ' → '.join(steps),
        'batch': f'{get("train_dataloader.batch_size")} on each device',
        'optimiser': f'{get("optim_wrapper.optimizer.type")}, '
        f'lr {get("optim_wrapper.optimizer.lr")}, '
        f'weight decay {get("optim_wrapper.optimizer.weight_decay")}',
        'precision': f'{get("optim_wrapper.type")} {get("optim_wrapper.dtype", "float32")}',
        'schedule': ', '.join(str(part.get('type')) for part in schedule),
        'length': ', '.join(f'{k} {v}' for k, v in length.items()),
        'seed': get('randomness.seed', 'none'),
    }
    return {name: str(value) for name, value in rows.items()}


def config_section(run: WorkDir, cfg: Any) -> Section:
    here = versions_here()
    return Section(
        'Config and versions',
        [
            Html(f'<div class="facts">{table(["", ""], essence(cfg).items())}</div>'),
            table(['trained with', ''], run.versions.items()) if run.versions else Html(''),
            table(['evaluated with', ''], here.items()),
            folded(f'the whole config, {run.config}', Path(run.config).read_text(errors='replace')),
        ],
    )
