"""Run a model that ``convmlp export`` wrote, with NumPy, Pillow and ONNX Runtime or OpenVINO alone.

    boxes, scores, labels, masks = Runtime('model.onnx')('photo.jpg')

One file, to be copied into a product or run: ``python runtime.py model.onnx photo.jpg``. Nothing of
PyTorch or of a toolbox is needed or imported. An exported file is data: it is read, never run, and
refused where it asks for files outside its folder or for operators that are no standard ones.
"""

import argparse
import json
import mmap
import re
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

FORMAT = 1  # of the facts in a file, counted up where an older runtime would misread them
DOMAINS = ('', 'ai.onnx', 'ai.onnx.ml', 'com.microsoft')  # of operators that a runtime brings along
PRECISIONS = ('f32', 'bf16', 'int8', 'auto')
# The flags by which Linux tells of units that multiply bfloat16, and what they are called.
BF16_UNITS = {'amx_bf16': 'AMX', 'avx512_bf16': 'AVX512_BF16', 'bf16': 'Arm BF16'}
BF16_COSTS = '8 bits of precision instead of 24, `convmlp benchmark` tells what they cost'

ImageSource = str | Path | IO[bytes] | Image.Image | np.ndarray
Run = Callable[[list[np.ndarray]], list[np.ndarray]]


class ExportedFileError(ValueError):
    """A file cannot be used; the message is one line that names it and the way out."""


class Detections(NamedTuple):
    """What was found in an image, the best first."""

    boxes: np.ndarray  # (n, 4), x1, y1, x2, y2 in pixels of the image
    scores: np.ndarray  # (n,), from 0 to 1
    labels: np.ndarray  # (n,), index into the classes
    masks: np.ndarray | None  # (n, height, width), bool; None from a model without masks


class Runtime:
    """An exported model.

    Args:
        file: Path of an ``.onnx`` or ``.xml`` (OpenVINO).
        backend: ``'onnxruntime'`` or ``'openvino'``; default: what is installed and reads the file.
        threads: Number of threads; default: the backend's.
        precision: ``'f32'``, ``'bf16'`` (OpenVINO only), or ``'auto'``, which takes bfloat16 where
            the processor has units for it; ``'int8'`` is a file's own. Default: the file's.

    Attributes:
        facts (dict): What the file says of itself: task, classes, palette, mean, std, ...
        precision (str): What it is computed in.
        reason (str): In words, and why where the choice was ``'auto'``.

    Raises:
        ExportedFileError: No such file, damaged, of another kind or version; no backend.
    """

    def __init__(
        self,
        file: str | Path,
        backend: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
    ):
        self.file = Path(file)
        self.facts = read_facts(self.file)
        own = self.facts.get('precision', 'f32')
        valid = ('int8', 'auto') if own == 'int8' else ('f32', 'bf16', 'auto')
        if precision not in (None, *valid):
            raise ExportedFileError(
                f'{self.file} can be run in {" or ".join(valid)}, not in {precision}'
            )
        self.precision = self.reason = precision or own
        if self.precision == 'auto':
            self.precision, self.reason = fastest(own, backend)
        self._run = load(self.file, backend, threads, self.precision)

    def __call__(self, image: ImageSource) -> Any:
        """Predict on one image.

        Args:
            image: Path, open file, PIL image, or RGB array (height, width, 3) of type uint8; for a
                model of other channels an array of these.

        Returns:
            Of a detector :class:`Detections`; of a segmentor the class of every pixel (height,
            width); of a classifier the probability of every class.
        """
        return self.predict([image])[0]

    def predict(self, images: Sequence) -> list:
        """As for one image; those that the model sees in the same size are computed together."""
        channels = self.facts.get('in_channels', 3)
        originals = [read_image(image, channels) for image in images]
        inputs = [prepare(image, self.facts['resize']) for image in originals]
        groups: dict = {}
        for i, array in enumerate(inputs):
            key = (array.shape, originals[i].shape[:2])
            groups.setdefault(key, []).append(i)
        results: list = [None] * len(inputs)
        for (_, size), group in groups.items():
            outputs = self.run(np.stack([inputs[i] for i in group]), size)
            for place, i in enumerate(group):
                results[i] = self.result(
                    {name: output[place] for name, output in outputs.items()},
                    inputs[i].shape[:2],
                    size,
                )
        return results

    def run(self, images: np.ndarray, size: tuple[int, int] | None = None) -> dict:
        """The file's outputs by name.

        Args:
            images: As the file takes them, by default (N, height, width, 3) RGB uint8.
            size: For a segmentor, height and width of its map; default: those of the images.
        """
        if self.facts['input'] == 'rgb':
            channels = self.facts.get('in_channels', 3)
            if images.ndim != 4 or images.shape[3] != channels or images.dtype != np.uint8:
                kind = {1: 'grey', 3: 'RGB', 4: 'RGBA'}.get(channels, 'such')
                raise ExportedFileError(
                    f'{self.file} takes {kind} images (N, height, width, {channels}) of type '
                    f'uint8, not {images.shape} of type {images.dtype}'
                )
            batch, *given = images.shape[:3]
        else:
            batch, *given = images.shape[0], *images.shape[2:]
        wanted = self.facts.get('fixed') or [None] * 3
        if 0 in images.shape or any(
            w not in (None, g) for w, g in zip(wanted, (batch, *given), strict=True)
        ):
            raise ExportedFileError(
                f'{self.file} takes {wanted[0] or "any number of"} images of '
                f'{wanted[1] or "any height"} x {wanted[2] or "any width"}, not {batch} of '
                f'{given[0]} x {given[1]}'
            )
        inputs = [images]
        if self.facts['task'] == 'segmentation':
            inputs.append(np.array(size or given, np.int64))
        return dict(zip(self.facts['outputs'], self._run(inputs), strict=True))

    def result(self, outputs: dict, given: tuple[int, int], size: tuple[int, int]) -> Any:
        """What ``__call__`` returns, from one image's outputs.

        Args:
            outputs: Those of :meth:`run`, without the first dimension.
            given: Height and width of the image that the file saw.
            size: Height and width of the image before it was resized.
        """
        if 'counts' not in outputs:
            only = list(outputs.values())
            return only[0] if len(only) == 1 else tuple(only)
        n = int(outputs['counts'])
        scale = np.array([1 / (given[1] / size[1]), 1 / (given[0] / size[0])] * 2, np.float32)
        boxes = outputs['boxes'][:n] * scale
        masks = None
        if 'masks' in outputs:
            masks = np.zeros((n, *size), bool)
            for canvas, mask, box in zip(masks, outputs['masks'], boxes, strict=False):
                paste(mask, box, canvas, self.facts['mask_threshold'])
        return Detections(boxes, outputs['scores'][:n], outputs['labels'][:n], masks)


