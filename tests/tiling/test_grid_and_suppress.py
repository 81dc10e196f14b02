import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import batched_nms

from convmlp_backbone.tiling.grid import tiles
from convmlp_backbone.tiling.suppress import suppress


@given(
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(1, 5),
    st.integers(0, 3),
    st.integers(1, 64),
)
def test_cores_part_the_image(height, width, size, halo, step):
    found = np.zeros((height, width), int)
    for number, tile in enumerate(tiles((height, width), size * step, halo * step, step)):
        assert tile.number == number
        core, window = tile.core, tile.window
        found[core.top : core.bottom, core.left : core.right] += 1
        assert window.top % step == window.left % step == 0
        for end, side in ((window.bottom, height), (window.right, width)):
            assert end % step == 0 or end == side
        for near, far in ((core.top, window.top), (core.left, window.left)):
            assert near - far == min(halo * step, near)
        for near, far, side in (
            (core.bottom, window.bottom, height),
            (core.right, window.right, width),
        ):
            assert far - near >= min(halo * step, side - near)
    assert (found == 1).all()


def boxes_of(rng, number, extent, longest):
    corner = rng.uniform(0, extent, (number, 2))
    return np.concatenate([corner, corner + rng.uniform(1, longest, (number, 2))], 1).astype('f4')


@pytest.mark.parametrize(
    'number, extent, longest',
    [(0, 9, 9), (1, 9, 9), (800, 300, 90), (3000, 5000, 300), (400, 900, 3000)],
)
@pytest.mark.parametrize('threshold', [0.1, 0.5])
def test_as_torchvision_does_it(number, extent, longest, threshold):
    rng = np.random.default_rng(number)
    boxes, labels = boxes_of(rng, number, extent, longest), rng.integers(0, 3, number)
    scores = rng.uniform(0, 1, number).astype('f4')
    kept = suppress(boxes, scores, labels, threshold)
    expected = batched_nms(*map(torch.from_numpy, (boxes, scores, labels)), threshold)
    assert kept.tolist() == expected.tolist()


def test_boxes_of_a_tile_leave_each_other_alone():
    boxes = np.array([[0, 0, 9, 9]] * 3, 'f4')
    scores, labels = np.array([0.5, 0.9, 0.7], 'f4'), np.zeros(3, int)
    assert suppress(boxes, scores, labels, 0.5).tolist() == [1]
    assert suppress(boxes, scores, labels, 0.5, np.array([0, 1, 1])).tolist() == [1, 2]
    assert suppress(boxes, scores, np.arange(3), 0.5).tolist() == [1, 2, 0]
