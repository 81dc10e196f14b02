"""Images of any size, tile by tile, to files; interrupted, the same again goes on."""

import hashlib
import json
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from ..errors import UserError
from ..files import whole_file
from ..fused import fuse_model
from ..inputs import Source
from ..memory import available
from ..runtime import new_size
from ..version import __version__
from .dense import TiledDenseDetector, cells_seen
from .detectors import TiledDetector
from .grid import Box, Tile, tiles, up
from .memory import SPARE, Need, gib, measure, too_large
from .networks import TiledNetwork
from .reading import Pixels, images_of
from .resizing import Resized
from .segmentors import TiledSegmentor

CORE = 4096  # pixels, the largest core that 'auto' takes of an image that does not fit


class Done(NamedTuple):
    """An image, all tiles of which are on the disk."""

    name: str
    path: Path
    shape: tuple[int, int]
    files: list[Path]
    parts: list[Box]

    def load(self, number: int) -> dict[str, np.ndarray]:
        with np.load(self.files[number]) as found:
            return dict(found)


def scale_of(steps: Sequence[dict], scale: float | None) -> tuple[tuple[float, float], str]:
    """Width and height of the image as the network sees it, in those of the image.

    Args:
        steps: Of the test pipeline.
        scale: What the user asks for.

    Returns:
        And what to tell the user of it, or ''.

    Raises:
        UserError: The pipeline does what windows cannot have.
    """
    known: float | tuple | None = None
    told = ''
    for step in steps:
        kind = step['type'].rpartition('.')[2]
        if kind.startswith(('Load', 'Pack')):
            continue
        if kind != 'Resize' or step.get('backend', 'cv2') != 'cv2' or known is not None:
            raise UserError(f'the test pipeline has {kind}: --tile can load, Resize once and pack')
        if step.get('interpolation', 'bilinear') != 'bilinear':
            raise UserError(f'Resize.interpolation={step["interpolation"]!r}: --tile can bilinear')
        known = step.get('scale_factor') or 1.0
        if step.get('scale') and scale is None:
            told = (
                f'The config resizes images to {step["scale"]}; --tile takes them as they are: '
                'give --scale X if the network learned other sizes'
            )
    known = scale if scale is not None else known or 1.0
    factors = (known, known) if isinstance(known, (int, float)) else tuple(known)
    return factors, told


def digest_of(model: Any, *words: object) -> str:
    """A name for weights and words that no others have."""
    found = hashlib.sha256(json.dumps([__version__, *map(repr, words)]).encode())
    for name, value in model.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().view(-1).numpy().tobytes())
    return found.hexdigest()


