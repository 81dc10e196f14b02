"""Pascal VOC's layout: an XML file for each image, in ``Annotations/`` or beside the image."""

from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from ..errors import UserError
from .found import SUFFIXES, Found, files_below, image_sets, some, split_of
from .mask_images import in_mask_folder
from .survey import image_size


def read(root: Path) -> Found | None:
    """The data set of the Pascal VOC annotations below ``root``; None if there are none."""
    files = {}
    for name in files_below(root, ['.xml']):
        try:
            tree = ElementTree.parse(root / name).getroot()
        except ElementTree.ParseError as error:
            raise UserError(f'{root / name} is no XML: {error}') from None
        if tree.tag == 'annotation' and tree.find('filename') is not None:
            files[name] = tree
    if not files:
        return None
    found = Found(root, 'Pascal VOC', 'boxes', [], {})
    found.names = sorted({text(o, 'name') for tree in files.values() for o in tree.iter('object')})
    number = {name: index for index, name in enumerate(found.names)}
    boxes = {
        name: [
            (number[text(o, 'name')], corners(root / name, o), text(o, 'difficult') == '1')
            for o in tree.iter('object')
        ]
        for name, tree in files.items()
    }
    # VOC counts pixels from 1, the last one included; many programs that write it do not.
    from_one = all(min(box[:2]) >= 1 for part in boxes.values() for _, box, _ in part)
    if not from_one:
        found.notes.append(
            "some boxes begin at 0: pixels are counted from 0, not from 1 as in VOC's own files"
        )
    images = files_below(root, SUFFIXES)
    by_stem: dict[str, list[str]] = {}
    for path in images:
        by_stem.setdefault(Path(path).stem, []).append(path)
    missing = []
    for split, names in splits(root, files, found).items():
        coco: dict[str, list[dict]] = dict(images=[], annotations=[])
        for name in names:
            image = image_of(name, text(files[name], 'filename'), by_stem)
            if image is None:
                missing.append(name)
                continue
            size = files[name].find('size')
            width, height = (int(float(text(size, key) or 0)) for key in ('width', 'height'))
            if not width or not height:
                width, height = image_size(root / image) or (0, 0)
            index = len(coco['images'])
            coco['images'].append(dict(id=index, file_name=image, width=width, height=height))
            for category, (x1, y1, x2, y2), difficult in boxes[name]:
                x1, y1 = x1 - from_one, y1 - from_one
                coco['annotations'].append(
                    dict(
                        image_id=index,
                        category_id=category,
                        bbox=[x1, y1, x2 - x1, y2 - y1],
                        area=(x2 - x1) * (y2 - y1),
                        iscrowd=int(difficult),
                    )
                )
        found.splits[split] = coco
    if missing:
        found.errors.append(
            f'{len(missing)} of {len(files)} annotation files have no image, such '
            f'as {some(missing)}; copy the images into the folder'
        )
    annotated = {i for split in found.splits for i in found.images(split)}
    annotated |= {image for name in files for image in by_stem.get(Path(name).stem, [])}
    images = [image for image in images if not in_mask_folder(image)]
    left = [image for image in images if image not in annotated]
    if len(left) > len(images) / 10:
        found.errors.append(
            f'{len(left)} of {len(images)} images have no annotation file, such as '
            f'{some(left)}; copy the files, or take the images away'
        )
    return found


def text(element: Element | None, tag: str) -> str:
    return '' if element is None else (element.findtext(tag) or '').strip()


def corners(path: Path, element: Element) -> tuple[float, ...]:
    try:
        box = element.find('bndbox')
        return tuple(float(text(box, key)) for key in ('xmin', 'ymin', 'xmax', 'ymax'))
    except ValueError:
        raise UserError(
            f'{path}: the object {text(element, "name")} has no bndbox of four numbers'
        ) from None


def splits(root: Path, files: dict, found: Found) -> dict[str, list[str]]:
    """The annotation files of each split: as ``ImageSets/Main`` or the folders say."""
    if parts := image_sets(root, 'Main', {Path(name).stem: name for name in files}):
        return parts
    parts = {}
    for name in files:
        parts.setdefault(split_of(name), []).append(name)
    if len(parts) > 1:
        parts.pop('all', None)
    return parts


def image_of(annotation: str, name: str, by_stem: dict[str, list[str]]) -> str | None:
    """The image of an annotation file: the one it names, or else the one called like itself."""
    named = Path(name.replace('\\', '/')).name
    candidates = by_stem.get(Path(annotation).stem, []) + [
        path for path in by_stem.get(Path(named).stem, []) if Path(path).name == named
    ]
    # Not SegmentationClass/00.png; of cam1/00.jpg and cam2/00.jpg the one in the likest folders.
    folders = set(Path(annotation).parent.parts)
    return max(
        candidates,
        default=None,
        key=lambda path: (
            not in_mask_folder(path),
            len(folders & set(Path(path).parent.parts)),
            split_of(path) == split_of(annotation),
        ),
    )
