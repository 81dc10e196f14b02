"""Which kind of evidence a config asks for."""

from typing import Any

from ..config import walk
from .classification import Classifications
from .detection import Detections
from .evaluation import Evidence
from .segmentation import Segmentations


def evidence_of(cfg: Any, dataset: Any) -> Evidence:
    """That of the config's toolbox, still empty."""
    scope = cfg.get('default_scope', 'mmdet')
    if scope == 'mmseg':
        return Segmentations(dataset)
    if scope == 'mmpretrain':
        return Classifications(dataset)
    metrics = [part.get('metric', ()) for _, part in walk([cfg.get('val_evaluator')])]
    return Detections(dataset, masks=any('segm' in metric for metric in metrics))
