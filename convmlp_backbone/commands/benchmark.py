"""Measure a model in every form that it can be run in: speed, file size, precision.

  convmlp benchmark retinanet_convmlp_s_fpn_coins --checkpoint epoch_7.pth --metric --int8
  convmlp benchmark s --shape 224

PyTorch eager, fused, with its backbone compiled, and in bfloat16; the file that `convmlp export`
writes in ONNX Runtime and OpenVINO, in float32, bfloat16 and int8. From images as the network is
fed them to what is found in them, decoding, NMS and masks included. All take turns; a figure is the
median of its turns, the speed the median of the ratios to eager PyTorch in the same turn. The
difference is to its predictions on the same images, of detections those with a score from 0.3 on.

Writes DIR/benchmark.md, .json and .png, and photo.jpg, what every form finds in the first image.
"""

import copy
import json
import math
import platform
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from rich.progress import Progress

from ..cpu import keep_freed_memory
from ..deploy.evaluation import evaluator
from ..deploy.facts import facts_of, test_dataset
from ..deploy.files import trace
from ..deploy.forms import CLEAR, difference, file_forms, pytorch_forms, ratio, seconds_in_turns
from ..deploy.models import exportable
from ..deploy.quantisation import require_nncf
from ..errors import UserError
from ..files import require_writable, whole_file
from ..predictors import SCOPES, FactsPredictor
from ..runtime import bf16_unit, prepare, resize
from . import options
from .models import image_shape
from .whole import calibration, evaluated_config, generated, load, photos


def add_arguments(parser: ArgumentParser) -> None:
    options.add(parser, 'model', help='s, m, l, or a config')
    parser.add_argument('--checkpoint', help='weights; default: random ones')
    options.add(
        parser,
        '--shape',
        help='of the images that the network sees, in pixels; default: '
        'a photo of the test data, resized as the config says, or 512 x 512',
    )
    parser.add_argument('--batch', type=int, default=1, metavar='N', help='images (default 1)')
    parser.add_argument('--turns', type=int, default=7, metavar='N', help='default 7')
    parser.add_argument('--threads', type=int, metavar='N', help="default: PyTorch's own number")
    parser.add_argument('--compile', action='store_true', help='torch.compile, too; takes a minute')
    parser.add_argument('--int8', action='store_true', help='int8 too, by NNCF; takes minutes')
    parser.add_argument(
        '--metric',
        action='store_true',
        help="AP, mIoU or accuracy of all on the config's test data",
    )
    options.add(parser, '--out-dir', default='work_dirs/benchmark')
    options.add(
        parser, '--calibrate', '--data-root', '--backbone', '--cfg-options', '--trust', '--json'
    )


def check(args: Namespace) -> None:
    options.require_one_or_more(args, 'batch', 'turns', 'threads')
    if args.int8:
        require_nncf()
    elif args.calibrate:
        raise UserError(f'--calibrate {args.calibrate}: only with --int8')
    require_writable(Path(args.out_dir, 'benchmark.md'))


def run(args: Namespace) -> dict[str, Any]:
    check(args)
    if args.threads:
        torch.set_num_threads(args.threads)
    threads = torch.get_num_threads()
    keep_freed_memory()
    model, cfg, preprocessor, meta = load(args)
    evaluate = None
    if args.metric:
        if not cfg:
            raise UserError(f'--metric: {args.model} is a backbone, which predicts nothing')
        evaluate = evaluator(evaluated_config(args))
    bare = model is getattr(model, 'backbone', model)
    module = exportable(copy.deepcopy(model), preprocessor, normalised=bare)
    facts = facts_of(cfg, module, meta)
    images = batch_of(args, cfg, facts)
    calibrating = calibration(args, cfg) if args.int8 else []
    print(f'{args.model}, {" x ".join(map(str, images.shape[:3]))}: exporting', flush=True)
    with TemporaryDirectory() as folder, torch.no_grad():
        forms = [
            *pytorch_forms(model, facts, args.compile),
            *file_forms(trace(module), facts, Path(folder), threads, calibrating),
        ]
        with Progress() as progress:
            task = progress.add_task('Turns', total=args.turns + 1)
            times = seconds_in_turns(
                forms, images, args.turns, lambda turn: progress.update(task, completed=turn)
            )
        found = [form.predict(images) for form in forms]
        rows = []
        for form, answer in zip(forms, found, strict=True):
            metrics = evaluate(form.model) if evaluate and form.model else {}
            median = statistics.median(times[form.name])
            rows.append(
                dict(
                    form=form.name,
                    megabytes=form.size / 1e6,
                    ms=median * 1e3,
                    images_per_s=args.batch / median,
                    speed=ratio(times, form.name, forms[0].name),
                    **{name.rpartition('/')[2]: value for name, value in metrics.items()},
                    difference=difference(answer, found[0], facts['task']),
                )
            )
    versions = ', '.join(f'{name} {version(name)}' for name in ('torch', 'onnxruntime', 'openvino'))
    machine = (
        f'{args.model}, {" x ".join(map(str, images.shape[:3]))}; {platform.machine()} CPU, '
        f'bfloat16 by {bf16_unit() or "no unit"}, {threads} threads; {versions}; '
        f'medians of {args.turns} turns'
    )
    out, told = Path(args.out_dir), dict(machine=machine, rows=rows)
    text = f'{table(rows)}\n\n{machine}\n'
    for name, content in (('json', json.dumps(told, indent=1)), ('md', text)):
        with whole_file(out / f'benchmark.{name}') as part:
            part.write_text(content)
    draw(rows, out / 'benchmark.png', machine)
    print(f'{text}written to {out}: benchmark.md, .json, .png', end='')
    if facts['task'] in SCOPES:
        draw_photos(images[0], [row['form'] for row in rows], found, facts, out / 'photo.jpg')
        print(', photo.jpg', end='')
    print()
    return told


