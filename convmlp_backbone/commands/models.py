"""The one road from what a command is given to a model or a job: find, read, check, build."""

import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from ..archs import ABLATIONS, ARCHS, NAMES
from ..checkpoints import (
    enable_safe_loading,
    imagenet_weights,
    load,
    load_backbone,
    load_model,
    plain_meta,
    require_fit,
    unwrap,
)
from ..checks.contract import require
from ..checks.loaders import fit_loaders
from ..checks.model import check_model
from ..coco_metric import choose_coco_metric
from ..config import change_config, datasets, find_config, read_config, set_data_root
from ..convmlp import ConvMLP
from ..cpu import fit_model_to_cpu, fit_to_cpu
from ..errors import UserError
from ..hooks import latest_checkpoint
from ..many_channels import fit_channels
from ..processes import is_first_process
from ..replace_backbone import replace_backbone

SHAPES = dict(mmdet=(800, 1280), mmseg=(512, 512))  # what costs are usually given for


def checked_config(
    name: str, options: dict | None = None, backbone: str | dict | None = None
) -> Config:
    """The config that ``name`` stands for, with nothing wrong in it.

    First ConvMLP is put under it, if ``backbone`` says which, then ``options`` change it.
    """
    cfg = read_config(name)
    if backbone is not None:
        for line in replace_backbone(cfg, backbone):
            if is_first_process():
                print(f'--backbone: {line}', flush=True)
    change_config(cfg, options)
    fit_channels(cfg)
    check_model(cfg, fail)
    return cfg


def load_config(args: Namespace, splits: Sequence[str], checkpoint: str | None = None) -> Config:
    """The config that the command line asks for, checked and fitted to this machine.

    Args:
        args: ``config`` and the options of ``JOB``.
        splits: The parts of the data set the job will read, such as ``'train'``.
        checkpoint: What the job evaluates or goes on from, a file, a folder of some or ``'auto'``:
            its classes keep their numbers.
    """
    enable_safe_loading(args.trust)
    cfg = checked_config(args.config, args.cfg_options, args.backbone)
    if args.data_root:
        set_data_root(cfg, args.data_root)
    check_data(cfg, splits)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    cfg.work_dir = (
        args.work_dir or cfg.get('work_dir') or str(Path('work_dirs', Path(cfg.filename).stem))
    )
    fit_loaders(cfg)
    choose_coco_metric(cfg)
    if not args.no_check:
        require(
            cfg, splits, dataset_meta(checkpoint, cfg.work_dir, args.trust) if checkpoint else None
        )
    if get_device() == 'cpu':
        fit_to_cpu(cfg)
    return cfg


def dataset_meta(source: str, work_dir: str, trust: bool) -> dict | None:
    """What the checkpoint tells of its classes; None where it, or one, is not there."""
    source = work_dir if source == 'auto' else source
    file = latest_checkpoint(source) if os.path.isdir(source) else source
    if not file or '://' not in file and not os.path.isfile(file):
        return None  # which is told where it is read
    return plain_meta(load(file, trust)).get('dataset_meta')


def fail(message: str) -> NoReturn:
    raise UserError(message)


def check_data(cfg: Config, splits: Sequence[str]) -> None:
    """Raise where a data set that the job will read is not there."""
    for split in splits:
        for dataset in datasets(cfg.get(f'{split}_dataloader')):
            root = dataset['data_root'] or ''
            prefixes = dataset.get('data_prefix') or {}
            parts = [
                dataset.get('ann_file'),
                *(prefixes.values() if isinstance(prefixes, dict) else [prefixes]),
            ]
            for path in [root, *(os.path.join(root, part) for part in parts if part)]:
                if '://' not in path and path and not os.path.exists(path):
                    source = cfg.get('data_source')
                    raise UserError(
                        f'the {split} data set is not there: {os.path.abspath(path)}. '
                        + (f'Get {source}. ' if source else '')
                        + 'If you have it elsewhere: --data-root DIR.'
                    )


def check_checkpoint(path: str) -> None:
    """Raise where ``path`` is a local file that does not exist."""
    if '://' not in path and not os.path.isfile(path):
        raise UserError(
            f'no checkpoint {os.path.abspath(path)}; convmlp train writes them to its --work-dir'
        )


