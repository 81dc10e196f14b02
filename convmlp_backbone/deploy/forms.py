"""One model in every form: what a form predicts, how fast, and how far it is from PyTorch."""

import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.model import BaseModel
from torchvision.ops import box_iou

from ..amp import predict_in_bf16
from ..fused import fuse_model
from .agreement import answers, predict
from .evaluation import ExportedModel, load
from .files import convert, write_onnx
from .quantisation import quantise

CLEAR = 0.3  # score of what the difference is measured on


class Form(NamedTuple):
    """A way to run a model; ``predict`` gives what :func:`agreement.predict` does."""

    name: str
    predict: Callable[[np.ndarray], Any]
    model: BaseModel | None  # what a toolbox can evaluate
    size: int  # of its file, or of the weights, in bytes


def pytorch_forms(model: Any, facts: dict, compiled: bool) -> Iterator[Form]:
    """A toolbox's model, or a backbone, eager, fused, compiled and in bfloat16."""
    size = sum(value.nbytes for value in model.state_dict().values())

    def form(name: str, model: Any, judged: bool = True) -> Form:
        run = partial(in_own_size, partial(predict, model, facts=facts))
        return Form(f'PyTorch {name}', run, model if judged else None, size)

    yield form('eager', model)
    yield form('eager bf16', predict_in_bf16(copy.deepcopy(model)))
    yield form('fused', fuse_model(copy.deepcopy(model)))
    if compiled:
        # Constant weights let the compiler choose their layout.
        torch._inductor.config.freezing = True
        other = fuse_model(copy.deepcopy(model))
        part: Any = getattr(other, 'backbone', other)
        part.forward = torch.compile(part.forward, dynamic=False)
        yield form('fused, compiled backbone', other, judged=False)  # anew for every size
    yield form('fused bf16', predict_in_bf16(fuse_model(copy.deepcopy(model))))


def in_own_size(run: Callable, images: np.ndarray) -> Any:
    return run(images, images.shape[1:3])


def file_forms(
    program: torch.export.ExportedProgram,
    facts: dict,
    folder: Path,
    threads: int,
    photos: Sequence[np.ndarray],
) -> Iterator[Form]:
    """The exported files in ONNX Runtime and OpenVINO; int8 where there are photos to calibrate."""
    for precision in ('f32', 'int8') if len(photos) else ('f32',):
        onnx, ir = folder / f'{precision}.onnx', folder / f'{precision}.xml'
        if precision == 'f32':
            write_onnx(program, onnx, facts)
        else:
            quantise(folder / 'f32.onnx', onnx, photos)
            facts = dict(facts, precision=precision)
        convert(onnx, ir, facts)
        for file, backend in ((onnx, 'ONNX Runtime'), (ir, 'OpenVINO')):
            for kind in ('f32', 'bf16') if (file, precision) == (ir, 'f32') else (precision,):
                runtime = load(
                    file,
                    backend=backend.lower().replace(' ', ''),
                    threads=threads,
                    precision=kind,
                )
                run = partial(in_own_size, partial(answers, runtime))
                model = ExportedModel(runtime) if facts['task'] != 'backbone' else None
                size = sum(
                    part.stat().st_size
                    for part in folder.glob(f'{file.stem}.*')
                    if (part.suffix == '.onnx') == (file is onnx)
                )
                yield Form(f'{backend} {kind}', run, model, size)


def seconds_in_turns(
    forms: Sequence[Form],
    images: np.ndarray,
    turns: int,
    tell: Callable[[int], None],
    warm: bool = False,
) -> dict[str, list[float]]:
    """Seconds of every form in every turn, so that what else the machine does meets all of them.

    Args:
        warm: Each is run once before, so that its weights are in the caches, not those of another.
    """
    found: dict[str, list[float]] = {form.name: [] for form in forms}
    for turn in range(-1, turns):  # the first is not counted
        for form in forms:
            time.sleep(0.1)  # until the threads of the form before have stopped spinning
            if warm:
                form.predict(images)
            start = time.perf_counter()
            form.predict(images)
            if turn >= 0:
                found[form.name].append(time.perf_counter() - start)
        tell(turn + 2)
    return found


def ratio(times: Mapping[str, Sequence[float]], name: str, reference: str) -> float:
    """How many times as fast as the reference, the median of the turns."""
    pairs = zip(times[reference], times[name], strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def difference(ours: Any, theirs: Any, task: str) -> str:
    """The largest differences between predictions, in words."""
    if task == 'segmentation':
        return f'{(ours != theirs).mean():.2%} of pixels'
    if task == 'classification':
        return f'scores {abs(ours[0] - theirs[0]).max():.1e}'
    if task == 'backbone':
        far = [abs(a - b).max() / abs(b).max() for a, b in zip(ours, theirs, strict=True)]
        return f'{max(far):.1e} of the largest'
    lost, clear, boxes, scores = 0, 0, 0.0, 0.0
    for a, b in zip(ours, theirs, strict=True):
        ious = box_iou(*(torch.from_numpy(found.boxes) for found in (b, a))).numpy()
        for i in np.flatnonzero(b.scores >= CLEAR):
            clear += 1
            overlaps = ious[i] * (a.labels == b.labels[i])
            if overlaps.max(initial=0) < 0.5:
                lost += 1
                continue
            j = overlaps.argmax()
            boxes = max(boxes, float(abs(a.boxes[j] - b.boxes[i]).max()))
            scores = max(scores, float(abs(a.scores[j] - b.scores[i])))
    if not clear:
        return 'no objects'
    return f'scores {scores:.1e}, boxes {boxes:.1e} px' + (f', {lost} of {clear} lost' * (lost > 0))
