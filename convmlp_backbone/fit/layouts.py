"""Which layout a folder has: each is tried in turn, the first that fits is taken."""

from pathlib import Path

from ..errors import UserError
from . import class_folders, coco_json, mask_images, voc, yolo
from .found import SUFFIXES, Found, files_below, some

LAYOUTS = dict(
    COCO=coco_json.read,
    YOLO=yolo.read,
    VOC=voc.read,
    masks=mask_images.read,
    folders=class_folders.read,
)
ARCHIVES = ('.zip', '.tar', '.gz', '.tgz', '.7z', '.rar')
OF_TASK = dict(
    boxes=('COCO', 'YOLO', 'VOC'), masks=('COCO', 'YOLO'), semantic=('masks',), classes=('folders',)
)


def read(
    root: Path,
    task: str | None = None,
    unlabelled: int | None = None,
    classes: list[str] | None = None,
) -> Found:
    """The data set in a folder.

    Args:
        root: The folder.
        task: One of ``OF_TASK``; by default what the labels are good for.
        unlabelled: For semantic maps the value that stands for no class.
        classes: Names of the classes to learn, in the order of their indices.

    Raises:
        UserError: There is no such folder, or no layout fits.
    """
    if not root.is_dir():
        raise UserError(f'no folder {root}')
    for name in OF_TASK.get(task or '', LAYOUTS):
        if found := LAYOUTS[name](root):
            break
    else:
        raise UserError(nothing_known(root, task))
    if found.task == 'semantic':
        mask_images.understand(found, unlabelled, classes)
    elif classes:
        keep_classes(found, classes)
    if task == 'boxes':
        found.task = 'boxes'
    if task == 'masks' and found.task != 'masks':
        raise UserError(f'--task masks: not all objects in {root} have masks; --task boxes')
    return found


def nothing_known(root: Path, task: str | None) -> str:
    """Why no layout fits, and the way out."""
    images = files_below(root, SUFFIXES)
    if not images:
        archives = files_below(root, ARCHIVES)
        return f'{root} holds no images ({", ".join(SUFFIXES)})' + (
            f'; unpack {some(archives)}' if archives else ''
        )
    text = (
        f'{root} holds {len(images)} images ({some(images)}) and no labels '
        + (f'for --task {task} ' if task else '')
        + 'that are known: COCO (*.json), YOLO (labels/*.txt), Pascal VOC (*.xml), masks beside '
        'images (masks/*.png), folders for two classes and more'
    )
    for name in files_below(root, ['.json'])[:1]:
        with open(root / name, 'rb') as file:
            if b'"shapes"' in file.read(4096):
                text += f'; {name} is of LabelMe: convert such files to COCO, by labelme2coco, say'
    return text


def keep_classes(found: Found, classes: list[str]) -> None:
    """Leave out all other classes, and number these in their order."""
    if unknown := [name for name in classes if name not in found.names]:
        raise UserError(f'--classes {some(unknown)}: the folder has {some(found.names, 8)}')
    new = {found.names.index(name): index for index, name in enumerate(classes)}
    for split, part in found.splits.items():
        if isinstance(part, dict):
            part['annotations'] = [
                dict(a, category_id=new[a['category_id']])
                for a in part['annotations']
                if a['category_id'] in new
            ]
        else:
            found.splits[split] = [(image, new[i]) for image, i in part if i in new]
    found.names = list(classes)
