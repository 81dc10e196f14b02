"""Images to predict on: files, folders, patterns, lists, videos and the standard input."""

import glob
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .checks.images import image_problems
from .errors import UserError
from .runtime import read_image

IMAGES = ('.jpg', '.jpeg', '.jfif', '.png', '.bmp', '.tif', '.tiff', '.webp', '.ppm', '.pgm')
VIDEOS = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.gif')
STDIN = '-'


class Source(NamedTuple):
    """A file of one image or of many, and the name that its results get, unlike any other's."""

    path: Path
    name: str  # relative, with the ending of an image


def find(
    sources: Sequence, recursive: bool = False, endings: Sequence[str] = IMAGES
) -> list[Source]:
    """The files that ``sources`` stand for, in their order, each once.

    Args:
        sources: Files; folders; patterns such as ``'photos/**/*.jpg'``; names of text files with
            such a source a line, relative to the text file; ``'-'``, an image on the standard
            input.
        recursive: Look into the folders of folders.
        endings: Of the files that are taken in folders and patterns, besides films in patterns.

    Raises:
        UserError: A source is not there, or there is no image at all.
    """
    paths: dict[Path, Path] = {}  # to the folder that it was found in
    for source in sources:
        for path, folder in expand(str(source), recursive, tuple(endings)):
            paths.setdefault(path, folder)
    if not paths:
        raise UserError(
            f'no images in {", ".join(map(str, sources))}; they end in {" ".join(endings)}'
        )
    return list(named(paths))


def expand(
    source: str, recursive: bool, endings: tuple, lists: tuple[Path, ...] = ()
) -> Iterator[tuple[Path, Path]]:
    """Files, and the folder that each was found in; ``lists`` are those that name ``source``."""
    path = Path(source)
    if source == STDIN:
        yield path, path.parent
    elif path.is_dir():
        for file in sorted(path.rglob('*') if recursive else path.iterdir()):
            if file.is_file() and (
                file.name.lower().endswith(endings) or not file.suffix and is_image(file)
            ):
                yield file, path
    elif path.suffix.lower() == '.txt' and path.is_file():
        if path.resolve() in lists:
            raise UserError(f'{path} names itself, or a list that does; take that line out')
        for line in path.read_text(encoding='utf-8', errors='replace').splitlines():
            if line.strip() and not line.startswith('#'):
                inner = line if line == STDIN else str(path.parent / line.strip())
                yield from expand(inner, recursive, endings, (*lists, path.resolve()))
    elif path.exists():
        yield path, path.parent
    elif found := sorted(glob.glob(source, recursive=True)):
        for name in found:
            if Path(name).is_file() and name.lower().endswith((*endings, *VIDEOS)):
                yield Path(name), Path(name).parent
    else:
        raise UserError(f'no image or folder {source}')


def is_image(path: Path) -> bool:
    try:
        with Image.open(path):
            return True
    except OSError:
        return False


def pixels_in(path: Path) -> int:
    """How many pixels an image file tells to have; 0 where it is none."""
    try:
        with Image.open(path) as image:
            return image.width * image.height
    except Exception:  # a damaged file can raise anything, and is told of where it is read
        return 0


def named(paths: dict[Path, Path]) -> Iterator[Source]:
    """Names for results: within its folder, and numbered where two would be the same."""
    taken: set[str] = set()
    for path, folder in paths.items():
        inside = path.relative_to(folder)
        if str(path) == STDIN:
            inside = Path('stdin.png')
        stem, number = inside.with_suffix(''), 2
        while str(stem) in taken:
            stem, number = inside.with_name(f'{inside.stem}_{number}'), number + 1
        taken.add(str(stem))
        yield Source(path, str(stem) + (inside.suffix or '.png'))


def frames(
    source: Source, read: Callable = read_image, images: bool = True
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and images of a file: itself, or the frames of a video.

    Args:
        read: A path, an open file or a PIL image to what the network is fed; default: RGB.
        images (bool): Files are images, not arrays or what else a config's own step loads.

    Raises:
        ValueError: It cannot be read; the message says why.
    """
    if source.path.suffix.lower() in VIDEOS:
        stem = Path(source.name).with_suffix('')
        for i, frame in enumerate(video(source.path)):
            yield f'{stem}/{i:06}.jpg', loaded(read, Image.fromarray(frame))
        return
    if str(source.path) == STDIN:
        content = io.BytesIO(sys.stdin.buffer.read())
        try:
            yield source.name, read(content)
        except Exception as error:  # it can be anything
            raise ValueError(f'is no image ({type(error).__name__})') from None
        return
    errors = [text for severity, text in image_problems(source.path) if severity == 'error']
    if errors and images:
        raise ValueError(errors[0])
    yield source.name, loaded(read, source.path)


def loaded(read: Callable, what: Any) -> np.ndarray:
    try:
        return read(what)
    except Exception as error:  # a step of one's own can raise anything
        raise ValueError(
            str(error)
            if isinstance(error, UserError)
            else f'cannot be read ({type(error).__name__}: {error})'
        ) from error


def video(path: Path) -> Iterator[np.ndarray]:
    """Frames as RGB arrays, read by OpenCV or PyAV."""
    try:
        import cv2
    except ImportError:
        yield from video_by_pyav(path)
        return
    reader = cv2.VideoCapture(str(path))
    number = 0
    while True:
        there, frame = reader.read()
        if not there:
            break
        number += 1
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    reader.release()
    if not number:
        raise ValueError('is no video that OpenCV can read')


def video_by_pyav(path: Path) -> Iterator[np.ndarray]:
    try:
        import av
    except ImportError:
        raise UserError(f'{path} is a video: pip install opencv-python or av') from None
    try:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format='rgb24')
    except av.error.FFmpegError as error:
        raise ValueError(f'is no video that PyAV can read ({error})') from None
