"""Write a model for deployment.

  convmlp export s backbone.onnx                  the backbone
  convmlp export CONFIG FILE --checkpoint FILE    a Semantic FPN: image to class scores

FILE ends in .onnx or .pt2 (torch.export). Images are (N, 3, height, width), normalised as in
training, of any N and any size from 33 pixels, for a Semantic FPN in multiples of 32. What was
written is compared with the model in sizes other than that of the export.
"""
import logging
import warnings
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from ..archs import NAMES
from ..checkpoints import load_backbone, load_model
from ..errors import UserError
from .models import build_model, check_checkpoint


class Segmentor(nn.Module):
    """(N, 3, H, W) to scores (N, classes, H, W): an EncoderDecoder without its data samples."""

    stride = 32

    def __init__(self, model):
        super().__init__()
        self.backbone, self.neck, self.head = model.backbone, model.neck, model.decode_head
        for module in self.head.modules():
            for name, child in module.named_children():
                if type(child).__name__ == 'Upsample':
                    # MMSegmentation's turns the size into an int, the same for all images.
                    setattr(module, name, nn.Upsample(
                        scale_factor=child.scale_factor, mode=child.mode,
                        align_corners=child.align_corners))

    def forward(self, x):
        return nn.functional.interpolate(
            self.head(self.neck(self.backbone(x))), size=x.shape[2:], mode='bilinear',
            align_corners=self.head.align_corners)


def add_arguments(parser):
    parser.add_argument('model', help='s, m, l, or the config of a Semantic FPN')
    parser.add_argument('out', type=Path, help='a file that does not exist, .onnx or .pt2')
    parser.add_argument('--checkpoint', help='weights; default: random ones')


def load(name, checkpoint):
    model, _ = build_model(name)
    if checkpoint:
        check_checkpoint(checkpoint)
        (load_backbone if name.lower() in NAMES else load_model)(model, checkpoint)
    backbone = getattr(model, 'backbone', model)
    if not hasattr(backbone, 'fuse'):
        raise UserError(f'{name} has no ConvMLP to export')
    backbone.fuse()
    if model is backbone:
        return model
    if not hasattr(model, 'decode_head'):
        raise UserError(f'{name} is a {type(model).__name__}: only backbones and Semantic FPN can '
                        'be exported whole, export its backbone or use MMDeploy')
    return Segmentor(model).eval()


def export(model, path):
    """Write ``model`` to ``path``, with dynamic batch, height and width."""
    Dim = torch.export.Dim
    if isinstance(model, Segmentor):
        sizes = [model.stride * Dim(f'{name}_in_strides', min=2) for name in ('height', 'width')]
    else:
        sizes = [Dim(name, min=33) for name in ('height', 'width')]
    dynamic = {0: Dim('batch', min=1), 2: sizes[0], 3: sizes[1]}
    image = torch.randn(2, 3, 128, 160)
    # PyTorch rounds a pooled size by a branch on the remainder, which would bind the exported
    # program to even or to odd sizes; for positive numbers // is the same without the branch.
    with torch.no_grad(), warnings.catch_warnings(), mock.patch(
            'torch._meta_registrations.div_rtn', lambda x, y: x // y, create=True):
        # Of PyTorch to itself, and of torchvision's operators, which no model here has.
        warnings.simplefilter('ignore', FutureWarning)
        logging.getLogger('torch.onnx').setLevel(logging.ERROR)
        program = torch.export.export(model, (image,), dynamic_shapes=(dynamic,), strict=False)
        if path.suffix == '.pt2':
            torch.export.save(program, path)
        else:
            torch.onnx.export(program, (), path, external_data=False, input_names=['image'],
                              dynamo=True, verbose=False)


def outputs(path, images):
    """The outputs of the program in ``path`` for ``images``, as a list of tensors."""
    if path.suffix == '.pt2':
        found = torch.export.load(path).module()(images)
        return list(found) if isinstance(found, (tuple, list)) else [found]
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    found = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    return [torch.from_numpy(output) for output in found]


@torch.no_grad()
def largest_error(model, path, batch, height, width):
    """Largest difference of ``path`` to ``model``, relative to the largest value of a level."""
    images = torch.randn(batch, 3, height, width)
    expected = model(images)
    expected = [expected] if torch.is_tensor(expected) else expected
    return max(float((a - b).abs().max() / b.abs().max())
               for a, b in zip(outputs(path, images), expected, strict=True))


def run(args):
    if args.out.suffix not in ('.onnx', '.pt2'):
        raise UserError(f'{args.out}: expected a name that ends in .onnx or .pt2')
    if args.out.exists():
        raise UserError(f'{args.out} exists already: give another name or remove it')
    model = load(args.model, args.checkpoint)
    unfinished = args.out.with_stem(args.out.stem + '.unfinished')
    print(f'exporting {args.model}, about a minute', flush=True)
    try:
        export(model, unfinished)
        for size in (1, 64, 96), (2, 96, 64), (1, *((192, 320) if isinstance(model, Segmentor)
                                                    else (97, 161))):
            error = largest_error(model, unfinished, *size)
            print(f'batch {size[0]}, {size[1]} x {size[2]}: differs by {error:.1e}', flush=True)
            if not error < 1e-4:
                raise UserError(f'{args.out} would differ from the model, so it is not written')
        unfinished.rename(args.out)
    except ImportError as error:
        raise UserError(f'{error}; pip install "convmlp-backbone[export]"') from None
    finally:
        unfinished.unlink(missing_ok=True)
    print(f'{args.out}: {args.out.stat().st_size / 1e6:.1f} MB, any batch, height and width')
