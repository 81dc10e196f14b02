"""The objects of a validation set, of whatever type, as COCO's format has them."""

import contextlib
from collections import defaultdict
from typing import Any

from PIL import Image

from ..checks.coco import read
from ..checks.loaders import unwrap


def coco_truth(dataset: Any) -> dict:
    """Images, annotations and categories, each counted from 1.

    Areas and crowds are those of a COCO file where the set has one, so that scores are COCO's.
    """
    images: list[dict] = []
    annotations: list[dict] = []
    names = list(dataset.metainfo['classes'])
    for part in unwrap(dataset):
        own, labels = None, {}
        if hasattr(part, 'cat_ids') and str(part.ann_file).endswith('.json'):
            coco, _ = read(part.ann_file)
            own = defaultdict(list)
            for annotation in coco['annotations']:
                own[annotation['image_id']].append(annotation)
            labels = {number: label for label, number in enumerate(part.cat_ids)}
            known = {category['id']: category['name'] for category in coco['categories']}
            names = [known.get(number, str(number)) for number in part.cat_ids]
        for index in range(len(part)):
            info = part.get_data_info(index)
            number = len(images) + 1
            if 'width' not in info:
                with contextlib.suppress(OSError), Image.open(info['img_path']) as image:
                    info['width'], info['height'] = image.size
            images.append(
                dict(
                    id=number,
                    width=info.get('width', 0),
                    height=info.get('height', 0),
                    file_name=info['img_path'],
                )
            )
            found = (
                [object_of(instance) for instance in info.get('instances', ())]
                if own is None
                else [
                    dict(a, category_id=labels[a['category_id']] + 1)
                    for a in own[info['img_id']]
                    if a['category_id'] in labels
                ]
            )
            annotations += [
                dict(annotation, id=len(annotations) + i, image_id=number)
                for i, annotation in enumerate(found, 1)
            ]
    categories = [dict(id=i, name=name) for i, name in enumerate(names, 1)]
    return dict(images=images, annotations=annotations, categories=categories)


def object_of(instance: dict) -> dict:
    """A toolbox's instance as an annotation of COCO."""
    x1, y1, x2, y2 = map(float, instance['bbox'])
    found = dict(
        category_id=instance['bbox_label'] + 1,
        bbox=[x1, y1, x2 - x1, y2 - y1],
        area=(x2 - x1) * (y2 - y1),
        iscrowd=int(instance.get('ignore_flag', 0)),
    )
    return {**found, 'segmentation': instance['mask']} if instance.get('mask') else found
