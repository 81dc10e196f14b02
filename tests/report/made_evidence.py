"""Validation sets and predictions made up, with what is adverse in names."""

import numpy as np
from PIL import Image

from convmlp_backbone.report.detection import Detections

NASTY = ('<script>hacked=1</script>', '"><img src=x onerror=hacked=1>', "a'b & <i>c</i>")


class MadeSet:
    """What a report asks of a toolbox's data set."""

    def __init__(self, infos, classes):
        self.infos, self.metainfo = infos, dict(classes=classes)

    def __len__(self):
        return len(self.infos)

    def __getitem__(self, index):
        raise ValueError('no pipeline')

    def get_data_info(self, index):
        return dict(self.infos[index])


def instance(x, y, width, height, label=0, ignore=0):
    return dict(bbox=[x, y, x + width, y + height], bbox_label=label, ignore_flag=ignore)


def detections(objects, rows, classes=('one', 'two'), folder='/none', masks=False):
    """Evidence of an image for each list of instances; rows are (image from 1, x, y, w, h, score,
    category from 1)."""
    infos = [
        dict(img_path=f'{folder}/{i}.jpg', img_id=100 + i, width=200, height=150, instances=part)
        for i, part in enumerate(objects)
    ]
    found = Detections(MadeSet(infos, classes), masks)
    found.rows = [list(map(float, row)) for row in rows]
    return found


def many(folder, images=30, classes=NASTY, noise=3.0, seed=0):
    """Images with objects, files among them, and predictions near to the objects."""
    truth, rng = np.random.default_rng(7), np.random.default_rng(seed)
    objects, rows = [], []
    for number in range(1, images + 1):
        part = []
        for _ in range(truth.integers(1, 5)):
            (x, y), (w, h) = truth.uniform(0, 100, 2), truth.uniform(10, 50, 2)
            label = int(truth.integers(len(classes)))
            part.append(instance(x, y, w, h, label))
            dx, dy, dw, dh = rng.normal(0, noise, 4)
            label = label if rng.random() < 0.9 else (label + 1) % len(classes)
            rows.append((number, x + dx, y + dy, w + dw, h + dh, rng.uniform(0.05, 1), label + 1))
        objects.append(part)
        if folder:
            pixels = truth.integers(0, 255, (150, 200, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f'{number - 1}.jpg')
    return detections(objects, rows, classes, folder or '/none')