def paste(mask: np.ndarray, box: np.ndarray, canvas: np.ndarray, threshold: float) -> None:
    """Set the pixels of ``canvas`` (height, width) where ``mask``, stretched to ``box``, reaches
    ``threshold``; the same pixels as MMDetection's."""
    top, left, pixels = pasted(mask, box, canvas.shape, threshold)
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels


def pasted(
    mask: np.ndarray, box: np.ndarray, shape: tuple[int, ...], threshold: float
) -> tuple[int, int, np.ndarray]:
    """What :func:`paste` sets in an image of that shape: its first row and column, and pixels."""
    low = np.maximum(np.floor(box[:2]) - 1, 0).astype(int)
    high = np.minimum(np.ceil(box[2:]) + 1, shape[::-1]).astype(int)
    if (high <= low).any():
        return 0, 0, np.zeros((0, 0), bool)
    columns, rows = (
        stretch(*side) for side in zip(low, high, box[:2], box[2:], mask.shape[::-1], strict=True)
    )
    return low[1], low[0], rows @ mask @ columns.T >= threshold


def stretch(low: int, high: int, start: float, end: float, cells: int) -> np.ndarray:
    """Weights (high - low, cells) that interpolate at pixels low...high between the cells of a
    mask from ``start`` to ``end``, and to zero outside."""
    pixels = np.arange(low, high, dtype=np.float32) + np.float32(0.5)
    with np.errstate(divide='ignore', invalid='ignore'):
        place = (pixels - start) / (end - start) * 2 - 1
    place = np.where(np.isfinite(place), place, 0)  # a box without width
    place = ((place + 1) * cells - 1) / 2
    return np.maximum(1 - abs(place[:, None] - np.arange(cells)), 0).astype(np.float32)


# Images


