"""Mistakes in a config that a toolbox would tell late, in riddles or not at all."""

import difflib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import torch
from mmengine.config import Config

from ..config import walk


def check_model(cfg: Config, fail: Callable[[str], NoReturn]) -> None:
    """Call ``fail(message)`` where backbone, neck, heads and data set do not fit one another.

    Args:
        cfg (Config): The whole config; only those with the backbone ConvMLP are looked at.
        fail (Callable): Raises an error of one line.
    """
    from convmlp_backbone import ConvMLP

    model = cfg.get('model') or {}
    backbone = dict(model.get('backbone') or {})
    if backbone.pop('type', None) != 'ConvMLP':
        return
    known = list(inspect.signature(ConvMLP).parameters)
    for name in backbone:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1) or known
            fail(
                f'model.backbone.{name}: ConvMLP has no such argument; '
                f'did you mean {", ".join(near)}?'
            )
    try:
        with torch.device('meta'):  # no memory, no time
            channels = ConvMLP(**{**backbone, 'init_cfg': None}).out_channels
    except (TypeError, ValueError) as error:
        fail(f'model.backbone: {error}')
    number = backbone.get('in_channels', 3)
    for path, part in walk(dict(model=model, data_preprocessor=cfg.get('data_preprocessor') or {})):
        for name in ('mean', 'std') if path.endswith('data_preprocessor') else ():
            values = part.get(name)
            if isinstance(values, (list, tuple)) and len(values) not in (1, number):
                fail(
                    f'{path}.{name}={list(values)}: {len(values)} values, and '
                    f'model.backbone.in_channels={number}: write one for each channel'
                )
    necks = model.get('neck') or {}
    neck = necks[0] if isinstance(necks, (list, tuple)) else necks
    wanted = neck.get('in_channels')
    # YOLOv3's neck counts from the coarsest level.
    if isinstance(wanted, (list, tuple)) and tuple(wanted) not in (channels, channels[::-1]):
        fail(f'model.neck.in_channels={list(wanted)}: the backbone gives {list(channels)}')
    for path, head in walk(model, 'model'):
        for stride in flat(head.get('strides', ())):
            if not isinstance(stride, (int, float)) or stride <= 0:
                fail(f'{path}.strides={list(head["strides"])}: expected positive numbers')
    classes = class_names(cfg)
    for path, head in walk(model, 'model'):
        number = head.get('num_classes')
        if (
            classes
            and number is not None
            and path != 'model.data_preprocessor'
            and number != len(classes)
        ):
            fail(
                f'{path}.num_classes={number}: the data set has {len(classes)} '
                f'classes, {", ".join(classes[:3])}{", ..." if len(classes) > 3 else ""}'
            )


def flat(values: Any) -> Iterator:
    for value in values if isinstance(values, (list, tuple)) else [values]:
        yield from flat(value) if isinstance(value, (list, tuple)) else [value]


def class_names(cfg: Config) -> list[str] | None:
    """The class names that the config gives to its training set, None if it gives none."""
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    while 'metainfo' not in dataset and isinstance(dataset.get('dataset'), dict):
        dataset = dataset['dataset']  # of a wrapper
    classes = (dataset.get('metainfo') or {}).get('classes')
    if isinstance(classes, str):
        return None  # the name of a file
    return list(classes) if classes else None
