"""How fast ConvMLP computes here, beside the network written plainly and beside other models.

  benchmark.py s                                  the backbone, eager and fused, at 224 x 224
  benchmark.py s m l --shape 512 --compile --onnx three sizes, compiled and exported too
  benchmark.py s --vs resnet50 --vs convnext_tiny beside backbones of timm
  benchmark.py s --train --batch 2                training steps, with and without with_cp
  benchmark.py retinanet_convmlp_s_fpn_1x_coco    a whole model, beside itself with a ResNet-50

All variants take turns, so that what else the machine does meets all of them; a figure is the
median of its turns, its spread the distance between the quartiles, its ratio to the first variant
the median of their ratios in the same turn. The rate of matrix products, the ceiling for every
network, is measured in the same turns. On a CPU the variants called "memory kept", and all whole
models, run as train.py, test.py and predict.py run them: in a process that keeps freed memory
(convmlp_backbone.keep_freed_memory). Peak memory is measured in one that keeps none.
"""

import argparse
import functools
import json
import platform
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

import torch
from benchmark_process import DTYPES, FORMATS, MATRIX, Process, peak_memory, seconds

from convmlp_backbone import keep_freed_memory
from convmlp_backbone.archs import ARCHS
from convmlp_backbone.commands.models import image_shape
from convmlp_backbone.cpu import mallopt
from convmlp_backbone.errors import UserError, one_line_errors


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('models', nargs='+', help='s, m, l, or configs of whole models')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        action='append',
        metavar='PIXELS',
        help='height and width, or one number; can be repeated (default: 224)',
    )
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument(
        '--dtype',
        choices=DTYPES,
        default='fp32',
        help='bf16 and fp16: autocast, for the reference too; beside it fused in fp32',
    )
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument(
        '--memory-format',
        choices=FORMATS,
        help='of ConvMLP and of timm models (default: what each chooses itself)',
    )
    parser.add_argument('--train', action='store_true', help='measure training steps')
    parser.add_argument('--compile', action='store_true', help='also compiled by torch.compile')
    parser.add_argument('--onnx', action='store_true', help='also exported, in ONNX Runtime')
    parser.add_argument(
        '--openvino', action='store_true', help='also exported, in OpenVINO, for this size of image'
    )
    parser.add_argument('--vs', action='append', default=[], metavar='TIMM_MODEL')
    parser.add_argument('--turns', type=int, default=15)
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/benchmark'))
    return parser.parse_args()


# The variants measured with freed memory kept too, in inference and in training.
KEPT = {False: ('fused', 'compiled'), True: ('eager', 'with_cp', 'compiled')}


def measure(model, args, shape):
    """A row of figures for every variant, and the rate of matrix products."""
    size = f'{shape[0]} x {shape[1]}'
    print(f'{size}: building', end='', flush=True)
    on_cpu = not args.device.startswith('cuda')
    with ExitStack() as stack:

        def start(args, *allocation):
            return stack.enter_context(Process(model, args, shape, *allocation))

        default = start(args, *[keep_freed_memory] * (on_cpu and model not in ARCHS))
        flops = default.flops
        measured = {name: (default, name) for name in flops}
        needing = default
        if on_cpu:
            # Else what malloc keeps for later would hide what is needed. The exported programs keep
            # their memory from run to run.
            ours = argparse.Namespace(**{**vars(args), 'onnx': False, 'openvino': False})
            needing = start(ours, functools.partial(mallopt, mmap_threshold=1 << 17))
        peaks = {name: needing.call(peak_memory, name) for name in needing.flops}
        if on_cpu and model in ARCHS:
            kept = start(argparse.Namespace(**{**vars(ours), 'vs': []}), keep_freed_memory)
            measured.update(
                {
                    f'{name}, memory kept': (kept, name)
                    for name in kept.flops
                    if name.endswith(KEPT[args.train])
                }
            )
        times = {name: [] for name in measured}
        for turn in range(args.turns):
            print(f'\r{size}: turn {turn + 1} of {args.turns}', end='', flush=True)
            for label, (process, name) in measured.items():
                time.sleep(0.1)  # until the threads of the process before have stopped spinning
                times[label].append(process.call(seconds, name))
    print()
    medians = {label: statistics.median(times[label]) for label in times}
    rate = flops[MATRIX] / medians[MATRIX]
    reference = next(iter(measured))
    rows = []
    for label, (_, name) in measured.items():
        if name == MATRIX:
            continue
        low, _, high = statistics.quantiles(times[label], n=4)
        ratio = statistics.median(
            a / b for a, b in zip(times[reference], times[label], strict=True)
        )
        speed = flops[name] and flops[name] / medians[label]
        peak = peaks.get(name)
        rows.append(
            dict(
                model=label,
                shape=f'{shape[0]}x{shape[1]}',
                batch=args.batch,
                ms=medians[label] * 1e3,
                spread_ms=(high - low) * 1e3,
                ratio=ratio,
                images_per_s=args.batch / medians[label],
                gflops=speed and speed / 1e9,
                of_matrix_rate=speed and speed / rate,
                peak_mb=peak,
                peak_ratio=peak and peaks[reference] and peak / peaks[reference],
            )
        )
    return rows, rate


