"""COCO's metrics by faster-coco-eval, where it is installed: the same numbers, sooner."""

from importlib.util import find_spec

from mmengine.config import Config
from mmengine.registry import METRICS

from .checks.datasets import scope_of
from .config import walk
from .errors import UserError

FASTER = 'FasterCocoMetric'  # of the OneDL fork; MMDetection's own has none


def choose_coco_metric(cfg: Config) -> None:
    """Let the evaluators of ``cfg`` that ask for CocoMetric use the faster one, if it is there.

    ``mmdet.CocoMetric`` stays what it is. The config, which a training dumps, tells which it was.

    Raises:
        UserError: The config asks for the faster one, which is not there.
    """
    asked = [
        part
        for _, part in walk([cfg.get('val_evaluator'), cfg.get('test_evaluator')])
        if part.get('type') in ('CocoMetric', FASTER)
    ]
    if not asked:
        return
    there = find_spec('faster_coco_eval') is not None and known(cfg)
    if not there and any(part['type'] == FASTER for part in asked):
        raise UserError(
            f'{FASTER} needs the OneDL fork of MMDetection and pip install faster-coco-eval; '
            'without: --cfg-options val_evaluator.type=CocoMetric test_evaluator.type=CocoMetric'
        )
    if there:
        for part in asked:
            part['type'] = FASTER


def known(cfg: Config) -> bool:
    with scope_of(cfg), METRICS.switch_scope_and_registry(None) as registry:
        return registry.get(FASTER) is not None
