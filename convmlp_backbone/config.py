"""Configs of the mm toolboxes: finding, reading and walking through them."""

import difflib
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    """The path of a config: as given, or else a shipped one of that name, ``.py`` optional.

    ``mmdet::NAME`` is one that a toolbox ships, with or without its folder.
    """
    if Path(name).is_file():
        return name
    package, separator, theirs = name.partition('::')
    if separator:
        return toolbox_config(package, theirs)
    shipped = shipped_configs()
    if Path(name).stem in shipped:
        return str(shipped[Path(name).stem])
    near = difflib.get_close_matches(Path(name).stem, shipped, n=3) or list(shipped)[:3]
    where = f'; the shipped ones are in {next(iter(shipped.values())).parent}, ' if shipped else ''
    raise UserError(f'no config {name}{where}did you mean {" or ".join(near)}?')


def toolbox_config(package: str, name: str) -> str:
    """The path of the config ``name``, ``.py`` and folder optional, that a toolbox ships."""
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = {
        path.relative_to(folder).with_suffix('').as_posix(): path
        for folder in (Path(root, '.mim/configs') for root in folders)
        for path in sorted(folder.rglob('*.py'))
        if '_base_' not in path.parts
    }
    if not found:
        raise UserError(f'{package}::{name}: no {package} with configs is installed')
    wanted = name.removesuffix('.py')
    matching = [key for key in found if key == wanted or key.endswith(f'/{wanted}')]
    if len(matching) == 1:
        return str(found[matching[0]])
    stems = {key.rpartition('/')[2]: key for key in found}
    near = matching or [
        stems[stem] for stem in difflib.get_close_matches(Path(wanted).name, stems, n=3, cutoff=0)
    ]
    raise UserError(f'{package} has no config {name}, did you mean {" or ".join(near)}?')


def read_config(name: str) -> Config:
    """The config that ``name`` stands for.

    Raises:
        UserError: There is none, or running it, for a config is a program, raises anything.
    """
    path = find_config(name)
    with _reading(path):
        cfg = Config.fromfile(path)
    _require_model(cfg)
    return cfg


def change_config(cfg: Config, options: dict | None) -> None:
    """Change ``cfg`` by the command line's ``options``; UserError where they do not fit."""
    with _reading(cfg.filename):
        cfg.merge_from_dict(options or {})
    _require_model(cfg)


def _require_model(cfg: Config) -> None:
    model = cfg.get('model')
    if model is not None and not isinstance(model, dict):
        raise UserError(f'{cfg.filename}: model={model!r}: expected a dict')


@contextmanager
def _reading(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise UserError(
            f'{path} cannot be read, or not with these --cfg-options: '
            f'{type(error).__name__}: {" ".join(str(error).split())}'
        ) from error


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