COLUMNS = {
    'model': '{}',
    'shape': '{}',
    'ms': '{:.1f}',
    'spread_ms': '{:.1f}',
    'ratio': '{:.2f}',
    'images_per_s': '{:.2f}',
    'gflops': '{:.0f}',
    'of_matrix_rate': '{:.2f}',
    'peak_mb': '{:.0f}',
    'peak_ratio': '{:.2f}',
}


def table(rows):
    """The rows as Markdown."""
    lines = [f'| {" | ".join(COLUMNS)} |', '|' + '---|' * len(COLUMNS)]
    for row in rows:
        cells = ['' if row[key] is None else form.format(row[key]) for key, form in COLUMNS.items()]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def draw(rows, path, title):
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    names = [f'{row["model"]}, {row["shape"]}' for row in rows]
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.32 * len(rows)), layout='constrained')
    bars = axes.barh(
        names,
        [row['ratio'] for row in rows],
        color=['#999999' if row['ratio'] == 1 else '#0072b2' for row in rows],
    )
    axes.bar_label(bars, [f'{row["ratio"]:.2f}   {row["ms"]:.0f} ms' for row in rows], padding=3)
    axes.axvline(1, color='#999999', linewidth=1)
    axes.set(
        xlabel='speed, times the reference',
        title=title,
        xlim=(0, 1.25 * max(row['ratio'] for row in rows)),
    )
    axes.invert_yaxis()
    axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=150)


def main():
    args = parse_args()
    shapes = [image_shape(numbers) for numbers in args.shape or [[224]]]
    if min(args.batch, args.turns - 1) < 1:
        raise UserError(f'--batch {args.batch} --turns {args.turns}: expected at least 1 and 2')
    rows = []
    for name in args.models:
        for shape in shapes:
            new, rate = measure(name, args, shape)
            rows += new
            print(table(new), flush=True)
    device = (
        torch.cuda.get_device_name(args.device)
        if args.device.startswith('cuda')
        else f'{platform.machine()} CPU, {torch.get_num_threads()} threads'
    )
    machine = (
        f'{device}, torch {torch.__version__}, {args.dtype}, '
        f'{"training step" if args.train else "inference"}, batch {args.batch}, '
        f'matrix products {rate / 1e9:.0f} GFLOP/s'
    )
    args.out_dir.mkdir(parents=True, exist_ok=True)
    (args.out_dir / 'benchmark.json').write_text(
        json.dumps(dict(machine=machine, rows=rows), indent=1)
    )
    (args.out_dir / 'benchmark.md').write_text(f'{machine}\n\n{table(rows)}\n')
    draw(rows, args.out_dir / 'benchmark.png', machine)
    print(f'{machine}\nwritten to {args.out_dir}: benchmark.json, benchmark.md, benchmark.png')


if __name__ == '__main__':
    with one_line_errors():
        main()