def batch_of(args: Namespace, cfg: Any, facts: dict) -> np.ndarray:
    """The images (N, height, width, C) that all forms are given."""
    found = photos(args, cfg, None, test_dataset(cfg), args.batch) or generated(args.batch)
    if args.shape:
        shape = image_shape(args.shape)
    else:
        steps = facts['resize']
        shape = prepare(found[0], steps).shape[:2] if steps else (512, 512)
    channels = np.arange(len(facts['mean'])) % 3
    images = [resize(image, *shape, 'cv2-bilinear')[..., channels] for image in found]
    return np.ascontiguousarray(np.resize(np.stack(images), (args.batch, *images[0].shape)))


FORMATS = dict(megabytes='.1f', ms='.0f', images_per_s='.2f', speed='.2f')


def table(rows: Sequence[dict]) -> str:
    """Rows as Markdown; a metric that only some have stays empty in others."""
    columns = list(dict.fromkeys(key for row in rows for key in row if key != 'difference'))
    columns.append('difference')
    lines = [f'| {" | ".join(columns)} |', '|' + '---|' * len(columns)]
    for row in rows:
        cells = [
            value
            if isinstance(value := row.get(key, ''), str)
            else f'{value:{FORMATS.get(key, ".4f")}}'
            for key in columns
        ]
        lines.append(f'| {" | ".join(cells)} |')
    return '\n'.join(lines)


def draw(rows: Sequence[dict], path: Path, title: str) -> None:
    """Bars of the speeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 0.35 * len(rows)), layout='constrained')
    axes = figure.subplots()
    colors = dict(PyTorch='#999999', ONNX='#0072b2', OpenVINO='#009e73')
    bars = axes.barh(
        [row['form'] for row in rows],
        [row['speed'] for row in rows],
        color=[colors[row['form'].split()[0]] for row in rows],
    )
    axes.bar_label(bars, [f'{row["speed"]:.2f} x, {row["ms"]:.0f} ms' for row in rows], padding=3)
    axes.set(xlabel='speed, times eager PyTorch', xlim=(0, 1.3 * max(row['speed'] for row in rows)))
    axes.set_title(title, fontsize=7, wrap=True)
    axes.invert_yaxis()
    axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(path, dpi=150)


def draw_photos(
    image: np.ndarray, names: Sequence[str], found: Sequence[Any], facts: dict, path: Path
) -> None:
    """What every form finds in an image, of the batch its first."""
    from matplotlib.figure import Figure

    task, predictor = facts['task'], FactsPredictor(facts)
    columns = min(len(names), 3)
    rows = math.ceil(len(names) / columns)
    height = 4 * image.shape[0] / image.shape[1] + 0.4
    figure = Figure(figsize=(4 * columns, height * rows), layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, name, answer in zip(grid.flat, names, found, strict=False):
        result = answer[0][0] if task == 'classification' else answer[0]
        axes.imshow(predictor.picture(image, predictor.as_sample(result, image), CLEAR))
        axes.set_title(name, fontsize=9)
    figure.savefig(path, dpi=120)
