"""What a config tells of its data sets, whatever wrappers they are in."""

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope


def leaves(dataset: dict | None, path: str = '') -> Iterator[tuple[str, dict]]:
    """The data sets below a loader's ``dataset``, those inside wrappers, each with its path."""
    if not isinstance(dataset, dict):
        return
    inner = [
        (f'{path}.dataset', dataset.get('dataset')),
        *((f'{path}.datasets.{i}', part) for i, part in enumerate(dataset.get('datasets') or ())),
    ]
    inner = [(name, part) for name, part in inner if isinstance(part, dict)]
    if not inner and 'type' in dataset:
        yield path, dataset
    for name, part in inner:
        yield from leaves(part, name)


def class_of(leaf: dict) -> type | None:
    """The registered class of a data set's config, None where there is none of that name."""
    kind = leaf.get('type')
    if not isinstance(kind, str):
        return kind
    with DATASETS.switch_scope_and_registry(None) as registry:  # that of the default scope
        return registry.get(kind)


@contextmanager
def scope_of(cfg: Config) -> Iterator[None]:
    """Names of classes mean those of the config's toolbox."""
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        yield


def default_of(leaf: dict, kind: type, name: str, default: Any = None) -> Any:
    """An argument of a data set, given in its config or by the defaults of its class."""
    if name in leaf:
        return leaf[name]
    for base in kind.__mro__:
        init = base.__init__  # type: ignore[misc]  # of whatever signature: it is looked at
        parameter = inspect.signature(init).parameters.get(name)
        if parameter is not None and parameter.default is not parameter.empty:
            return parameter.default
    return default


def read_classes(leaf: dict) -> list[str] | None:
    """The classes that a config gives to a data set, None if it gives none.

    A string is the name of a file with one on a line.
    """
    classes = (leaf.get('metainfo') or {}).get('classes') or leaf.get('classes')
    if isinstance(classes, str):
        return Path(classes).read_text().splitlines() if Path(classes).is_file() else None
    return list(classes) if classes else None


def classes_of(leaf: dict, kind: type) -> list[str]:
    """The classes of a data set: the config's, or else those of its type, which may have none."""
    return read_classes(leaf) or list(getattr(kind, 'METAINFO', {}).get('classes') or ())


def is_coco(kind: type) -> bool:
    """Whether a data set numbers its labels as MMDetection's ``CocoDataset`` does."""
    reader = next((base for base in kind.__mro__ if 'load_data_list' in vars(base)), None)
    return reader is not None and reader.__name__ == 'CocoDataset'


def annotation_path(leaf: dict) -> str:
    return os.path.join(leaf.get('data_root') or '', leaf.get('ann_file') or '')


def folder(leaf: dict, *keys: str) -> str | None:
    """The folder that ``data_prefix`` gives to the first of ``keys``, None if to none."""
    prefix = leaf.get('data_prefix') or {}
    name = (
        prefix
        if isinstance(prefix, str)
        else next((prefix[key] for key in keys if prefix.get(key) is not None), None)
    )
    return None if name is None else os.path.join(leaf.get('data_root') or '', name)


def image_folder(leaf: dict) -> str:
    """The folder of a data set's images."""
    path = folder(leaf, 'img', 'img_path')
    return (leaf.get('data_root') or '') if path is None else path
