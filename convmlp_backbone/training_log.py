"""What MMEngine logged of a training, however often it was interrupted."""

import json
import re
from numbers import Real
from pathlib import Path

from .errors import UserError

# What each metric that a config can report is called in public, and what it is out of.
METRICS = {
    'coco/bbox_mAP': ('box mAP', 1),
    'coco/segm_mAP': ('mask mAP', 1),
    'mIoU': ('mIoU', 100),
    'accuracy/top1': ('top-1', 100),
}


def read_run(work_dir: str | Path) -> tuple[list[dict], list[dict]]:
    """What MMEngine logged in the last training of a work dir: training and validation records.

    What a resumed training did before counts, up to where it was resumed. A line that a killed
    process left half written is passed over.

    Returns:
        tuple[list[dict], list[dict]]: Training records with ``step`` (iteration), ``loss``, ``lr``
        and, where logged, ``memory`` in GB and ``eta`` in minutes; validation records with ``step``
        (epoch, or iteration where the training counts those) and metrics.

    Raises:
        UserError: There was no training in this folder.
    """
    train: list[dict] = []
    val: list[dict] = []
    for scalars in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        records = list(filter(None, map(_record, scalars.read_text(errors='replace').splitlines())))
        later = [record for record in records if 'loss' in record]
        if not later:
            continue  # an evaluation
        _add_time_left(later, scalars.parents[1])
        scores = [record for record in records if METRICS.keys() & record.keys()]
        train = _before(train, later)
        val = (_before(val, scores) if scores else val) if train else []
        train, val = train + later, val + scores
    if not train:
        raise UserError(f'{work_dir} has no log of a training (TIME/vis_data/scalars.json)')
    return train, val


def _record(line: str) -> dict | None:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and isinstance(record.get('step'), Real) else None


def _before(records: list[dict], later: list[dict]) -> list[dict]:
    return [record for record in records if record['step'] < later[0]['step']]


def _add_time_left(train: list[dict], folder: Path) -> None:
    """Time left, which stands only in the log for people, and memory in GB."""
    log = ''.join(path.read_text(errors='replace') for path in folder.glob('*.log'))
    left = re.findall(r'\(train\).*? eta: (?:(\d+) days?, )?(\d+):(\d+):(\d+)', log)
    if len(left) == len(train):
        for record, parts in zip(train, left, strict=True):
            days, hours, minutes, seconds = (int(part or 0) for part in parts)
            record['eta'] = (days * 24 + hours) * 60 + minutes + seconds / 60
    for record in train:
        if 'memory' in record:
            record['memory'] /= 1024  # MB
