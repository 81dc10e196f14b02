"""What export and benchmark take: a whole model, and photos for it."""

from argparse import Namespace
from functools import partial
from pathlib import Path

import numpy as np
from mmengine.config import Config
from torch import nn

from ..archs import NAMES
from ..checkpoints import load_backbone, load_model
from ..checks.loaders import input_channels
from ..config import datasets
from ..deploy.facts import IMAGENET
from ..deploy.quantisation import IMAGES
from ..errors import UserError
from ..inputs import find, frames
from ..predictors import own_loaders
from ..runtime import read_image
from . import options
from .models import build_from_config, build_model, check_checkpoint, checked_config, load_config


def load(args: Namespace) -> tuple[nn.Module, Config, dict, dict | None]:
    """The model, and of its config all but the model, as the file's facts need it."""
    if args.checkpoint:
        check_checkpoint(args.checkpoint)
    if args.model.lower() in NAMES:
        model, _ = build_model(args.model.lower())
        if args.checkpoint:
            load_backbone(model, args.checkpoint, args.trust)
        return model, {}, IMAGENET, {}
    cfg = checked_config(args.model, args.cfg_options, args.backbone)
    model = build_from_config(cfg)
    meta = load_model(model, args.checkpoint, args.trust) if args.checkpoint else {}
    return model, cfg, cfg.model.get('data_preprocessor') or {}, meta.get('dataset_meta')


def photos(
    args: Namespace,
    cfg: Config,
    sources: list[str] | None,
    dataset: dict,
    number: int,
    channels: int = 3,
) -> list[np.ndarray]:
    """As many photos of ``sources``, or of a data set; none where it is not there."""
    prefix = dataset.get('data_prefix') or ''
    folder = Path(
        args.data_root or dataset.get('data_root') or '',
        next(iter(prefix.values())) if isinstance(prefix, dict) else prefix,
    )
    own = bool(cfg) and own_loaders(cfg)
    if not sources and (not dataset.get('data_root') or not folder.is_dir() or own):
        return []
    found = find(sources or [folder], recursive=True)
    if len(found) > number:
        found = [found[i * len(found) // number] for i in range(number)]
    read = partial(read_image, channels=channels)
    return [image for source in found for _, image in frames(source, read)][:number]


def calibration(args: Namespace, cfg: Config) -> list[np.ndarray]:
    """The images to quantise on."""
    source, channels = args.calibrate or args.model, input_channels(cfg) or 3
    if Path(source).is_dir():
        return photos(args, cfg, [source], {}, IMAGES, channels)
    other = checked_config(source, args.cfg_options if source == args.model else None)
    dataset = next(iter(datasets(other.get('train_dataloader'))), {})
    found = photos(args, other, None, dataset, IMAGES, channels)
    if not found:
        raise UserError(
            f'no images of the training data of {source} in {dataset.get("data_root")}: '
            '--data-root DIR, or --calibrate FOLDER'
        )
    return found


def generated(number: int) -> list[np.ndarray]:
    """Images of coarse squares, for want of photos."""
    coarse = np.random.default_rng(0).integers(0, 256, (number, 12, 16, 3), dtype=np.uint8)
    return list(coarse.repeat(30, 1).repeat(30, 2))


def evaluated_config(args: Namespace) -> Config:
    """The config, ready to be evaluated on its test data."""
    names = ('data_root', 'backbone', 'cfg_options', 'trust')
    job = options.job(args.model, **{name: getattr(args, name) for name in names})
    return load_config(job, ['test'], args.checkpoint)
