"""How fast ConvMLP computes here, beside the network written plainly and beside other models.

  benchmark.py s                                  the backbone, eager and fused, at 224 x 224
  benchmark.py s m l --shape 512 --compile --onnx three sizes, compiled and exported too
  benchmark.py s --vs resnet50 --vs convnext_tiny beside backbones of timm
  benchmark.py s --train --batch 2                training steps, with and without with_cp
  benchmark.py retinanet_convmlp_s_fpn_1x_coco    a whole model, beside itself with a ResNet-50

All variants take turns, so that what else the machine does meets all of them; a figure is the
median of its turns, its spread the distance between the quartiles. The rate of matrix products,
the ceiling for every network, is measured in the same turns.
"""
import argparse
import copy
import ctypes
import json
import logging
import platform
import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from any_model import build_from_config, image_shape
from common import UserError, find_config, fuse_model, one_line_errors
from mmengine.config import Config
from mmengine.structures import BaseDataElement
from reference_model import ReferenceConvMLP, random_statistics
from torch.utils.flop_counter import FlopCounterMode

from convmlp_backbone import ConvMLP
from convmlp_backbone.convmlp import ARCHS

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('models', nargs='+', help='s, m, l, or configs of whole models')
    parser.add_argument('--shape', type=int, nargs='+', action='append', metavar='PIXELS',
                        help='height and width, or one number; can be repeated (default: 224)')
    parser.add_argument('--batch', type=int, default=1)
    parser.add_argument('--dtype', choices=DTYPES, default='fp32',
                        help='bf16 and fp16: autocast, for the reference too')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--train', action='store_true', help='measure training steps')
    parser.add_argument('--compile', action='store_true', help='also compiled by torch.compile')
    parser.add_argument('--onnx', action='store_true', help='also exported, in ONNX Runtime')
    parser.add_argument('--vs', action='append', default=[], metavar='TIMM_MODEL')
    parser.add_argument('--turns', type=int, default=15)
    parser.add_argument('--out-dir', type=Path, default=Path('work_dirs/benchmark'))
    return parser.parse_args()


def forward(call, args):
    """``call`` as what is measured: inference, or a training step without the optimizer."""
    amp = (torch.autocast(args.device.split(':')[0], DTYPES[args.dtype]) if args.dtype != 'fp32'
           else nullcontext())

    def infer(x):
        with torch.inference_mode(), amp:
            call(x)

    def train(x):
        with amp:
            outputs = call(x)
            outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
            loss = sum(output.float().mean() for output in outputs)
        loss.backward()
    return train if args.train else infer


def backbone_variants(size, args, shape):
    """``{name: callable}`` for a size of ConvMLP; the first is what ratios refer to."""
    reference = ReferenceConvMLP(**ARCHS[size]).to(args.device).train(args.train)
    random_statistics(reference)

    def ours(**kwargs):
        model = ConvMLP(size, drop_path_rate=0, **kwargs)
        model.load_state_dict(reference.state_dict())
        return model.to(args.device).train(args.train)
    variants = {f'{size} reference': reference, f'{size} eager': ours()}
    if args.train:
        variants[f'{size} with_cp'] = ours(with_cp=True)
    else:
        variants[f'{size} fused'] = ours().fuse()
    if args.compile:
        # Constant weights let the compiler choose their layout; it does so only in inference.
        torch._inductor.config.freezing = not args.train
        model = ours() if args.train else ours().fuse()
        # One program a shape: with constant weights, that for any shape fails in torch 2.10.
        variants[f'{size} compiled'] = torch.compile(model, dynamic=False)
    if args.onnx:
        variants[f'{size} ONNX Runtime'] = onnx_session(ours().fuse().cpu(), args)
    check_agreement(variants, args, shape)
    return variants


