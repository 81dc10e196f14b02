"""Published accuracy against measured speed, ConvMLP beside light networks: docs/pareto.md.

  python tools/dev/pareto.py            all, on a quiet machine; goes on where it was stopped
  python tools/dev/pareto.py --quick    three networks, two turns, nothing written to docs/
  python tools/dev/pareto.py --draw     only the page and the figure, from docs/pareto.json

Networks have random weights, are re-parameterised or fused as they are meant to be run, and are
exported to ONNX for one size of image. OpenVINO runs them, with a thread for every core. Those of
one size and precision take turns in one process, each run once before it is measured.
"""

import argparse
import json
import os
import platform
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxscript.optimizer
import timm
import torch
import yaml
from benchmark_process import openvino_runtime
from make_model_tables import ROOT, read_models
from pareto_page import REFERENCE, changes, draw, tables
from rich.progress import Progress
from timm.utils.model import reparameterize_model

import convmlp_backbone  # noqa: F401  which timm knows then
from convmlp_backbone.deploy.files import quiet, write_onnx
from convmlp_backbone.deploy.forms import Form, seconds_in_turns
from convmlp_backbone.deploy.quantisation import quantise, require_nncf
from convmlp_backbone.errors import one_line_errors
from convmlp_backbone.fused import fuse
from convmlp_backbone.network import Network
from convmlp_backbone.runtime import FORMAT, bf16_unit

DOCS = ROOT / 'docs'
MARKED = re.compile(r'(<!-- pareto -->\n).*(<!-- end of pareto -->)', re.S)
STRIDES = (4, 8, 16, 32)
QUICK = ('ConvMLP-S', REFERENCE, 'EfficientNet-B0')


class Task(NamedTuple):
    """What is measured: the classifier at its own size, or the levels F1 to F4 of a large image."""

    title: str
    shape: tuple[int, int] | None
    batch: int
    turns: int
    seconds: float  # that a turn takes about


TASKS = (
    Task('Classifier, 224x224, batch 1', None, 1, 9, 4),
    Task('Classifier, 224x224, batch 8', None, 8, 5, 8),
    Task('Levels, 800x1344, batch 1', (800, 1344), 1, 3, 24),
)


def networks() -> list[dict]:
    """What there is to measure: name, year, weights, size, score, source, and what they had extra;
    timm's name is the part of the weights' before the dot."""
    own = [
        dict(
            name=f'ConvMLP-{match[2].upper()}',
            year=2021,
            weights=match[1],
            size=224,
            score=model['Results'][0]['Metrics']['Top 1 Accuracy'],
            source='paper',
        )
        for model in read_models()
        if (match := re.fullmatch('(convmlp_([sml]))_imagenet', model['Name']))
    ]
    others = yaml.safe_load(Path(__file__).with_name('published_results.yml').read_text())
    return own + others['pareto']


class Levels(torch.nn.Module):
    """The levels of a timm network that a pyramid is built on."""

    def __init__(self, model: torch.nn.Module):
        super().__init__()
        self.model = model
        reductions = model.feature_info.reduction()
        self.wanted = [reductions.index(stride) for stride in STRIDES]

    def forward(self, images: torch.Tensor):
        levels = self.model(images)
        return tuple(levels[i] for i in self.wanted)


def build(name: str, shape: tuple[int, int], levels: bool) -> torch.nn.Module:
    """A network of timm, without what only its training needs."""
    options = dict(features_only=True) if levels else {}
    torch.manual_seed(0)
    try:  # Swin must know
        model = timm.create_model(name, img_size=shape, **options)
    except TypeError:
        model = timm.create_model(name, **options)
    model = reparameterize_model(model.eval())
    for part in model.modules():
        if isinstance(part, Network):
            fuse(part)
    return Levels(model) if levels else model


def export(model: torch.nn.Module, path: Path, shape: tuple[int, int], batches: bool) -> None:
    """Write ``model`` as ONNX for images of this shape, any number of them if ``batches``."""
    dynamic = ({0: torch.export.Dim.DYNAMIC},) if batches else None
    images = torch.zeros(1 + batches, 3, *shape)
    with torch.no_grad(), quiet():
        program = torch.export.export(model, (images,), dynamic_shapes=dynamic, strict=False)
    facts = dict(
        format=FORMAT,
        task='backbone',
        outputs=[f'F{i + 1}' for i in range(4)] if isinstance(model, Levels) else ['scores'],
        # What follows is for the images of `quantise`.
        **dict(input='normalised', channels='rgb', mean=[127.5] * 3, std=[64.0] * 3, resize=[]),
    )
    write_onnx(program, path, facts)
    # NNCF fails on a constant that is cast, which the exporter leaves where it is large.
    limits = dict(input_size_limit=1 << 28, output_size_limit=1 << 28)
    onnx.save(onnxscript.optimizer.optimize(onnx.load(path), **limits), path)


