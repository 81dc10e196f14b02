"""Configs of the mm toolboxes: finding, reading and walking through them."""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

from .errors import UserError

PACKAGE = Path(__file__).resolve().parent


def shipped_configs() -> dict[str, Path]:
    """``{name: path}`` of the configs that come along, in a clone or in an installed wheel."""
    installed = PACKAGE / '.mim/configs'
    folder = installed if installed.is_dir() else PACKAGE.parent / 'configs'
    return {path.stem: path for path in sorted(folder.glob('*.py'))}


def find_config(name: str) -> str:
    """The path of a config: as given, or else a shipped one of that name, ``.py`` optional."""
    if Path(name).is_file():
        return name
    shipped = shipped_configs()
    if Path(name).stem in shipped:
        return str(shipped[Path(name).stem])
    near = difflib.get_close_matches(Path(name).stem, shipped, n=3) or list(shipped)[:3]
    where = f'; the shipped ones are in {next(iter(shipped.values())).parent}, ' if shipped else ''
    raise UserError(f'no config {name}{where}did you mean {" or ".join(near)}?')


def read_config(name: str, options: dict | None = None) -> Config:
    """The config that ``name`` stands for, changed by the command line's ``options``.

    Raises:
        UserError: There is none, or running it, for a config is a program, raises anything.
    """
    path = find_config(name)
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options or {})
    except Exception as error:
        raise UserError(
            f'{path} cannot be read, or not with these --cfg-options: '
            f'{type(error).__name__}: {" ".join(str(error).split())}'
        ) from error
    return cfg


def walk(cfg: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Every dict in a config, outermost first, with its path such as ``model.roi_head.bbox_head``.

    Args:
        cfg: A config, or any part of one.
        path (str): What stands before the paths.

    Yields:
        tuple[str, dict]: The dict itself, which may be changed.
    """
    if isinstance(cfg, dict):
        yield path, cfg
        items = list(cfg.items())
    elif isinstance(cfg, (list, tuple)):
        items = list(enumerate(cfg))
    else:
        return
    for key, value in items:
        yield from walk(value, f'{path}.{key}' if path else str(key))


def datasets(loader: dict | None) -> list[dict]:
    """Every data set of a data loader's config that lies on a disk, those inside wrappers too."""
    return [part for _, part in walk(loader) if 'data_root' in part]


def set_data_root(cfg: Config, root: str) -> None:
    """Point every data set of ``cfg``, and the annotation files of its evaluators, at ``root``."""
    splits = ('train', 'val', 'test')
    found = [dataset for split in splits for dataset in datasets(cfg.get(f'{split}_dataloader'))]
    old_roots = {dataset['data_root'] for dataset in found}
    for dataset in found:
        dataset['data_root'] = root
    for _, evaluator in walk([cfg.get(f'{split}_evaluator') for split in splits]):
        for key, value in evaluator.items():
            for old in old_roots:
                if isinstance(value, str) and old and value.startswith(old):
                    evaluator[key] = os.path.join(root, value[len(old) :].lstrip('/'))
