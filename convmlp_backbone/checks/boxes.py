"""Statistics of boxes that betray other units than COCO's x, y, width, height in pixels."""

import numpy as np

SHARE = 0.05  # of the boxes must reach out of their images before their form is doubted
FEW = 10  # boxes tell nothing
FORMS = {
    'x1, y1, x2, y2': lambda a, b, c, d: (a, b, c, d),
    'centre x, centre y, width, height': lambda a, b, c, d: (
        a - c / 2,
        b - d / 2,
        a + c / 2,
        b + d / 2,
    ),
    'y, x, height, width': lambda a, b, c, d: (b, a, b + d, a + c),
    'y1, x1, y2, x2': lambda a, b, c, d: (b, a, d, c),
}


def suspicious_units(
    boxes: np.ndarray, sizes: np.ndarray, areas: np.ndarray
) -> tuple[str, str] | None:
    """Severity and text of what is suspicious about boxes that ought to be x, y, width, height.

    Args:
        boxes: (N, 4), finite.
        sizes: (N, 2), width and height of the box's image.
        areas: (N, ), the objects' areas in pixels, nan where unknown; told apart from the boxes,
            they betray a wrong form of boxes even where no box reaches out.
    """
    known = np.isfinite(sizes).all(1)
    boxes, sizes, areas = boxes[known], sizes[known], areas[known]
    if len(boxes) < FEW:
        return None
    width, height = sizes.T
    # Of images that are larger than a few pixels, nothing else lies within the first one.
    if boxes.max() <= 1.001 and boxes.min() >= -0.001 and sizes.min() > 4:
        return 'error', (
            f'all {len(boxes)} boxes lie between 0 and 1: expected pixels; multiply '
            'x and width by the width of the image, y and height by its height'
        )

    def outside(x1, y1, x2, y2):
        return (x1 < -1) | (y1 < -1) | (x2 > width + 1) | (y2 > height + 1)

    x, y, w, h = boxes.T
    reach = outside(x, y, x + w, y + h).mean()
    with np.errstate(invalid='ignore', divide='ignore'):
        corner_area = (w - x) * (h - y)
        betrayed = (
            (
                np.nanmedian(np.abs(areas / corner_area - 1))
                < 0.05
                < np.nanmedian(np.abs(areas / (w * h) - 1))
            )
            if np.isfinite(areas).any()
            else False
        )
    if reach < SHARE and not betrayed:
        if (
            len(boxes) >= 100
            and (extent := np.stack([(x + w) / width, (y + h) / height]).max()) < 0.6
        ):
            return 'warning', (
                f'no box of {len(boxes)} reaches beyond {extent:.0%} of the width '
                'or height of its image: are they of another image size?'
            )
        return None
    for form, corners in FORMS.items():
        x1, y1, x2, y2 = corners(*boxes.T)
        if (x2 >= x1).all() and (y2 >= y1).all() and outside(x1, y1, x2, y2).mean() < 0.01:
            how = {
                'x1, y1, x2, y2': '; write x1, y1, x2 - x1, y2 - y1',
                'centre x, centre y, width, height': '; subtract half of width and height',
            }.get(form, '')
            return 'error', (
                f'{reach:.0%} of the boxes reach out of their images: they seem to be '
                f'{form}, expected x, y, width, height{how}'
            )
    scale = np.quantile(np.maximum((x + w) / width, (y + h) / height), 0.99)
    return 'error', (
        f'{reach:.0%} of the boxes reach out of their images, up to {scale:.1f} times '
        'their size: they seem to be of another image size'
    )
