"""Draw where a classifier looks.

Draws Grad-CAM (https://arxiv.org/abs/1610.02391) over the image. A MODEL is a classifier of timm,
such as convmlp_s or resnet50, or the config of one of MMPretrain, with random weights;
MODEL=pretrained, with timm's published ones; or MODEL=CHECKPOINT, with those of a file, an address
or convmlp://NAME.

  convmlp grad_cam photo.jpg resnet50=pretrained convmlp_m=pretrained
  convmlp grad_cam photo.jpg convmlp_s_imagenet=convmlp://convmlp_s_imagenet.pth
"""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..errors import UserError
from . import options
from .models import image_shape, open_model
from .photo import fit_photo, open_photo, to_input

Result = tuple[str, Image.Image, np.ndarray]  # title, photo as fed, heat map


def heat_map(model: Any, x: Tensor, number: int | None = None) -> tuple[np.ndarray, int, float]:
    """Grad-CAM of a classifier at its last feature map.

    Args:
        model (nn.Module): Of timm or MMPretrain, in evaluation mode.
        x (Tensor): One image (1, 3, H, W), normalised.
        number (int, optional): The class; None: the one that the model finds most likely.

    Returns:
        tuple[ndarray, int, float]: The map (h, w) of the last features, from 0 to 1, the class and
        its probability.

    Raises:
        UserError: The model's last features are no map, or there is no such class.
    """
    if hasattr(model, 'backbone'):
        layer, channels = model.backbone, None
    else:
        layer = model.get_submodule(model.feature_info[-1]['module'])
        channels = model.feature_info[-1]['num_chs']
    features: list[Tensor] = []
    hook = layer.register_forward_hook(
        lambda module, inputs, output: features.append(
            output if torch.is_tensor(output) else output[-1]
        )
    )
    logits = model(x)[0]
    hook.remove()
    maps, probabilities = features[0], logits.softmax(0).detach()
    shape = tuple(maps.shape)
    if len(shape) != 4 or shape[1] != (channels or shape[1]):
        raise UserError(
            f'{type(model).__name__}: its last features are {shape}, expected a map '
            '(N, channels, height, width)'
        )
    number = int(probabilities.argmax()) if number is None else number
    if not 0 <= number < len(probabilities):
        raise UserError(f'--target-class {number}: expected 0 to {len(probabilities) - 1}')
    weights = torch.autograd.grad(logits[number], maps)[0].mean((2, 3), keepdim=True)
    heat = (weights * maps).sum(1)[0].relu().detach()
    return (heat / heat.max().clamp(min=1e-12)).numpy(), number, float(probabilities[number])


def compute(
    spec: str, photo: Image.Image, shape: tuple[int, int] | None = None, number: int | None = None
) -> Result:
    """Title, photo as fed and heat map of MODEL or MODEL=CHECKPOINT."""
    model, name, size, weights = open_model(spec)
    if not (
        getattr(model, 'num_classes', 0)
        if hasattr(model, 'default_cfg')
        else getattr(model, 'head', None)
    ):
        raise UserError(f'{name} is no classifier, such as convmlp_s, resnet50 or a config of one')
    photo = fit_photo(photo, model, size, shape)
    heat, number, probability = heat_map(model, to_input(photo, model), number)
    return f'{name}, {weights}\nclass {number}, {probability:.0%}', photo, heat


def draw(results: Sequence[Result], file: Path) -> None:
    """The photo, and beside it every model's heat map over it."""
    from matplotlib.figure import Figure

    width, height = results[0][1].size
    figure = Figure(
        figsize=(3.2 * (len(results) + 1), 3.2 * height / width + 0.6),
        dpi=150,
        layout='constrained',
    )
    panels = figure.subplots(1, len(results) + 1)
    panels[0].imshow(results[0][1])
    panels[0].set_title('image', fontsize=10)
    for axes, (title, photo, heat) in zip(panels[1:], results, strict=True):
        axes.imshow(photo.convert('L'), cmap='gray')
        axes.imshow(
            heat,
            cmap='inferno',
            alpha=0.55,
            interpolation='bilinear',
            vmin=0,
            vmax=1,
            extent=(0, photo.width, photo.height, 0),
        )
        axes.set_title(title, fontsize=10)
    for axes in panels:
        axes.axis('off')
    figure.savefig(file, facecolor='white')


def add_arguments(parser: ArgumentParser) -> None:
    options.add(parser, 'image', 'models', '--shape')
    options.add(parser, '--out', default='work_dirs/grad_cam.png')
    parser.add_argument(
        '--target-class',
        type=int,
        metavar='N',
        help='number of a class (default: the one that a model finds most likely)',
    )


def run(args: Namespace) -> None:
    shape = args.shape and image_shape(args.shape)
    photo = open_photo(args.image)
    torch.manual_seed(0)  # the same random weights every time
    results = []
    for number, spec in enumerate(args.models, 1):
        print(f'{number} of {len(args.models)}: {spec}', flush=True)
        results.append(compute(spec, photo, shape, args.target_class))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw(results, args.out)
    print(f'picture: {args.out}')
