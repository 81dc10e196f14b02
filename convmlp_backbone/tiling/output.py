"""Images predicted tile by tile, and the results written."""

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import UserError
from ..files import held, whole_file
from ..inputs import Source
from .detectors import merged
from .job import Done, TiledJob
from .results import (
    coco_result,
    feature,
    feature_collection,
    json_list,
    mask_in_image,
    polygons,
    write_classes,
)
from .segmentors import TiledSegmentor

LONG = 300_000  # so many boxes take seconds


def objects(
    job: TiledJob, done: Done, category_ids: Sequence[int], image_id: int
) -> Iterator[tuple[dict, dict]]:
    """Every object of an image, in COCO's format and as GeoJSON, the best first."""
    from pycocotools import mask as coco

    found = [done.load(i) for i in range(len(done.files))]
    if (number := sum(len(each['boxes']) for each in found)) > LONG:
        print(f'{done.name}: putting {number:,} boxes together', flush=True)
    result = merged(job.network, found)  # type: ignore[arg-type]
    ends = [np.cumsum(each['lengths']) if 'lengths' in each else None for each in found]
    classes = job.predictor.classes
    columns = (result[name].tolist() for name in ('scores', 'labels', 'places'))
    for box, score, label, (tile, row) in zip(result['boxes'], *columns, strict=True):
        mask = rings = None
        if ends[tile] is not None:
            own = found[tile]
            top, left, height, width = own['cutouts'][row].tolist()
            end = int(ends[tile][row])
            code = own['codes'][end - int(own['lengths'][row]) : end].tobytes()
            pixels = coco.decode(dict(size=[height, width], counts=code))
            mask, rings = mask_in_image(pixels, top, left, done.shape), polygons(pixels, top, left)
        yield (
            coco_result(
                box.tolist(),
                score,
                category_ids[label],
                classes[label],
                done.name,
                image_id,
                mask,
            ),
            feature(box, score, classes[label], rings),
        )


def predict_tiled(
    job: TiledJob,
    sources: Sequence[Source],
    category_ids: Sequence[int],
    image_ids: dict[Path, int] | None,
) -> list[str]:
    """Predict, and write the results.

    Args:
        image_ids: None: images are counted from 1.

    Returns:
        What was left out, and why.

    Raises:
        UserError: Another process writes to the folder; interrupted.
    """
    out_dir = job.out_dir
    left_out: list[str] = []
    kept = out_dir / '.tiles'
    with held(kept / 'lock') as mine:
        if not mine:
            raise UserError(f'{out_dir}: another process predicts into it: take another --out-dir')

        def images() -> Iterator[tuple[int, Done]]:
            for number, done in enumerate(job.run(sources, left_out), 1):
                if image_ids is not None and done.path not in image_ids:
                    left_out.append(f'{done.name} has no id in the annotation file')
                else:
                    yield number if image_ids is None else image_ids[done.path], done

        path = out_dir / 'predictions.json'
        if isinstance(job.network, TiledSegmentor):
            maps = []
            for _, done in images():
                file = Path('pred', done.name).with_suffix('.tif')
                write_classes(
                    out_dir / file,
                    done.shape,
                    done.parts,
                    lambda i, done=done: done.load(i)['classes'],  # type: ignore[misc]
                    job.predictor.meta.get('palette'),
                )
                maps.append(dict(file_name=done.name, segmentation=str(file)))
            with whole_file(path) as temporary:
                temporary.write_text(
                    json.dumps(dict(classes=list(job.predictor.classes), images=maps))
                )
            print(f'{len(maps)} images: {out_dir / "pred"}, {path}')
        else:
            count = 0
            with json_list(path) as add_result:
                for number, done in images():
                    file = (out_dir / 'geojson' / done.name).with_suffix('.geojson')
                    with feature_collection(file) as add_feature:
                        for result, found in objects(job, done, category_ids, number):
                            add_result(result)
                            add_feature(found)
                            count += 1
            print(f'{count} objects: {out_dir / "geojson"}, {path}')
        shutil.rmtree(kept, ignore_errors=True)
    return left_out