def prepare(network: dict, task: Task, precision: str, folder: Path) -> tuple[Path, tuple]:
    """The ONNX file to run, written if it is not there, and the shape of its images."""
    shape = task.shape or (network['size'],) * 2
    kind = 'levels' if task.shape else 'classifier'
    paths = {p: folder / f'{network["name"]}-{kind}-{p}.onnx' for p in ('f32', 'int8')}
    for kept, path in paths.items():
        if path.exists() or kept != 'f32' and kept != precision:
            continue
        part = path.with_name(f'part-{path.name}')
        if kept == 'f32':
            name = network['weights'].partition('.')[0]
            export(build(name, shape, bool(task.shape)), part, shape, not task.shape)
        else:
            noise = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
            quantise(paths['f32'], part, noise)  # the ranges change no time
        os.replace(part, path)
    return paths['int8' if precision == 'int8' else 'f32'], (task.batch, 3, *shape)


def ready(network: dict, task: Task, precision: str, folder: Path) -> Form:
    path, shape = prepare(network, task, precision, folder)
    run = openvino_runtime(path, shape, 'bf16' if precision == 'bf16' else 'f32')
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return Form(network['name'], lambda _: run(images), None, path.stat().st_size)


def machine(precisions: list[str]) -> str:
    packages = ('torch', 'timm', 'openvino', *['nncf'] * ('int8' in precisions))
    return (
        f'{platform.machine()} CPU, {torch.get_num_threads()} threads, bfloat16 by '
        f'{bf16_unit() or "no unit"}; {", ".join(f"{name} {version(name)}" for name in packages)}'
    )


def measure(chosen: list[dict], tasks: list[Task], precisions: list[str], folder: Path) -> dict:
    """``{machine, seconds: {task: {precision: {network: [a number for every turn]}}}}``, kept in
    ``folder`` from step to step, so that another run goes on."""
    file = folder / 'pareto.json'
    folder.mkdir(parents=True, exist_ok=True)
    found = dict(machine=machine(precisions), seconds={})
    if file.exists() and (before := json.loads(file.read_text()))['machine'] == found['machine']:
        found = before
    for number, network in enumerate(chosen, 1):
        print(f'files, {number} of {len(chosen)}: {network["name"]}', flush=True)
        for task in tasks:
            prepare(network, task, precisions[-1], folder)
    steps = [
        (t, p) for t in tasks for p in precisions if p not in found['seconds'].get(t.title, {})
    ]
    share = len(chosen) / len(networks())
    with Progress() as progress:
        bar = progress.add_task('', total=sum((t.turns + 1) * t.seconds * share for t, _ in steps))
        for number, (task, precision) in enumerate(steps, 1):
            title = f'{number} of {len(steps)}: {task.title}, {precision}'
            progress.console.print(title)  # where there is no terminal there is no bar
            progress.update(bar, description=title)
            forms = [ready(network, task, precision, folder) for network in chosen]

            def tell(turn, task=task, title=title):
                progress.update(bar, description=f'{title}, turn {turn} of {task.turns + 1}')
                progress.advance(bar, task.seconds * share)

            seconds = seconds_in_turns(forms, np.empty(0), task.turns, tell, warm=True)
            found['seconds'].setdefault(task.title, {})[precision] = {
                name: [float(f'{s:.4g}') for s in times] for name, times in seconds.items()
            }
            file.write_text(json.dumps(found))
    return found


def with_tables(text: str, found: dict, rows: list[dict]) -> str:
    """The text of the page with its tables made anew."""
    return MARKED.sub(lambda match: match[1] + tables(found, rows) + match[2], text)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--quick', action='store_true')
    parser.add_argument('--draw', action='store_true')
    args = parser.parse_args()
    raw, rows = DOCS / 'pareto.json', networks()
    precisions = ['f32', *['bf16'] * bool(bf16_unit()), 'int8']
    if not args.draw:
        require_nncf()
    if args.quick:
        folder = ROOT / 'work_dirs/pareto-quick'
        shutil.rmtree(folder, ignore_errors=True)
        tasks = [task._replace(turns=2) for task in TASKS]
        found = measure([r for r in rows if r['name'] in QUICK], tasks, precisions, folder)
        draw(found, rows, folder / 'pareto.png')
        print(tables(found, rows), f'written: {folder}/pareto.json, .png', sep='\n')
        return
    if not args.draw:
        folder = ROOT / 'work_dirs/pareto'
        found = measure(rows, list(TASKS), precisions, folder)
        if raw.exists():
            found['repeated'] = changes(found, json.loads(raw.read_text()))
        raw.write_text(json.dumps(found))
        shutil.rmtree(folder)  # the next run is a new one
    found, page = json.loads(raw.read_text()), DOCS / 'pareto.md'
    page.write_text(with_tables(page.read_text(), found, rows))
    draw(found, rows, DOCS / 'pareto.png')
    print(f'written: {page}, .json, .png')


if __name__ == '__main__':
    with one_line_errors():
        main()