class TiledJob:
    """Predicts images tile by tile.

    Args:
        predictor: A :class:`~convmlp_backbone.predictors.CheckpointPredictor`.
        out_dir: Folder of the results, and meanwhile of the tiles that are done.
        size: Of a tile's core, in pixels of the image as the network sees it, or ``'auto'``: as
            large as fits.
        scale: Of the image as the network sees it; None: the config's, or 1.
        halo: See :class:`~convmlp_backbone.tiling.networks.TiledNetwork`.
        fuse: Fold what folds, once it is known how far the model sees.

    Raises:
        UserError: The model cannot be tiled, or the test pipeline cannot.
    """

    def __init__(
        self,
        predictor: Any,
        out_dir: Path,
        size: str,
        scale: float | None = None,
        halo: int | None = None,
        fuse: bool = False,
    ):
        self.predictor, self.out_dir, self.size = predictor, out_dir, size
        self.factors, told = scale_of(predictor.steps, scale)
        words = predictor.model_cfg, predictor.steps, predictor.classes, fuse, predictor.precision
        self.digest = digest_of(predictor.model, *words)
        self.network = tiled(predictor, halo)
        if fuse:
            fuse_model(predictor.model)
        for line in [told, *self.network.warnings]:
            if line:
                print(line, flush=True)
        self.device = str(next(predictor.model.parameters()).device)
        self.need = cache(self.measured)

    def found(self, pixels: np.ndarray, *place: Any) -> dict[str, np.ndarray]:
        bf16 = self.predictor.precision == 'bf16'
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=bf16):
            return self.network(pixels, *place)

    def measured(self) -> Need | None:
        def run(height, width):
            tile = Tile(0, *[Box(0, 0, height, width)] * 2)
            noise = np.random.default_rng(0).integers(
                0, 256, (height, width, self.predictor.channels), np.uint8
            )
            self.network.fit(height * width)
            self.found(noise, tile, (height, width), (height, width))

        return measure(run, self.device)

    def core(self, shape: tuple[int, int], begun: Sequence[int] = ()) -> int:
        """The size of a core of an image of that shape.

        Args:
            begun: Sizes of which there are tiles already; ``'auto'`` goes on with one that fits,
                if only without the spare, since what is free is never the same twice.

        Raises:
            UserError: Memory is too little.
        """
        step, halo = self.network.step, self.network.halo
        room = available(self.device)

        def window(size: int) -> int:
            return math.prod(min(size + 2 * halo, side) for side in shape)

        if self.size != 'auto':
            size = up(int(self.size), step)
            if told := too_large(window(size), self.need, self.device):
                raise UserError(
                    f'--tile {self.size}: a tile with its halo of {halo} pixels {told}: a smaller '
                    'one, or --tile auto'
                )
            return size
        need = self.need()
        for size in begun:
            if need is None or need.of(window(size)) <= SPARE * room:
                return size
        if need is None or need.of(math.prod(shape)) <= room:
            return up(max(shape) if need else min(CORE, max(shape)), step)
        side = math.isqrt(int(need.pixels(room)))
        size = min(CORE, (side - 2 * halo) // step * step)
        if size < step:
            raise UserError(
                f'{gib(room)} of memory are free: too little for a tile with its halo of '
                f'{halo} pixels; --halo takes a smaller one'
            )
        return size

    def run(self, sources: Sequence[Source], left_out: list[str]) -> Iterator[Done]:
        """Every image, once all of its tiles are done; what cannot be read is noted."""
        for source in sources:
            try:
                for name, pixels, identity in images_of(source, self.predictor):
                    yield self.image(name, source.path, pixels, identity)
            except ValueError as error:
                left_out.append(f'{source.path} {error}')

    def image(self, name: str, path: Path, pixels: Any, identity: str) -> Done:
        original = pixels.shape
        shape = new_size(original[0], original[1], dict(factor=self.factors))
        if min(shape) < 1:
            raise ValueError(f'has no pixels at --scale {self.factors[0]}')
        if shape != original:
            if isinstance(pixels, Pixels) and pixels.array.dtype != np.uint8:
                raise ValueError('is not of 8 bits: --tile cannot resize it, --scale 1 can be had')
            pixels = Resized(pixels, shape)
        words = self.digest, identity, shape, self.network.halo
        key = hashlib.sha256(repr(words).encode()).hexdigest()[:32]
        folder = self.out_dir / '.tiles' / name
        begun = [int(path.name.rpartition('-')[2]) for path in folder.glob(f'{key}-*')]
        size = self.core(shape, begun)
        key = f'{key}-{size}'
        grid = list(tiles(shape, size, self.network.halo, self.network.step))
        self.network.fit(max(math.prod(tile.window.shape) for tile in grid))
        if folder.is_dir():
            for other in folder.iterdir():
                if other.name != key and other.is_dir():
                    shutil.rmtree(other)  # of a model, an image or options that changed
        files = [folder / key / f'{tile.number}.npz' for tile in grid]
        left = [(tile, file) for tile, file in zip(grid, files, strict=True) if not file.exists()]
        with progress(name, len(grid), len(grid) - len(left)) as advance:
            for tile, file in left:
                found = self.found(pixels.window(*tile.window), tile, shape, original)
                with whole_file(file) as temporary:
                    np.savez_compressed(temporary, **found)  # type: ignore[arg-type]
                advance()
        parts = [tile.core.scaled(shape, original) for tile in grid]
        return Done(name, path, original, files, parts)


def tiled(predictor: Any, halo: int | None = None) -> TiledNetwork:
    """The model of ``predictor``, to be run on tiles.

    Raises:
        UserError: It cannot be.
    """
    if predictor.scope == 'mmpretrain':
        raise UserError('--tile: a classifier tells one class of a whole image, and is not tiled')
    if predictor.scope == 'mmseg':
        return TiledSegmentor(predictor, halo)
    cells = cells_seen(predictor.model, predictor.channels)
    if cells is not None:
        return TiledDenseDetector(predictor, halo, cells)
    return TiledDetector(predictor, halo)


@contextmanager
def progress(name: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    """A bar with the time that is left; interrupted, it is told that the tiles are kept."""
    columns = (
        TextColumn('{task.description}'),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn('tiles'),
        TimeElapsedColumn(),
        TextColumn('left'),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as bar:
        if done and done < total:
            bar.print(f'{name}: going on behind {done} of {total} tiles', markup=False)
        task = bar.add_task(name.replace('[', r'\['), total=total, completed=done)

        def advance() -> None:
            nonlocal done
            done += 1
            bar.advance(task)

        try:
            yield advance
        except KeyboardInterrupt:
            raise UserError(
                f'{name}: interrupted; {done} of {total} tiles are kept, the same command goes on'
            ) from None
