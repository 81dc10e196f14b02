"""Small data sets in the layouts that people have: bright squares and dark discs."""

import json
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

NAMES = ['square', 'disc']
SIZE = (112, 80)  # width, height


def draw(rng):
    """An image, its class map (0 background, 1 square, 2 disc), and objects (class, box)."""
    width, height = SIZE
    image = rng.normal(110, 8, (height, width, 3))
    labels, objects = np.zeros((height, width), np.uint8), []
    cells = [(x, y) for x in (4, 40, 76) for y in (4, 42)]
    for number, cell in enumerate(rng.permutation(len(cells))[:4]):
        kind, side = number % 2, (26, 14)[number % 2] + int(rng.integers(-2, 3))
        x, y = np.array(cells[cell]) + rng.integers(0, 5, 2)
        rows, columns = np.ogrid[:height, :width]
        inside = (rows >= y) & (rows < y + side) & (columns >= x) & (columns < x + side)
        if kind:
            middle = (side - 1) / 2
            inside = (rows - y - middle) ** 2 + (columns - x - middle) ** 2 <= (side / 2) ** 2
        image[inside] += (90, -80)[kind]
        labels[inside] = kind + 1
        objects.append((kind, [int(x), int(y), side, side]))
    return Image.fromarray(image.clip(0, 255).astype(np.uint8)), labels, objects


def pieces(count, seed):
    rng = np.random.default_rng(seed)
    return [draw(rng) for _ in range(count)]


SPLITS = dict(train=pieces(12, 0), val=pieces(5, 1))


def polygon(kind, box):
    x, y, w, h = box
    if kind == 0:
        points = [(x, y), (x + w, y), (x + w, y + h / 2), (x + w, y + h), (x, y + h)]
    else:
        points = [
            (x + w / 2 + w / 2 * np.cos(t), y + h / 2 + h / 2 * np.sin(t))
            for t in np.arange(12) * np.pi / 6
        ]
    return [[float(v) for point in points for v in point]]


def to_coco(items, folder=''):
    coco = dict(
        images=[],
        annotations=[],
        categories=[dict(id=i, name=name) for i, name in enumerate(NAMES, 1)],
    )
    for number, (name, (_, _, objects)) in enumerate(items):
        coco['images'].append(
            dict(id=number, file_name=f'{folder}{name}', width=SIZE[0], height=SIZE[1])
        )
        for kind, box in objects:
            coco['annotations'].append(
                dict(
                    id=len(coco['annotations']) + 1,
                    image_id=number,
                    category_id=kind + 1,
                    bbox=box,
                    area=box[2] * box[3],
                    iscrowd=0,
                    segmentation=polygon(kind, box),
                )
            )
    return coco


def save(items, folder):
    folder.mkdir(parents=True, exist_ok=True)
    for name, (image, _, _) in items:
        image.save(folder / name)


def named(split):
    return [(f'{split}{i}.png', piece) for i, piece in enumerate(SPLITS[split])]


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def coco(root):
    for split in SPLITS:
        save(named(split), root / split)
        write(root / f'annotations/instances_{split}.json', to_coco(named(split)))


def roboflow(root):
    for split, folder in (('train', 'train'), ('val', 'valid')):
        made = to_coco(named(split))
        for category in made['categories']:
            category['supercategory'] = 'things'
        made['categories'].insert(0, dict(id=0, name='things', supercategory='none'))
        save(named(split), root / folder)
        write(root / folder / '_annotations.coco.json', made)


def cvat(root):
    items = named('train') + named('val')
    save(items, root / 'images/default')
    write(root / 'annotations/instances_default.json', to_coco(items))


def labelme2coco(root):
    items = named('train') + named('val')
    save(items, root / 'JPEGImages')
    made = to_coco(items, 'JPEGImages\\')
    for part in made['annotations']:
        part['id'] -= 1
    write(root / 'annotations.json', made)


