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


def curves(runs: Sequence[tuple[str, WorkDir]]) -> list[Html]:
    """Loss, learning rate and metrics; several trainings in one frame each."""
    one = len(runs) == 1
    drawn, lost = [], 0
    names = {key for _, run in runs for record in run.train for key in record}
    losses = ['loss', *sorted(k for k in names if k != 'loss' and 'loss' in k and one)]
    for title, keys, log in (
        ('Training loss', losses[:MOST_CURVES], True),
        ('Learning rate', ['lr'], False),
        ('Norm of the gradient', ['grad_norm'], True),
    ):
        series = []
        for name, run in runs:
            for key in keys:
                points = [(r['step'], r[key]) for r in run.train if isinstance(r.get(key), Real)]
                lost += sum(not math.isfinite(value) for _, value in points)
                if points:
                    x, y = zip(*points, strict=True)
                    series.append(Series(key if one else name, x, y))
        drawn.append(line_chart(title, series, 'iteration', log=log) if series else Html(''))
    metrics = metric_names([record for _, run in runs for record in run.val])
    groups: dict[bool, list[str]] = {}
    for key in metrics[:MOST_CURVES]:  # those out of 1 and those out of 100
        values = [r[key] for _, run in runs for r in run.val if isinstance(r.get(key), Real)]
        groups.setdefault(max(values, default=0) > 1, []).append(key)
    for keys in groups.values():
        series = []
        for name, run in runs:
            for key in keys if one else keys[:1]:
                points = [
                    (r['step'], math.nan if r[key] == -1 else r[key])  # COCO's word for none
                    for r in run.val
                    if isinstance(r.get(key), Real)
                ]
                if points:
                    x, y = zip(*points, strict=True)
                    series.append(Series(key if one else f'{name}, {key}', x, y, marks=True))
        epochs = any('epoch' in record for _, run in runs for record in run.train)
        drawn.append(
            line_chart('Validation', series, 'epoch' if epochs else 'iteration')
            if series
            else Html('')
        )
    warning = (
        [text(f'{lost} logged values are not finite (NaN or infinite): gaps in the curves.')]
        if lost
        else []
    )
    return [*warning, beside(*filter(None, drawn))] if any(drawn) else [text('There is no log.')]


def training_section(run: WorkDir) -> Section:
    last = run.train[-1] if run.train else {}
    told = [f'Logged up to iteration {last["step"]}.'] if last else []
    return Section('Training', [text(*told, *run.notes), *curves([('', run)])])


def essence(cfg: Any) -> list[tuple[str, str]]:
    """What of a config one would tell another."""
    told = cfg.to_dict()

    def get(path: str, default: Any = None) -> Any:
        value: Any = told
        for key in path.split('.'):
            value = value.get(key) if isinstance(value, dict) else None
        return default if value is None else value

    backbone = get('model.backbone', {})
    arch = backbone.get('arch', '')
    loader = get('train_dataloader', {})
    optimizer = get('optim_wrapper.optimizer', {})
    wrapper = get('optim_wrapper', {})
    loop = get('train_cfg', {})
    head = get('model', {})
    schedule = get('param_scheduler', [])
    data = [
        f'{split}: {leaf.get("type")} {leaf.get("data_root") or ""} {leaf.get("ann_file") or ""}'
        for split in ('train', 'val')
        for _, leaf in leaves(get(f'{split}_dataloader.dataset'))
    ]
    steps = [
        step['type'] + (f' {step["scale"]}' if step.get('scale') else '')
        for _, leaf in leaves(loader.get('dataset'))
        for step in leaf.get('pipeline') or ()
        if isinstance(step, dict) and 'type' in step
    ]
    rows = [
        ('model', f'{head.get("type")}, {backbone.get("type")} {arch}'),
        ('weights', get('load_from') or get('model.backbone.init_cfg.checkpoint', 'from scratch')),
        ('data', '; '.join(data)),
        ('training steps', ' → '.join(map(str, steps))),
        ('batch', f'{loader.get("batch_size")} on each device'),
        (
            'optimiser',
            f'{optimizer.get("type")}, lr {optimizer.get("lr")}, '
            f'weight decay {optimizer.get("weight_decay")}, {wrapper.get("type", "")} '
            f'{wrapper.get("dtype", "")}',
        ),
        (
            'schedule',
            ', '.join(
                str(part.get('type'))
                for part in (schedule if isinstance(schedule, list) else [schedule])
            ),
        ),  # fmt: skip
        ('length', ', '.join(f'{k} {v}' for k, v in loop.items() if k.startswith('max'))),
        ('seed', get('randomness.seed', 'none')),
    ]
    return [(name, str(value)) for name, value in rows]


def config_section(run: WorkDir, cfg: Any) -> Section:
    here = versions_here()
    return Section(
        'Config and versions',
        [
            Html(f'<div class="facts">{table(["", ""], essence(cfg))}</div>'),
            table(['trained with', ''], run.versions.items()) if run.versions else Html(''),
            table(['evaluated with', ''], here.items()),
            folded(f'the whole config, {run.config}', Path(run.config).read_text(errors='replace')),
        ],
    )
