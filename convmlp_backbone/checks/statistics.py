"""What a data set holds: objects of each class, their sizes beside the anchors."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ..config import walk
from .problem import Problem, warning


def anchor_sizes(model: dict) -> list[float]:
    """Sides in pixels of a detector's square anchors, smallest first; [] if it has none."""
    sizes = set()
    for _, part in walk(model or {}):
        if part.get('type') == 'AnchorGenerator':
            strides = [s[0] if isinstance(s, (list, tuple)) else s for s in part['strides']]
            base = part.get('octave_base_scale')
            scales = (
                [
                    base * 2 ** (i / part['scales_per_octave'])
                    for i in range(part['scales_per_octave'])
                ]
                if base
                else part['scales']
            )
            sizes |= {stride * scale for stride in strides for scale in scales}
    return sorted(sizes)


def object_lines(
    counts: Counter, sizes: np.ndarray, classes: Sequence[str], anchors: Sequence, most: int = 10
) -> list[str]:
    """Lines that tell how many objects of each class there are, and how large the model sees them.

    Args:
        counts: By class index.
        sizes: (N, ), square roots of the boxes' areas in pixels after the pipeline.
    """
    lines = [f'objects: {histogram(counts, classes, most)}'] if counts else []
    if len(sizes):
        small, middle, large = np.percentile(sizes, [10, 50, 90])
        lines.append(
            f'sizes, as the model sees them: {small:.0f}, {middle:.0f}, {large:.0f} '
            'pixels (first decile, median, last)'
            + (f'; anchors: {anchors[0]:.0f} to {anchors[-1]:.0f}' if anchors else '')
        )
    return lines


def histogram(counts: Counter, classes: Sequence[str], most: int = 10) -> str:
    """``coin 509, stamp 3``, the most frequent first, and how many classes have none."""
    names = [
        f'{classes[label] if label < len(classes) else label} {count}'
        for label, count in counts.most_common(most)
    ]
    rest = sum(count > 0 for count in counts.values()) - len(names)
    none = len(classes) - len([label for label in counts if counts[label]])
    return (
        ', '.join(names)
        + (f' and {rest} classes more' if rest > 0 else '')
        + (f'; {none} classes have none' if none > 0 else '')
    )


def size_problems(sizes: np.ndarray, anchors: Sequence[float], where: str) -> list[Problem]:
    """Objects that hardly any anchor overlaps: what is half as large as the smallest one, or twice
    as large as the largest."""
    if not len(sizes) or not anchors:
        return []
    below, above = (sizes < anchors[0] / 2).mean(), (sizes > 2 * anchors[-1]).mean()
    if below > 0.5:
        return [
            warning(
                where,
                f'{below:.0%} of the objects are smaller than half the smallest '
                f'anchor, {anchors[0]:.0f} pixels: enlarge the images (Resize), or smaller '
                'anchors (octave_base_scale, scales)',
            )
        ]
    if above > 0.5:
        return [
            warning(
                where,
                f'{above:.0%} of the objects are larger than twice the largest '
                f'anchor, {anchors[-1]:.0f} pixels: make the images smaller (Resize)',
            )
        ]
    return []