@contextmanager
def building(name: str) -> Iterator[None]:
    """Inside, whatever is raised while things are built of the config ``name`` is one line."""
    try:
        yield
    except (UserError, OSError):
        raise
    except Exception as error:  # a config can ask for anything
        reason = ' '.join(str(error).split())
        raise UserError(f'{name}: {type(error).__name__}: {reason}') from error


def image_shape(numbers: list[int]) -> tuple[int, int]:
    """Height and width from the numbers after ``--shape``: both, or one for both."""
    shape = tuple(numbers * 2 if len(numbers) == 1 else numbers)
    if len(shape) != 2 or min(shape) < 1:
        raise UserError(
            f'--shape {" ".join(map(str, numbers))}: expected height and width, or one '
            'number for both, in pixels'
        )
    return shape


def build_model(
    name: str, pretrained: bool = False, backbone: str | None = None
) -> tuple[nn.Module, tuple[int, int]]:
    """A model, in evaluation mode.

    Args:
        name: One of ``NAMES`` in :mod:`convmlp_backbone.archs` for a backbone, such as
            ``'s'`` or ``'m-pure-mlp'``; the name of a timm model; the path of a config or the name
            of a shipped one.
        pretrained: With timm's weights, if it is a model of timm; otherwise random ones.
        backbone: The ConvMLP to put under a config.

    Returns:
        The model and the height and width of the image that its cost is usually given for.

    Raises:
        UserError: There is no such model, or its weights cannot be had.
    """
    if backbone is not None or '::' in name:  # only a config is meant
        if name in NAMES:
            raise UserError(f'--backbone {backbone}: {name} is no config, but a ConvMLP itself')
        cfg = checked_config(name, backbone=backbone)
        return build_from_config(cfg), SHAPES.get(cfg.get('default_scope'), (224, 224))
    if name in NAMES:
        size, _, part = name.partition('-')
        return ConvMLP({**ARCHS[size], **ABLATIONS.get(part, {})}).eval(), (224, 224)
    try:
        import timm

        import convmlp_backbone.timm_models  # noqa: F401  registers convmlp_s and so on

        if timm.is_model(name):
            model: Any = timm.create_model(name, pretrained=pretrained).eval()
            return model, model.default_cfg['input_size'][1:]
    except ImportError:
        pass
    except OSError as error:
        raise UserError(f'{name}: {str(error).splitlines()[0]}') from None
    try:
        path = find_config(name)
    except UserError as error:
        raise UserError(
            f'{name} is no timm model, none of {", ".join(NAMES[:5])} (or m, l), and {error}'
        ) from None
    cfg = checked_config(path)
    return build_from_config(cfg), SHAPES.get(cfg.get('default_scope'), (224, 224))


def build_from_config(cfg: Config, device: str = 'cpu') -> nn.Module:
    """The model of a config on ``device``, in evaluation mode; nothing is downloaded."""
    if device == 'cpu':
        fit_model_to_cpu(cfg.model)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    with building(cfg.filename):
        init_default_scope(cfg.get('default_scope', 'mmengine'))
        return MODELS.build(cfg.model).to(device).eval()


def open_model(spec: str) -> tuple[nn.Module, str, tuple[int, int], str]:
    """The model that MODEL, MODEL=CHECKPOINT or MODEL=pretrained stands for.

    Returns:
        The model in evaluation mode, its name, height and width of its usual image, and in words
        what weights it has.

    Raises:
        UserError, CheckpointError: There is no such model or file, or they do not fit.
    """
    name, _, source = spec.partition('=')
    model, size = build_model(name, pretrained=source == 'pretrained')
    words = f'weights of {Path(source).name}' if source else 'random weights'
    if not source or source == 'pretrained' and hasattr(model, 'default_cfg'):
        return model, name, size, words  # timm has loaded them
    if source == 'pretrained':
        if name not in ARCHS:
            raise UserError(f"{name}=pretrained: only s, m, l and timm's models have such weights")
        source = imagenet_weights(name)
    if name in NAMES:
        load_backbone(model, source)
    elif hasattr(model, 'default_cfg'):
        state_dict = unwrap(load(source))[1]
        require_fit(model, state_dict, source, state_dict)
        model.load_state_dict(state_dict, strict=False)
    else:
        load_model(model, source)
    return model, name, size, words
