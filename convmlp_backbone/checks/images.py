"""What is wrong with images and COCO annotation files, without a toolbox.

A problem is a tuple (severity, where, text); an ``'error'`` makes training fail or learn something
wrong, a ``'warning'`` tells what is left out or seen otherwise than one might think.
"""
import json
import math
from collections import Counter
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

Image.MAX_IMAGE_PIXELS = None  # reported below instead
LARGE = 50e6  # pixels


def image_problems(path, size=None):
    """Problems of an image file, each (severity, text).

    Args:
        path (str | Path): The file.
        size (tuple[int], optional): Width and height that the annotations tell.
    """
    try:
        if Path(path).stat().st_size == 0:
            return [('error', 'is empty')]
        with Image.open(path) as image:
            mode, frames = image.mode, getattr(image, 'n_frames', 1)
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) != 1
            image.load()  # all of it: toolboxes fill what is missing with grey
            stored, seen = image.size, ImageOps.exif_transpose(image).size if turned else image.size
    except Exception as error:  # a damaged file can raise anything
        reason = 'is no image' if 'cannot identify' in str(error) else error
        return [('error', getattr(reason, 'strerror', None) or str(reason))]
    problems = []
    if size and tuple(size) != seen:
        unturned = '; they are for the image without its EXIF rotation' if (
            turned and tuple(size) == stored) else ''
        problems.append(('error', f'is {seen[0]}x{seen[1]}, the annotations say '
                         f'{size[0]}x{size[1]}{unturned}'))
    if seen[0] * seen[1] > LARGE:
        problems.append(('warning', f'has {seen[0] * seen[1] / 1e6:.0f} megapixels: large crops or '
                         'a smaller copy would load faster'))
    if mode.startswith(('I', 'F')):
        problems.append(('warning', f'has more than 8 bits a channel ({mode}), which are cut to 8'))
    if mode in ('RGBA', 'LA', 'PA'):
        problems.append(('warning', 'has transparency, which is ignored'))
    if mode == 'CMYK':
        problems.append(('warning', 'is CMYK, its colours are converted'))
    if frames > 1:
        problems.append(('warning', f'has {frames} frames, only the first is read'))
    return problems


def coco_problems(path, classes=None):
    """Problems of a COCO annotation file.

    Args:
        path (str | Path): The file.
        classes (Sequence[str], optional): The class names of the config.
    """
    try:
        with open(path) as file:
            coco = json.load(file)
        images, annotations, categories = (
            {item['id']: item for item in coco[key]} if key != 'annotations' else coco[key]
            for key in ('images', 'annotations', 'categories'))
        for image in images.values():
            image['file_name'], image['width'] + image['height']  # all there and numbers
    except (OSError, ValueError) as error:
        return [('error', str(path), f'is no JSON: {error}')]
    except (KeyError, TypeError) as error:
        return [('error', str(path), f'is no COCO annotation file: {type(error).__name__} {error}')]
    problems = []
    for key in ('images', 'annotations', 'categories'):
        counts = Counter(item.get('id') for item in coco[key])
        problems += [('error', f'{path}: {key}', f'id {number} occurs {count} times')
                     for number, count in counts.items() if count > 1]
    names = {number: category.get('name') for number, category in categories.items()}
    missing = [name for name in classes or () if name not in names.values()]
    if missing:
        # MMDetection would shift the labels of the classes behind it.
        some = ', '.join(map(str, list(names.values())[:5]))
        problems.append(('error', str(path), f'has no category {", ".join(missing[:5])}, which '
                         f'the config names; it has {some}'))
    useful, unused = Counter(), Counter()
    for annotation in annotations:
        where = f'{path}: annotation {annotation.get("id")}'
        image = images.get(annotation.get('image_id'))
        if image is None:
            problems.append(('error', where, f'is of image {annotation.get("image_id")}, which is '
                             'not in the file'))
            continue
        where += f' of {image["file_name"]}'
        name = names.get(annotation.get('category_id'))
        if name is None:
            problems.append(('error', where, f'is of category {annotation.get("category_id")}, '
                             'which is not in the file'))
        elif classes and name not in classes:
            unused[name] += 1
            continue
        box_problem = _box_problem(annotation, image)
        if box_problem:
            problems.append((box_problem[0], where, box_problem[1]))
        if (not box_problem or box_problem[1].startswith('reaches')) \
                and not annotation.get('iscrowd'):
            useful[image['id']] += 1
    problems += [('warning', str(path), f'{count} annotations of {name}, no class of the config, '
                  'are left out') for name, count in unused.items()]
    empty = [image['file_name'] for number, image in images.items() if not useful[number]]
    if len(empty) == len(images):
        problems.append(('error', str(path), 'has no object to learn in any image'))
    elif empty:
        problems.append(('warning', str(path), f'{len(empty)} of {len(images)} images have no '
                         f'object to learn, such as {", ".join(map(str, empty[:3]))}'))
    return problems


def _box_problem(annotation, image):
    """(severity, text) of what is wrong with an annotation's box, None if nothing is."""
    box = annotation.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not all(
            isinstance(v, (int, float)) and math.isfinite(v) for v in box):
        return 'error', f'has the box {box}; expected four finite numbers x, y, width, height'
    if not isinstance(annotation.get('area'), (int, float)):
        return 'error', f'has the area {annotation.get("area")}; expected a number of pixels'
    x, y, w, h = box
    if w < 1 or h < 1 or annotation['area'] <= 0:
        return 'warning', f'has a box {w}x{h} and an area of {annotation["area"]}: left out'
    if min(x + w, image['width']) <= max(x, 0) or min(y + h, image['height']) <= max(y, 0):
        return 'warning', f'has a box outside the image, {box}: left out'
    if x < -1 or y < -1 or x + w > image['width'] + 1 or y + h > image['height'] + 1:
        return 'warning', f'reaches out of the image, {box} in {image["width"]}x{image["height"]}'
    return None
