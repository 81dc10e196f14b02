"""Draw the feature maps of models on an image.

A MODEL is a size of ConvMLP (s, m, l), an ablation of one (m-pure-mlp), a timm model (resnet50,
mixer_b16_224) or a config, with random weights; or MODEL=CHECKPOINT, with those of a file, an
address or convmlp://NAME; or MODEL=pretrained, with the published ones. As in the paper:

  convmlp visualize_features photo.jpg resnet50=pretrained mixer_b16_224=pretrained m=pretrained

Writes one picture per model, and one with all of them beside each other.
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..archs import NAMES
from ..convmlp import ConvMLP
from ..errors import UserError
from . import options
from .models import image_shape, open_model
from .photo import fit_photo, open_photo, takes_one_size, to_input


@dataclass
class Features:
    """What is drawn of one model: levels are (name, (C, H, W) array) from fine to coarse."""

    title: str
    image: Image.Image
    levels: list


def one_per_size(maps: Sequence[Tensor]) -> list[int]:
    """The last map of every size, at most four; of a model with one size, four spread evenly."""
    sizes = {tuple(m.shape[-2:]): i for i, m in enumerate(maps)}
    if len(sizes) > 1:
        return list(sizes.values())[-4:]
    return sorted({len(maps) * k // 4 - 1 for k in range(1, 5)} - {-1})


def compute(spec: str, photo: Image.Image, shape: tuple[int, int] | None = None) -> Features:
    """The features of one model.

    Args:
        spec (str): MODEL or MODEL=CHECKPOINT.
        photo (PIL.Image.Image): RGB.
        shape (tuple[int, int], optional): Height and width to which the photo is resized; models
            that take but one size get that one.

    Returns:
        Features: Of the resized photo.
    """
    model, name, size, weights = open_model(spec)
    title = f'{label(name)}, {weights}'
    photo = fit_photo(photo, model, size, shape)
    title += f'\nfed {photo.height}×{photo.width}' + (
        ', the only size it takes' if takes_one_size(model) else ''
    )
    x = to_input(photo, model)
    with torch.no_grad():
        if backbone := getattr(model, 'backbone', None):
            if isinstance(backbone, ConvMLP):  # of a classifier, which needs the last only
                backbone.out_indices = tuple(range(max(backbone.out_indices) + 1))
            maps = backbone(x)
        elif taps := getattr(model, 'forward_intermediates', None):
            maps = taps(x, intermediates_only=True)
        else:
            maps = model(x)
    kept = one_per_size(maps)
    same_size = len({m.shape[-1] for m in maps}) == 1
    levels = [
        (
            f'block {i + 1} of {len(maps)}'
            if same_size and len(maps) > 1
            # Sizes are rounded up, and strides are powers of two.
            else f'stride {2 ** round(np.log2(photo.width / maps[i].shape[-1]))}',
            maps[i][0].numpy(),
        )
        for i in kept
    ]
    return Features(title, photo, levels)


def label(name: str) -> str:
    """The name of a model as people write it."""
    if name not in NAMES:
        return Path(name).stem
    size, _, part = name.partition('-')
    return f'ConvMLP-{size.upper()}' + (f' ({part})' if part else '')


def pick(maps: np.ndarray, number: int, strongest: bool) -> Sequence[int] | np.ndarray:
    """Indices of the channels to draw: the first ones, or those that vary most over the image."""
    if not strongest:
        return range(min(number, len(maps)))
    return np.argsort(-maps.std(axis=(1, 2)), kind='stable')[:number]


def draw(models: Sequence[Features], number: int, strongest: bool, file: Path) -> None:
    """Draw models beside each other, each with its image on top and a row per level."""
    from matplotlib.figure import Figure

    rows = max(len(model.levels) for model in models)
    tile = models[0].image.height / models[0].image.width  # height in inches; the width is 1
    gap, head, left = 0.3, 0.6, 1.2  # inches between rows, for the title, for the levels' names
    width, height = left + 1.05 * number, head + (rows + 2) * tile + rows * gap + 0.1
    figure = Figure(figsize=(len(models) * width, height), dpi=150)
    (parts,) = figure.subfigures(1, len(models), squeeze=False)
    for part, model in zip(parts, models, strict=True):
        part.suptitle(
            model.title, fontsize=10, x=(left / width + 1) / 2, y=1 - 0.1 / height, va='top'
        )
        grid = part.add_gridspec(
            rows + 1,
            number,
            left=left / width,
            right=0.985,
            bottom=0.1 / height,
            top=1 - head / height,
            hspace=gap * (rows + 1) / (rows + 2) / tile,
            wspace=0.06,
            height_ratios=[2, *[1] * rows],
        )
        axes = part.add_subplot(grid[0, :])
        axes.imshow(model.image)
        axes.axis('off')
        for row, (name, maps) in enumerate(model.levels, 1):
            for column, channel in enumerate(pick(maps, number, strongest)):
                axes = part.add_subplot(grid[row, column])
                low, high = np.percentile(maps[channel], (1, 99))
                axes.imshow(
                    maps[channel],
                    cmap='viridis',
                    vmin=low,
                    vmax=max(high, low + 1e-6),
                    extent=(0, model.image.width, model.image.height, 0),
                )
                axes.set_title(f'ch {channel}', fontsize=8, pad=2)
                axes.set(xticks=[], yticks=[])
                if column == 0:
                    axes.set_ylabel(
                        f'{name}\n{len(maps)} channels\n{maps.shape[1]}×{maps.shape[2]}',
                        fontsize=8,
                        rotation=0,
                        ha='right',
                        va='center',
                    )
    figure.savefig(file, facecolor='white')


def add_arguments(parser: ArgumentParser) -> None:
    options.add(parser, 'image', 'models', '--shape')
    options.add(parser, '--out-dir', default='work_dirs/features')
    parser.add_argument(
        '--channels', type=int, default=6, metavar='N', help='per level (default 6)'
    )
    parser.add_argument(
        '--pick',
        choices=['first', 'strongest'],
        default='strongest',
        help='the first N channels, or the N that vary most (default)',
    )


def run(args: Namespace) -> None:
    if args.channels < 1:
        raise UserError(f'--channels {args.channels}: expected a positive number')
    shape = args.shape and image_shape(args.shape)
    photo = open_photo(args.image)
    torch.manual_seed(0)  # the same random weights every time
    out_dir, models = Path(args.out_dir), []
    out_dir.mkdir(parents=True, exist_ok=True)
    for number, spec in enumerate(args.models, 1):
        print(f'{number} of {len(args.models)}: {spec}', flush=True)
        models.append(compute(spec, photo, shape))
        name = Path(spec.partition('=')[0]).stem
        draw(models[-1:], args.channels, args.pick == 'strongest', out_dir / f'{name}.png')
    if len(models) > 1:
        draw(models, args.channels, args.pick == 'strongest', out_dir / 'all.png')
    print(f'pictures: {out_dir}')
