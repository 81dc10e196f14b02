"""torchvision's operators in place of mmcv's: right, the same as mmcv's, and out of the way."""

import importlib.util
import sys
import types

import pytest
import torch

from convmlp_backbone import mmcv_ops
from convmlp_backbone.errors import UserError


@pytest.fixture
def stand_in():
    finder = mmcv_ops.Operators()
    return importlib.util.module_from_spec(finder.find_spec('mmcv._ext')), finder


@pytest.fixture
def ext(stand_in):
    module, finder = stand_in
    finder.exec_module(module)
    return module


@pytest.fixture
def compiled():
    """mmcv's own operators."""
    import mmcv._ext

    if mmcv._ext.__spec__.origin == 'torchvision':
        pytest.skip('mmcv has no operators of its own here; OPS=1 make test compares them')
    return mmcv._ext


def roi_align(ext, features, rois, sampling_ratio=0, aligned=True, pool_mode=1):
    """Pooled regions 3x3, and the gradient of their squares' sum."""
    settings = dict(
        aligned_height=3,
        aligned_width=3,
        spatial_scale=0.5,
        sampling_ratio=sampling_ratio,
        pool_mode=pool_mode,
        aligned=aligned,
    )
    output, grad = features.new_zeros(len(rois), features.shape[1], 3, 3), features.clone()
    nothing = features.new_zeros(0)
    ext.roi_align_forward(features, rois, output, nothing, nothing, **settings)
    ext.roi_align_backward(2 * output, rois, nothing, nothing, grad.zero_(), **settings)
    return output, grad


def boxes(number, size):
    torch.manual_seed(0)
    corners = torch.rand(number, 2, 2) * size
    return torch.cat([corners.amin(1), corners.amax(1)], 1)


def test_nms_keeps_the_best_of_those_that_overlap(ext):
    b = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 5]])
    scores = torch.tensor([0.5, 0.9, 0.1, 0.8])
    # IoU with the best, [1]: 0.9 and 0.556
    assert ext.nms(b, scores, iou_threshold=0.6, offset=0).tolist() == [1, 3, 2]
    assert ext.nms(b, scores, iou_threshold=0.5, offset=0).tolist() == [1, 2]
    assert ext.nms(b[:0], scores[:0], iou_threshold=0.5, offset=0).tolist() == []


def test_roi_align_of_a_ramp_is_its_value_at_the_bins_centres(ext):
    ramp = torch.arange(16.0).expand(1, 1, 16, 16)
    output, _ = roi_align(ext, ramp, torch.tensor([[0.0, 4, 4, 16, 16]]))
    # x = 2..8 of the features in three bins of 2, whose centres are 3, 5, 7; pixels' are at .5
    assert torch.allclose(output, torch.tensor([2.5, 4.5, 6.5]).expand(1, 1, 3, 3))


def test_gradient_is_that_of_the_function(ext):
    features = torch.randn(2, 2, 6, 7, dtype=torch.double)
    rois = torch.tensor([[0, 1.2, 1, 9, 8], [1, 2, 3, 11.1, 9]], dtype=torch.double)
    _, grad = roi_align(ext, features, rois)
    for n, c, y, x in [(0, 0, 1, 1), (1, 1, 3, 2), (0, 1, 5, 6)]:
        step = torch.zeros_like(features)
        step[n, c, y, x] = 1e-4
        above, below = (roi_align(ext, features + s, rois)[0].square().sum() for s in (step, -step))
        torch.testing.assert_close(grad[n, c, y, x], (above - below) / 2e-4, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('iou_threshold', [0.3, 0.5, 0.7])
def test_nms_is_mmcvs(iou_threshold, ties, ext, compiled):
    b, scores = boxes(500, 100), torch.rand(500)
    if ties:  # as of heads in bfloat16
        scores = scores.bfloat16().float()
    assert torch.equal(
        *(e.nms(b, scores, iou_threshold=iou_threshold, offset=0) for e in (ext, compiled))
    )


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('sampling_ratio', [0, 2])
def test_roi_align_is_mmcvs(sampling_ratio, aligned, ext, compiled):
    features = torch.randn(2, 3, 25, 32)
    rois = torch.cat([torch.randint(2, (40, 1)), boxes(40, 60)], 1)
    ours, theirs = (roi_align(e, features, rois, sampling_ratio, aligned) for e in (ext, compiled))
    assert torch.equal(ours[0], theirs[0]) and torch.equal(ours[1], theirs[1])


def test_what_torchvision_lacks_says_so(ext):
    for name, call in [
        ('softnms', lambda: ext.softnms()),
        ('ms_deform_attn_forward', lambda: ext.ms_deform_attn_forward(1, im2col=2)),
        ('offset=1', lambda: ext.nms(boxes(2, 9), torch.rand(2), 0.5, offset=1)),
        (
            'pool_mode="max"',
            lambda: roi_align(ext, torch.zeros(1, 1, 4, 4), torch.zeros(1, 5), pool_mode=0),
        ),
    ]:
        with pytest.raises(UserError, match=f'{name}: compile them, `OPS=1 make setup`'):
            call()
    assert not hasattr(ext, '__wrapped__')


def test_mmcvs_own_come_first_and_nothing_else_is_answered(tmp_path, monkeypatch):
    mmcv = types.ModuleType('mmcv')
    mmcv.__path__ = [str(tmp_path)]
    monkeypatch.setitem(sys.modules, 'mmcv', mmcv)
    monkeypatch.delitem(sys.modules, 'mmcv._ext', raising=False)
    mmcv_ops.offer()  # once more than the package did
    assert [type(finder) for finder in sys.meta_path].count(mmcv_ops.Operators) == 1
    assert importlib.util.find_spec('mmcv._ext').origin == 'torchvision'
    assert importlib.util.find_spec('mmcv._other') is None
    (tmp_path / '_ext.py').touch()
    importlib.invalidate_caches()
    assert importlib.util.find_spec('mmcv._ext').origin == str(tmp_path / '_ext.py')


def test_mmcv_works_with_what_is_there():
    """torchvision's, or its own by OPS=1."""
    import mmcv.ops

    assert mmcv.ops.get_compiler_version()
    boxes = torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8], [0, 0, 9, 8]])
    _, kept = mmcv.ops.batched_nms(
        boxes,
        torch.tensor([0.5, 0.7, 0.6]),
        torch.tensor([0, 0, 1]),
        dict(type='nms', iou_threshold=0.5),
    )
    assert kept.tolist() == [1, 2]
    features = torch.ones(1, 1, 9, 9, requires_grad=True)
    mmcv.ops.RoIAlign((2, 2))(features, torch.tensor([[0.0, 1, 1, 7, 7]])).sum().backward()
    torch.testing.assert_close(features.grad.sum(), torch.tensor(4.0))