def yolo_line(kind, box, points=False):
    x, y, w, h = box
    if points:
        values = np.reshape(polygon(kind, box), (-1, 2)) / SIZE
    else:
        values = np.array([x + w / 2, y + h / 2, w, h]) / [*SIZE, *SIZE]
    return ' '.join([str(kind), *(f'{v:.6f}' for v in values.ravel())])


def yolo(root, points=False, flat=False):
    for split in SPLITS:
        images = root / ('images/' + split if not flat else '.')
        labels = root / ('labels/' + split if not flat else '.')
        save(named(split), images)
        for name, (_, _, objects) in named(split):
            write(
                labels / name.replace('.png', '.txt'),
                '\n'.join(yolo_line(kind, box, points) for kind, box in objects),
            )
    if flat:
        return write(root / 'classes.txt', '\n'.join(NAMES))
    write(
        root / 'data.yaml',
        yaml.safe_dump(
            dict(
                path='/home/somebody/data',
                train='images/train',
                val='../images/val',
                nc=2,
                names=dict(enumerate(NAMES)),
            )
        ),
    )


def yolo_points(root):
    yolo(root, points=True)


def yolo_flat(root):
    yolo(root, flat=True)


def voc(root):
    for split in SPLITS:
        save(named(split), root / 'JPEGImages')
        write(root / f'ImageSets/Main/{split}.txt', '\n'.join(n[:-4] for n, _ in named(split)))
        for name, (_, _, objects) in named(split):
            write(root / 'Annotations' / name.replace('.png', '.xml'), voc_file(name, objects))


def voc_file(name, objects):
    parts = ''.join(
        f'<object><name>{NAMES[kind]}</name><difficult>0</difficult><bndbox><xmin>{x + 1}</xmin>'
        f'<ymin>{y + 1}</ymin><xmax>{x + w}</xmax><ymax>{y + h}</ymax></bndbox></object>'
        for kind, (x, y, w, h) in objects
    )
    return (
        f'<annotation><filename>{name}</filename><size><width>{SIZE[0]}</width><height>'
        f'{SIZE[1]}</height><depth>3</depth></size>{parts}</annotation>'
    )


def masks(root, convert=lambda labels: Image.fromarray(labels), suffix='', folder='masks'):
    for split in SPLITS:
        save(named(split), root / 'images' / split)
        target = root / folder / split
        target.mkdir(parents=True)
        for name, (_, labels, _) in named(split):
            convert(labels).save(target / name.replace('.png', f'{suffix}.png'))


def masks_255(root):
    masks(root, lambda labels: Image.fromarray(np.where(labels, 255, 0).astype(np.uint8)), '_mask')


COLOURS = np.array([[0, 0, 0], [200, 30, 30], [30, 200, 30]], np.uint8)


def masks_colours(root):
    masks(root, lambda labels: Image.fromarray(COLOURS[labels]))
    write(
        root / 'labelmap.txt',
        '# label:color_rgb:parts:actions\nbackground:0,0,0::\n'
        'square:200,30,30::\ndisc:30,200,30::\n',
    )


def masks_ade(root):
    for split, folder in (('train', 'training'), ('val', 'validation')):
        save(named(split), root / 'images' / folder)
        (root / 'annotations' / folder).mkdir(parents=True)
        for name, (_, labels, _) in named(split):
            Image.fromarray(labels).save(root / 'annotations' / folder / name)


def folders(root, splits=('train', 'val')):
    """The objects cut out, a folder for each class."""
    for split in SPLITS:
        for name, (image, _, objects) in named(split):
            for number, (kind, (x, y, w, h)) in enumerate(objects):
                target = root.joinpath(*([split] if splits else []), NAMES[kind])
                target.mkdir(parents=True, exist_ok=True)
                image.crop((x - 3, y - 3, x + w + 3, y + h + 3)).save(
                    target / f'{Path(name).stem}_{number}.png'
                )


def folders_flat(root):
    folders(root, splits=())
