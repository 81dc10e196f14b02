"""ConvMLP.fuse(): the same outputs, whatever computes them."""

import copy
import pickle

import pytest
import torch
from golden_outputs import relative_error

from convmlp_backbone import ConvMLP, fuse_model, fused
from convmlp_backbone.archs import ARCHS
from convmlp_backbone.commands.models import build_model
from convmlp_backbone.memory_format import channels_last_pays
from convmlp_backbone.network import Network

TINY = dict(channels=16, conv_blocks=1, dims=(16, 24, 32), mlp_blocks=(1, 2, 1), mlp_ratio=2)
PURE_MLP = dict(TINY, conv_blocks=0, conv_downsample=False, depthwise=False)


def make(arch=TINY, **kwargs):
    torch.manual_seed(0)
    model = ConvMLP(arch, **kwargs)
    for p in model.parameters():  # scales, shifts and statistics that folding must respect
        p.data.add_(torch.randn_like(p), alpha=0.1 if p.ndim == 1 else 0.02)
    model.train()(torch.randn(2, 3, 64, 64))
    return model.eval()


def assert_equal_outputs(ours, theirs, tolerance=1e-5):
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape and relative_error(a.detach(), b.detach()) < tolerance


@pytest.mark.parametrize('size', ARCHS)
def test_sizes_and_the_network_alone(size):
    model, reference, x = make(size), Network(size).eval(), torch.randn(1, 3, 65, 97)
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = reference(x)
        assert_equal_outputs(model(x), expected)
        assert_equal_outputs(model.fuse()(x), expected)


@pytest.mark.parametrize('size', [(1, 1), (33, 47), (64, 96)])
@pytest.mark.parametrize('arch', [TINY, PURE_MLP])
def test_same_outputs_with_and_without_kernels(arch, size, monkeypatch):
    model, x = make(arch), torch.randn(2, 3, *size)
    expected = model(x)
    assert model.fuse() is model and model.fuse() is model
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
    assert_equal_outputs(model(x), expected)  # with gradients: plain operators
    with torch.no_grad():
        assert_equal_outputs(model(x), expected)
    with torch.inference_mode():
        assert_equal_outputs(model(x), expected)
    monkeypatch.setattr(fused, 'ONEDNN', False)  # a PyTorch without the kernels
    with torch.no_grad():
        assert_equal_outputs(model(x), expected)


@pytest.mark.skipif(not fused._ops._is_mkldnn_bf16_supported(), reason='needs AVX-512')
@pytest.mark.parametrize('arch', [TINY, PURE_MLP])
def test_in_bfloat16(arch, monkeypatch):
    model, x = make(arch), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected = model(x)
        with torch.autocast('cpu', torch.bfloat16):
            found = model.fuse()(x)
            monkeypatch.setattr(fused, 'onednn_dtype', lambda x: None)
            plain = model(x)
    assert all(level.dtype == torch.bfloat16 for level in found)
    assert_equal_outputs([level.float() for level in found], expected, 0.05)
    assert any(not a.equal(b) for a, b in zip(found, plain, strict=True))  # computed otherwise


@pytest.mark.parametrize('out_indices', [(0,), (1,), (2, 0), (3,)])
def test_any_levels(out_indices):
    model, x = make(out_indices=out_indices), torch.randn(1, 3, 40, 56)
    expected = model(x)
    with torch.no_grad():
        assert_equal_outputs(model.fuse()(x), expected)


def test_batch_norms_without_statistics_stay():
    model = make(norm_cfg=dict(type='BN', track_running_stats=False)).eval()
    images = torch.randn(2, 3, 33, 64)
    expected = model(images)
    with torch.no_grad():
        assert_equal_outputs(model.fuse()(images), expected)


def test_other_norms_stay():
    model, x = make(norm_cfg=dict(type='GN', num_groups=4)), torch.randn(1, 3, 40, 56)
    expected = model(x)
    with torch.no_grad():
        assert_equal_outputs(model.fuse()(x), expected)


def test_training_and_fusing_exclude_one_another():
    with pytest.raises(RuntimeError, match=r'call eval\(\) first'):
        make().train().fuse()
    with pytest.raises(RuntimeError, match='cannot be trained'):
        make().fuse().train()


def test_new_weights_are_seen():
    """The kernels keep weights in a layout of their own."""
    ours, theirs, x = make().fuse(), make().fuse(), torch.randn(1, 3, 40, 56)
    for parameter in theirs.parameters():
        parameter.data.mul_(1.1)
    with torch.no_grad():
        ours(x)
        ours.load_state_dict(theirs.state_dict())
        assert_equal_outputs(ours(x), theirs(x))
        for parameter in ours.parameters():
            parameter.div_(1.1)
        assert_equal_outputs(ours(x), make().fuse()(x))


@pytest.mark.parametrize('duplicate', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies(duplicate):
    model, x = make().fuse(), torch.randn(1, 3, 40, 56)
    with torch.no_grad():
        expected = model(x)
        assert_equal_outputs(duplicate(model)(x), expected)


def test_autocast_compile_and_an_empty_batch():
    model, x = make(), torch.randn(1, 3, 40, 56)
    expected = model(x)
    model.fuse()
    with torch.no_grad():
        with torch.autocast('cpu', torch.bfloat16):
            assert_equal_outputs([y.float() for y in model(x)], expected, 0.1)
        assert_equal_outputs(torch.compile(model, backend='eager', fullgraph=True)(x), expected)
        assert model(torch.empty(0, 3, 32, 32))[0].shape == (0, 16, 8, 8)


@pytest.mark.parametrize('avx512', [False, True])
@pytest.mark.parametrize('training', [False, True])
def test_when_channels_last_pays(avx512, training):
    with torch.set_grad_enabled(training):
        assert channels_last_pays(torch.zeros(1), avx512) == (avx512 or not training)
    assert not channels_last_pays(torch.zeros(1, device='meta'), avx512)


@pytest.mark.parametrize('channels_last', [False, True])
def test_memory_format(channels_last):
    """Channels last inside where wanted; levels never, which MMCV's RoIAlign misreads."""
    model, x, seen = make(), torch.randn(1, 3, 40, 56), []

    def look(module, inputs, output):
        seen.append(output.is_contiguous(memory_format=torch.channels_last))
        if output.requires_grad:
            output.register_hook(lambda gradient: look(module, None, gradient))

    model.tokenizer.register_forward_hook(look)
    model.channels_last = channels_last
    levels = model(x)
    sum(level.square().sum() for level in levels).backward()
    model.channels_last = None
    with torch.no_grad():
        levels += model(x) + model(x.contiguous(memory_format=torch.channels_last))
    assert seen == [channels_last, channels_last, True, True]
    assert all(level.is_contiguous() for level in levels)


def test_mask_rcnn_pools_the_same_from_channels_last():
    model = build_model('maskrcnn_convmlp_s_fpn_1x_coco')[0]
    x, rois = torch.randn(1, 3, 64, 96), torch.tensor([[0, 8, 9, 60, 50], [0, 0, 0, 300, 200.0]])

    def pool():
        levels = model.extract_feat(x)
        return levels, model.roi_head.bbox_roi_extractor(levels[:4], rois)

    with torch.no_grad():
        _, expected = pool()
        fuse_model(model)
        levels, pooled = pool()
    assert levels[0].is_contiguous(memory_format=torch.channels_last)
    assert_equal_outputs([pooled], [expected])
