"""Where ConvMLP's inference time goes, by kind of layer, against what the machine allows.

  profile_layers.py s --shape 800 1344 [--keep-memory]

A layer's floor is what its multiplications take at the rate of large matrix products, or moving
its inputs, outputs and weights at the rate of a copy, whichever takes longer; both rates are
measured here. What modules do not show, residual additions of the conv stage and copies, is the
rest.
"""

import argparse
import statistics
import time

import torch
from torch import nn

from convmlp_backbone import ConvMLP, keep_freed_memory
from convmlp_backbone.archs import ARCHS
from convmlp_backbone.commands.models import image_shape
from convmlp_backbone.errors import one_line_errors


def kind(layer):
    """What a layer is called in the table."""
    if isinstance(layer, nn.Conv2d):
        depthwise = 'depthwise ' if layer.groups > 1 else ''
        stride = ', stride 2' if layer.stride[0] > 1 else ''
        return f'{depthwise}convolution {layer.kernel_size[0]}x{layer.kernel_size[0]}{stride}'
    if isinstance(layer, nn.Linear):
        return 'linear, with GELU' if getattr(layer, 'gelu', False) else 'linear, with residual'
    return type(layer).__name__


def median_seconds(call, turns):
    times = []
    for _ in range(turns):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def measured_rates():
    """Floating-point operations and bytes per second of a matrix product and of a copy."""
    a, b = torch.randn(1536, 1536), torch.empty(1536, 1536)
    source, target = torch.randn(1 << 25), torch.empty(1 << 25)
    return (
        2 * 1536**3 / median_seconds(lambda: torch.mm(a, a, out=b), 15),
        2 * 4 * source.numel() / median_seconds(lambda: target.copy_(source), 7),
    )


def floor(layer, x, y, flop_rate, byte_rate):
    """Seconds that a call of ``layer`` takes at least."""
    weights = sum(p.numel() for p in layer.parameters())
    per_output = layer.weight[0].numel() if isinstance(layer, (nn.Conv2d, nn.Linear)) else 0
    return max(
        2 * y.numel() * per_output / flop_rate, 4 * (x.numel() + y.numel() + weights) / byte_rate
    )


def profile(model, x, rates, turns=7):
    """``{kind: [seconds, floor]}`` of the leaf layers, and the seconds of a whole pass."""
    table, starts = {}, {}

    def before(layer, inputs):
        starts[layer] = time.perf_counter()

    def after(layer, inputs, output):
        row = table.setdefault(kind(layer), [0, 0])
        row[0] += (time.perf_counter() - starts[layer]) / turns
        row[1] += floor(layer, inputs[0], output, *rates) / turns

    with torch.inference_mode():
        model(x)
        whole = median_seconds(lambda: model(x), turns)
        for layer in model.modules():
            if not list(layer.children()) and not isinstance(layer, nn.Identity):
                layer.register_forward_pre_hook(before)
                layer.register_forward_hook(after)
        for _ in range(turns):
            model(x)
    return table, whole


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('arch', choices=ARCHS)
    parser.add_argument(
        '--shape',
        nargs='+',
        type=int,
        metavar='N',
        default=[224],
        help='height and width of the image, or one number for both',
    )
    parser.add_argument(
        '--keep-memory',
        action='store_true',
        help='that of freed tensors, as train.py, test.py and predict.py do',
    )
    args = parser.parse_args()
    if args.keep_memory:
        keep_freed_memory()
    shape = image_shape(args.shape)
    rates = measured_rates()
    table, whole = profile(ConvMLP(args.arch).eval().fuse(), torch.randn(1, 3, *shape), rates)
    print(
        f'fused ConvMLP-{args.arch.upper()}, {shape[0]} x {shape[1]}, fp32, '
        f'{torch.get_num_threads()} threads, {rates[0] / 1e9:.0f} GFLOP/s, '
        f'{rates[1] / 1e9:.1f} GB/s\n\n'
        '| layers | ms | floor, ms | time / floor |\n|---|---:|---:|---:|'
    )
    seconds, least = (sum(row[i] for row in table.values()) for i in range(2))
    for name, row in [
        *sorted(table.items(), key=lambda item: -item[1][0]),
        ('the rest', (whole - seconds, 0)),
        ('whole', (whole, least)),
    ]:
        ratio = f'{row[0] / row[1]:.2f}' if row[1] else ''
        print(f'| {name} | {row[0] * 1e3:.1f} | {row[1] * 1e3:.1f} | {ratio} |')


if __name__ == '__main__':
    with one_line_errors():
        main()
