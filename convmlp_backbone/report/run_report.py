"""The report of one training."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from . import classification_sections, detection_sections, segmentation_sections
from .classification import Classifications
from .detection import Detections
from .evaluation import Evidence
from .page import Section, page, text
from .segmentation import Segmentations
from .training_sections import config_section, training_section
from .work_dir import WorkDir, run_name

SECTIONS: dict[type[Evidence], Callable[[Any], Iterator[Section]]] = {
    Detections: detection_sections.sections,
    Segmentations: segmentation_sections.sections,
    Classifications: classification_sections.sections,
}


def sections_of(evidence: Evidence) -> list[Section]:
    """What is said of the predictions, and of the images that could not be read."""
    found = list(SECTIONS[type(evidence)](evidence))
    if evidence.left_out:
        names = [f'{evidence.paths[i]}: {why}' for i, why in evidence.left_out.items()]
        more = [f'and {len(names) - 20} more'] if len(names) > 20 else []
        found.insert(
            0,
            Section(f'{len(names)} images could not be read', [text(*names[:20], *more)]),
        )
    return found


def run_report(run: WorkDir, cfg: Any, evidence: Evidence, source: str) -> str:
    """The page; ``source`` tells where the predictions are from."""
    return page(
        run_name(run.folder),
        [f'{run.folder}: {source}, on the validation set', time.strftime('%Y-%m-%d %H:%M')],
        [*sections_of(evidence), training_section(run), config_section(run, cfg)],
    )