def onnx_session(model, args):
    if args.train or args.device != 'cpu' or args.dtype != 'fp32':
        raise UserError('--onnx is measured for inference on a CPU in fp32 only')
    import onnxruntime
    from export import export
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.onnx')
        export(model, path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        # Its threads would spin on in the turn of the next variant.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    return lambda x: [torch.from_numpy(y) for y in session.run(None, {'image': x.numpy()})]


@torch.no_grad()
def check_agreement(variants, args, shape):
    """Raise if a variant computes something else than the reference."""
    if args.dtype != 'fp32':
        return
    # Training mode normalises by the batch, which a tiny one would make ill-conditioned.
    x = torch.randn(args.batch, 3, *shape, device=args.device)
    expected = None
    for name, call in variants.items():
        outputs = call(x)
        expected = expected or outputs
        for a, b in zip(outputs, expected, strict=True):
            error = float((a - b).abs().max() / b.abs().max())
            if not error < (1e-3 if args.train else 1e-4):
                raise UserError(f'{name} differs from the reference by {error:.1e}')


def whole_model_variants(config, args, shape):
    """A detector or segmentor of the mm toolboxes, and itself with a ResNet-50."""
    if args.train:
        raise UserError('--train measures backbones only: s, m or l')
    cfg = Config.fromfile(find_config(config))
    cfg.model.backbone.init_cfg = None
    resnet = copy.deepcopy(cfg)
    resnet.model.backbone = dict(type='ResNet', depth=50, num_stages=4, out_indices=(0, 1, 2, 3))
    resnet.model.neck.in_channels = [256, 512, 1024, 2048]
    variants = {}
    for name, part in (('ResNet-50', resnet), ('eager', cfg), ('fused', cfg)):
        torch.manual_seed(0)
        model = build_from_config(copy.deepcopy(part)).to(args.device)
        # Else every anchor would be an object, and NMS take all the time.
        logging.disable(logging.INFO)  # a line for every parameter
        model.init_weights()
        logging.disable(logging.NOTSET)
        if name == 'fused':
            fuse_model(model)
        samples = [BaseDataElement(metainfo=dict(
            img_shape=shape, ori_shape=shape, pad_shape=shape, batch_input_shape=shape,
            scale_factor=(1., 1.))) for _ in range(args.batch)]
        variants[f'{Path(config).stem} {name}'] = (
            lambda x, model=model, samples=samples: model(x, samples, mode='predict'))
    return variants


def timm_variants(args):
    variants = {}
    for name in args.vs:
        import timm
        if not timm.is_model(name):
            raise UserError(f'--vs {name}: timm has no such model; timm.list_models() names all')
        # Some, such as Swin, must know the size; features_only leaves out the classifier.
        for extra in (dict(dynamic_img_size=True), dict(strict_img_size=False), {}):
            try:
                model = timm.create_model(name, features_only=True, **extra)
                break
            except TypeError:
                continue
        variants[name] = model.to(args.device).train(args.train)
    return variants


class Memory:
    """Peak memory of what runs inside, in MB: of the GPU, or resident memory of this process."""

    def __init__(self, device):
        self.cuda = device.startswith('cuda')

    def __enter__(self):
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            # What the allocator keeps for later would hide what is needed; Linux forgets the peak.
            ctypes.CDLL(None).malloc_trim(0)
            Path('/proc/self/clear_refs').write_text('5')
            self.before = self.status('VmRSS')
        return self

    def __exit__(self, *exc):
        peak = torch.cuda.max_memory_allocated() if self.cuda else self.status('VmHWM')
        self.peak = (peak - self.before) / 2**20

    @staticmethod
    def status(key):
        line, = (line for line in Path('/proc/self/status').read_text().splitlines()
                 if line.startswith(key))
        return int(line.split()[1]) * 1024


def count_flops(call, x):
    with FlopCounterMode(display=False) as counter:
        call(x)
    return counter.get_total_flops()


def measure(variants, args, shape):
    """A row of figures for every variant."""
    def synchronize():
        if args.device.startswith('cuda'):
            torch.cuda.synchronize()

    def seconds(function, *inputs):
        synchronize()
        start = time.perf_counter()
        function(*inputs)
        synchronize()
        return time.perf_counter() - start
    x = torch.randn(args.batch, 3, *shape, device=args.device)
    # A square product of about the work of a layer, in the precision of the networks.
    n = 8192 if args.device.startswith('cuda') else 1536
    matrix = torch.randn(n, n, device=args.device, dtype=DTYPES[args.dtype])
    product = torch.empty_like(matrix)
    calls = {name: forward(call, args) for name, call in variants.items()}
    times = {name: [] for name in (*calls, 'matrix')}
    peaks = {}
    for name, call in calls.items():
        call(x)  # Compiles, packs weights and so on.
        with Memory(args.device) as memory:
            call(x)
        peaks[name] = memory.peak
    for turn in range(args.turns):
        print(f'\r{shape[0]} x {shape[1]}: turn {turn + 1} of {args.turns}', end='', flush=True)
        for name, call in calls.items():
            times[name].append(seconds(call, x))
        times['matrix'].append(seconds(lambda: torch.mm(matrix, matrix, out=product)))
    print()
    rate = 2 * n**3 / statistics.median(times['matrix'])
    rows, reference = [], statistics.median(times[next(iter(calls))])
    for name, call in variants.items():
        size = name.split(' ')[0]
        median = statistics.median(times[name])
        low, _, high = statistics.quantiles(times[name], n=4)
        countable = call if isinstance(call, torch.nn.Module) else None
        if size in ARCHS:
            # Fused, compiled and exported ones are the same work in other operators.
            countable = variants[f'{size} reference']
        flops = count_flops(forward(countable, args), x) if countable else None
        rows.append(dict(
            model=name, shape=f'{shape[0]}x{shape[1]}', batch=args.batch, ms=median * 1e3,
            spread_ms=(high - low) * 1e3, ratio=reference / median,
            images_per_s=args.batch / median, gflops=flops and flops / median / 1e9,
            of_matrix_rate=flops and flops / median / rate, peak_mb=peaks[name],
            peak_ratio=peaks[name] / max(peaks[next(iter(calls))], 1e-9)))
    return rows, rate


COLUMNS = {'model': '{}', 'shape': '{}', 'ms': '{:.1f}', 'spread_ms': '{:.1f}', 'ratio': '{:.2f}',
           'images_per_s': '{:.2f}', 'gflops': '{:.0f}', 'of_matrix_rate': '{:.2f}',
           'peak_mb': '{:.0f}', 'peak_ratio': '{:.2f}'}


def table(rows):
    """The rows as Markdown."""
    lines = [f'| {" | ".join(COLUMNS)} |', '|' + '---|' * len(COLUMNS)]
    for row in rows:
        cells = ['' if row[key] is None else form.format(row[key])
                 for key, form in COLUMNS.items()]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def draw(rows, path, title):
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot as plt
    names = [f'{row["model"]}, {row["shape"]}' for row in rows]
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.32 * len(rows)), layout='constrained')
    bars = axes.barh(names, [row['ratio'] for row in rows], color=[
        '#999999' if row['ratio'] == 1 else '#0072b2' for row in rows])
    axes.bar_label(bars, [f'{row["ratio"]:.2f}   {row["ms"]:.0f} ms' for row in rows], padding=3)
    axes.axvline(1, color='#999999', linewidth=1)
    axes.set(xlabel='speed, times the reference', title=title, xlim=(
        0, 1.25 * max(row['ratio'] for row in rows)))
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
            make = backbone_variants if name in ARCHS else whole_model_variants
            variants = {**make(name, args, shape), **timm_variants(args)}
            new, rate = measure(variants, args, shape)
            rows += new
            print(table(new), flush=True)
    device = (torch.cuda.get_device_name(args.device) if args.device.startswith('cuda')
              else f'{platform.machine()} CPU, {torch.get_num_threads()} threads')
    machine = (f'{device}, torch {torch.__version__}, {args.dtype}, '
               f'{"training step" if args.train else "inference"}, batch {args.batch}, '
               f'matrix products {rate / 1e9:.0f} GFLOP/s')
    args.out_dir.mkdir(parents=True, exist_ok=True)
    (args.out_dir / 'benchmark.json').write_text(
        json.dumps(dict(machine=machine, rows=rows), indent=1))
    (args.out_dir / 'benchmark.md').write_text(f'{machine}\n\n{table(rows)}\n')
    draw(rows, args.out_dir / 'benchmark.png', machine)
    print(f'{machine}\nwritten to {args.out_dir}: benchmark.json, benchmark.md, benchmark.png')


if __name__ == '__main__':
    with one_line_errors():
        main()