def read_image(source: ImageSource, channels: int = 3) -> np.ndarray:
    """RGB (height, width, 3), uint8, turned as its EXIF data say; of one channel grey values, of
    four RGBA."""
    if isinstance(source, np.ndarray):
        return source
    if channels not in (1, 3, 4):
        raise ExportedFileError(
            f'{source}: of {channels} channels only arrays (height, width, {channels}) are taken'
        )
    image = source if isinstance(source, Image.Image) else Image.open(source)
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith('I;16') or image.mode == 'I':
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    pixels = np.asarray(image.convert({1: 'L', 4: 'RGBA'}.get(channels, 'RGB')))
    return pixels.reshape(*pixels.shape[:2], channels)


def prepare(image: np.ndarray, steps: list[dict]) -> np.ndarray:
    """``image`` after the resizing and cropping that the model was evaluated with."""
    for step in steps:
        height, width = image.shape[:2]
        if step['step'] == 'crop':
            size = min(step['size'][0], height), min(step['size'][1], width)
            top, left = (
                max(0, round((a - b) / 2)) for a, b in zip((height, width), size, strict=True)
            )
            image = image[top : top + size[0], left : left + size[1]]
        else:
            image = resize(image, *new_size(height, width, step), step['interpolation'])
    return image


def new_size(height: int, width: int, step: dict) -> tuple[int, int]:
    """Height and width after a step, in the roundings of MMCV and MMPretrain."""
    if 'edge' in step:
        edge, scale = step['edge'], step['scale']
        if (
            edge == 'width'
            or edge == 'short'
            and width < height
            or edge == 'long'
            and width > height
        ):
            return int(scale * height / width), scale
        return scale, int(scale * width / height)
    if 'factor' in step:
        factors = step['factor']
    elif step['keep_ratio']:
        scale = step['scale']
        factors = [min(max(scale) / max(height, width), min(scale) / min(height, width))] * 2
    else:
        return step['scale'][1], step['scale'][0]
    return int(height * factors[1] + 0.5), int(width * factors[0] + 0.5)


def resize(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """``image`` in another size, to the last bit as OpenCV (``cv2-bilinear``) or Pillow does it."""
    if (height, width) == image.shape[:2]:
        return image
    library, _, kind = interpolation.partition('-')
    if library == 'pillow':
        picture = Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image)
        return np.asarray(picture.resize((width, height), Image.Resampling[kind.upper()])).reshape(
            height, width, -1
        )
    try:
        import cv2
    except ImportError:
        return resize_bilinear(image, height, width)
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR).reshape(
        height, width, -1
    )  # which drops an only channel


def resize_bilinear(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """OpenCV's bilinear interpolation of 8-bit images, in its integer arithmetic."""
    if image.shape[:2] == (2 * height, 2 * width):
        return halve(image)
    return blend(
        image, neighbours(image.shape[0], height, False), neighbours(image.shape[1], width, True)
    )


def halve(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[0] // 2, image.shape[1] // 2
    sums = image.reshape(height, 2, width, 2, -1).sum((1, 3), dtype=np.uint16)
    return ((sums + 2) >> 2).astype(np.uint8)


def blend(image: np.ndarray, rows: tuple, columns: tuple) -> np.ndarray:
    """Pixels between those of ``image``: which two rows and columns, and their weights."""
    (left, right), (a, b) = columns
    across = image.take(left, 1) * a[:, None]
    across += image.take(right, 1) * b[:, None]
    across >>= 4
    (upper, lower), (a, b) = rows
    pixels, below = across.take(upper, 0), across.take(lower, 0)
    pixels *= a[:, None, None]
    below *= b[:, None, None]
    pixels >>= 16
    below >>= 16
    pixels += below
    pixels += 2
    pixels >>= 2
    return pixels.astype(np.uint8)


def neighbours(source: int, target: int, horizontal: bool) -> tuple[np.ndarray, np.ndarray]:
    """For every target pixel the two source pixels around it and their weights of 11 bits."""
    place = ((np.arange(target) + 0.5) * (1.0 / (target / source)) - 0.5).astype(np.float32)
    first = np.floor(place)
    part = place - first
    if horizontal:
        part[(first < 0) | (first >= source - 1)] = 0
    weights = np.rint(np.stack([1 - part, part]) * np.float32(2048)).astype(np.int32)
    return np.stack([first, first + 1]).astype(int).clip(0, source - 1), weights


# Files


def read_facts(file: Path) -> dict:
    """What an exported file says of itself, once it is known to be one, and harmless."""
    if not file.is_file():
        raise ExportedFileError(f'no exported file {file.resolve()}')
    if file.suffix == '.pt2':
        raise ExportedFileError(
            f'{file} runs in PyTorch: torch.export.load("{file}").module('
            'check_guards=False); export an .onnx or .xml to run it here'
        )
    if file.suffix not in ('.onnx', '.xml'):
        raise ExportedFileError(f'{file}: expected a file that ends in .onnx or .xml')
    try:
        facts = (onnx_facts if file.suffix == '.onnx' else openvino_facts)(file)
    except ExportedFileError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise ExportedFileError(
            f'{file} is damaged or no {file.suffix[1:]} file ({type(error).__name__}: {error})'
        ) from None
    if 'format' not in facts:
        raise ExportedFileError(
            f'{file} was not written by `convmlp export`: it lacks the classes '
            'and the normalisation; export the model anew'
        )
    if facts['format'] != FORMAT:
        raise ExportedFileError(
            f'{file} is of format {facts["format"]}, written by convmlp-backbone '
            f'{facts.get("version")}; this runtime reads format {FORMAT}: take the runtime.py of '
            'that version, or export the model anew'
        )
    return facts


# Where a message of ONNX's protocol buffers holds others that matter: {field number: kind}.
MESSAGES = dict(
    model={7: 'graph', 8: 'opset', 14: 'property', 20: 'training', 25: 'function'},
    training={1: 'graph', 2: 'graph'},
    function={7: 'node', 9: 'opset'},
    graph={1: 'node', 5: 'tensor', 15: 'sparse'},
    node={5: 'attribute'},
    attribute={5: 'tensor', 6: 'graph', 10: 'tensor', 11: 'graph', 22: 'sparse', 23: 'sparse'},
    sparse={1: 'tensor', 2: 'tensor'},
    tensor={13: 'external'},
)


def onnx_facts(file: Path) -> dict:
    facts = {}
    with open(file, 'rb') as opened:
        data = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    for kind, message in messages(data, 'model'):
        if kind == 'property':
            key, value = (text(message, number) for number in (1, 2))
            if key.startswith('convmlp.'):
                facts[key.removeprefix('convmlp.')] = json.loads(value)
        elif kind in ('opset', 'node'):
            domain = text(message, 1 if kind == 'opset' else 7)
            if domain not in DOMAINS:
                raise ExportedFileError(
                    f'{file} asks for operators of "{domain}", which are no standard ones: refused'
                )
        elif kind == 'external' and text(message, 1) == 'location':
            place = (file.parent / text(message, 2)).resolve()
            if not place.is_relative_to(file.parent.resolve()):
                raise ExportedFileError(
                    f'{file} asks for the file {text(message, 2)} outside its folder: refused'
                )
    return facts


def messages(data: memoryview, kind: str) -> Iterator[tuple[str, list]]:
    """Every message in ``data`` of a kind in or below :data:`MESSAGES`: kind, and its fields."""
    own = list(fields(data))
    yield kind, own
    for number, value in own:
        inner = MESSAGES.get(kind, {}).get(number)
        if inner:
            if isinstance(value, int):
                raise ValueError(f'a number in place of a {inner}')
            yield from messages(value, inner)


def fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field of a protocol buffer."""
    place = 0

    def varint():
        nonlocal place
        value = 0
        for shift in range(0, 70, 7):
            byte = data[place]
            place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError('a number without end')

    while place < len(data):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            yield number, varint()
            continue
        length = {1: lambda: 8, 2: varint, 5: lambda: 4}[kind]()
        if place + length > len(data):
            raise ValueError('it ends too soon')
        yield number, data[place : place + length]
        place += length


def text(message: list, number: int) -> str:
    """The last string field of that number, '' if there is none."""
    values = [bytes(value).decode() for n, value in message if n == number]
    return values[-1] if values else ''


def openvino_facts(file: Path) -> dict:
    root = ElementTree.parse(file).getroot()
    for layer in root.iter('layer'):
        if not re.fullmatch(r'opset\d+', layer.get('version', '')):
            raise ExportedFileError(
                f'{file} asks for operators of "{layer.get("version")}", which '
                'are no standard ones: refused'
            )
    if not file.with_suffix('.bin').is_file():
        raise ExportedFileError(f'{file} needs {file.with_suffix(".bin").name} beside it')
    facts = root.find('rt_info/convmlp')
    return {} if facts is None else {fact.tag: json.loads(fact.get('value', '')) for fact in facts}


def fastest(own: str, backend: str | None) -> tuple[str, str]:
    """What a file whose own precision is ``own`` is run in where the choice is ours, and why."""
    if own == 'int8':
        return own, own
    unit = bf16_unit()
    if not unit:
        return 'f32', 'f32: this processor has no units for bfloat16'
    if backend == 'onnxruntime' or not find_spec('openvino'):
        return 'f32', 'f32: only OpenVINO computes in bfloat16'
    return 'bf16', f'bf16, by {unit}: {BF16_COSTS}'


def bf16_unit(cpuinfo: Path = Path('/proc/cpuinfo')) -> str | None:
    """The processor's fastest unit that multiplies bfloat16, None if it has none.

    PyTorch and oneDNN compute in bfloat16 without one too, but no faster than in float32.
    """
    if not cpuinfo.exists():
        return None
    flags: set[str] = set()
    for line in cpuinfo.read_text().splitlines():
        if line.startswith(('flags', 'Features')):
            flags = set(line.partition(':')[2].split())
            break
    return next((unit for flag, unit in BF16_UNITS.items() if flag in flags), None)


def load(file: Path, backend: str | None, threads: int | None, precision: str) -> Run:
    """A function from the list of inputs to the list of outputs."""
    backends = dict(onnxruntime=load_onnxruntime, openvino=load_openvino)
    if file.suffix == '.xml' or precision == 'bf16':
        del backends['onnxruntime']
    if backend and backend not in backends:
        raise ExportedFileError(
            f'{file} in {precision} cannot be run by {backend}, only by {" or ".join(backends)}'
        )
    for name in [backend] if backend else list(backends):
        try:
            return backends[name](file, threads, precision)
        except ImportError:
            continue
        except Exception as error:  # of many kinds
            reason = ' '.join(str(error).split())[:300]
            raise ExportedFileError(f'{file} cannot be loaded by {name}: {reason}') from None
    packages = [backend] if backend else list(backends)
    raise ExportedFileError(f'{file} needs {" or ".join(packages)}: pip install {packages[0]}')


def load_onnxruntime(file: Path, threads: int | None, precision: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=['CPUExecutionProvider'])
    names = [value.name for value in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


@cache
def the_only(core: Callable[[], Any]) -> Any:
    """OpenVINO's core, one for the whole process.

    Every one sets a stack for signals. Where several are deleted in the order in which they were
    made, the last leaves one that is gone (OpenVINO 2026.4), and the next signal, of Ctrl-C or of
    a child that ends, is a segmentation fault.
    """
    return core()


def load_openvino(file: Path, threads: int | None, precision: str) -> Run:
    import openvino

    options: dict[str, Any] = {
        'INFERENCE_PRECISION_HINT': 'bf16' if precision == 'bf16' else 'f32'  # of int8's remainder
    }
    if threads:
        options['INFERENCE_NUM_THREADS'] = threads
    core = the_only(openvino.Core)
    request = core.compile_model(core.read_model(str(file)), 'CPU', options).create_infer_request()

    def run(inputs):
        # Copied: the next call writes to the same memory.
        return [np.array(output) for output in request.infer(inputs).values()]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Predict with an exported model: a line of JSON for every image.'
    )
    parser.add_argument('file', help='.onnx or .xml')
    parser.add_argument('images', nargs='+')
    parser.add_argument('--backend', choices=['onnxruntime', 'openvino'])
    parser.add_argument('--precision', choices=PRECISIONS, help="default: the file's")
    args = parser.parse_args()
    try:
        runtime = Runtime(args.file, args.backend, precision=args.precision)
    except ExportedFileError as error:
        sys.exit(f'error: {error}')
    for name in args.images:
        result = runtime(name)
        if isinstance(result, Detections):
            found = dict(
                boxes=result.boxes.round(2).tolist(),
                scores=result.scores.tolist(),
                labels=result.labels.tolist(),
            )
        elif runtime.facts['task'] == 'classification':
            found = dict(label=int(result.argmax()), score=float(result.max()))
        else:
            found = dict(
                pixels=dict(
                    zip(*(v.tolist() for v in np.unique(result, return_counts=True)), strict=True)
                )
            )
        print(json.dumps(dict(image=name, **found)))


if __name__ == '__main__':
    main()
