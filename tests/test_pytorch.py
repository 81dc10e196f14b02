"""What PyTorch offers for any module works on the backbone as on others."""

import copy
import io
import math

import pytest
import torch
from torch import func
from torch.autograd import forward_ad

from convmlp_backbone import ConvMLP, recompute

TINY = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2)
AGAIN = [dict(large=0), dict(with_cp=True), dict(with_cp=True, large=0)]
KEPT = dict(large=math.inf)


def make(again=None, **kwargs):
    torch.manual_seed(0)
    model = ConvMLP(**{'arch': TINY, 'drop_path_rate': 0, **kwargs})
    recompute.apply(model, **(again or KEPT))
    return model


def images(n=2, size=48):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


def loss(levels):
    return sum(level.square().mean() for level in levels)


def assert_close(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


@pytest.mark.parametrize('again', AGAIN, ids=str)
def test_many_backward_passes(again):
    """A gradient penalty, and the graph of one forward pass used again and again."""

    def train(again):
        model, x = make(again), images().requires_grad_()
        value = loss(model(x))
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        (second,) = torch.autograd.grad(value, x, retain_graph=True)
        first.square().sum().backward(retain_graph=True)
        value.backward()
        return [first, second, x.grad, *(p.grad for p in model.parameters()), *model.buffers()]

    assert_close(train(again), train(KEPT), rtol=0, atol=0)


@pytest.mark.parametrize('again', [dict(large=0), dict(with_cp=True)], ids=str)
def test_compiled_training(again):
    """Statistics of batch norms, too, move once."""
    torch._dynamo.reset()
    parts = dict(arch=dict(TINY, mlp_blocks=(1, 1, 1)), out_indices=(2,))  # one of every kind
    model, compiled, x = make(**parts), make(again, **parts), images()
    loss(model(x)).backward()
    loss(torch.compile(compiled, backend='aot_eager', fullgraph=True)(x)).backward()
    assert_close(
        [p.grad for p in compiled.parameters()],
        [p.grad for p in model.parameters()],
        rtol=1e-3,
        atol=1e-5,
    )
    assert_close(compiled.buffers(), model.buffers())


@pytest.mark.parametrize('with_cp', [False, True])
def test_hooks_see_every_layer_once(with_cp):
    """Those with hooks are not computed again, unless with_cp asks for it."""
    model, calls = make(dict(large=0, with_cp=with_cp)), []
    for layer in model.modules():
        layer.register_forward_hook(lambda *args: calls.append(args[0]))
    value = loss(model(images()))
    forward = len(calls)
    value.backward()
    assert forward > 50
    again = set(calls[forward:])
    blocks = model.stages[1].blocks
    assert again.issuperset(block.norm1 for block in blocks) if with_cp else not again


@pytest.mark.parametrize('again', [KEPT, dict(with_cp=True, large=0)], ids=str)
def test_transforms(again):
    model, x = make(again).eval().double(), images().double()
    parameters = dict(model.named_parameters())

    def value(parameters, x):
        return loss(func.functional_call(model, parameters, (x,)))

    gradients = func.grad(value)(parameters, x)
    loss(model(x)).backward()
    assert_close(gradients.values(), [p.grad for p in model.parameters()])
    single = func.vmap(func.grad(value), (None, 0))(parameters, x[:, None])
    for name, gradient in gradients.items():  # an image's loss is a mean over half as many numbers
        torch.testing.assert_close(single[name].mean(0), gradient)
    moved = torch.randn_like(x)
    tangents = func.jvp(model, (x,), (moved,))[1]
    with forward_ad.dual_level():
        dual = [
            forward_ad.unpack_dual(level).tangent for level in model(forward_ad.make_dual(x, moved))
        ]
    assert_close(tangents, dual)
    step = 1e-6
    differences = [
        (b - a) / (2 * step)
        for a, b in zip(model(x - step * moved), model(x + step * moved), strict=True)
    ]
    for a, b in zip(tangents, differences, strict=True):
        assert (a - b).norm() < 1e-3 * b.norm()
    assert func.jacrev(lambda x: model(x)[3].sum((0, 2, 3)))(x).shape == (24, *x.shape)


def test_ensemble():
    models = [make().eval(), make().eval()]
    for p in models[1].parameters():
        p.data.mul_(1.1)
    base, x = copy.deepcopy(models[0]).to('meta'), images()
    levels = func.vmap(lambda *state: func.functional_call(base, state, (x,)))(
        *func.stack_module_state(models)
    )
    for i, model in enumerate(models):
        assert_close([level[i] for level in levels], model(x))


@pytest.mark.parametrize('again', [KEPT, *AGAIN], ids=str)
def test_trace(again):
    """With gradients; the program can be saved."""
    model, x = make(again).eval(), images()
    program = io.BytesIO()
    torch.jit.save(torch.jit.trace(model, x), program)
    program.seek(0)
    assert_close(torch.jit.load(program)(x), model(x))


@pytest.mark.parametrize('gradients', [False, True])
@pytest.mark.parametrize('portable', [False, True])
def test_trace_of_a_fused_model(portable, gradients):
    model, x = make().eval().fuse(portable), images()
    with torch.set_grad_enabled(gradients):
        assert_close(torch.jit.trace(model, x)(x), model(x), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('training', [False, True])
@pytest.mark.parametrize('again', [KEPT, dict(with_cp=True, large=0)], ids=str)
def test_fx(again, training):
    model, x = make(again).train(training), images()
    assert_close(torch.fx.symbolic_trace(model)(x), model(x))


def test_fx_quantisation():
    from torch.ao.quantization import get_default_qconfig_mapping, quantize_fx

    model, x = make().eval(), images()
    prepared = quantize_fx.prepare_fx(copy.deepcopy(model), get_default_qconfig_mapping(), (x,))
    prepared(x)
    for ours, level in zip(quantize_fx.convert_fx(prepared)(x), model(x), strict=True):
        assert (ours - level).norm() < 0.2 * level.norm()


def test_feature_extractor():
    extraction = pytest.importorskip('torchvision.models.feature_extraction')
    parts = 'tokenizer', 'conv_stages', 'stages.0', 'stages.2'
    model, x = make().eval(), images()
    features = extraction.create_feature_extractor(model, list(parts))(x)
    assert_close([features[part] for part in parts], model(x))


def test_exports_with_gradients():
    model, x = make().eval(), images()
    assert_close(torch.export.export(model, (x,)).module()(x), model(x))


def test_meta_device():
    """Built without memory, every tensor gets its values from init_weights()."""
    with torch.device('meta'):
        model = make()
    model.to_empty(device='cpu')
    for tensor in model.state_dict().values():
        tensor.fill_(77)
    torch.manual_seed(0)
    model.init_weights()
    assert not any((tensor == 77).any() for tensor in model.state_dict().values())
    weight = model.stages[2].blocks[0].channel_mlp1.fc1.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.1)
    model(images())


def test_fake_tensors():
    """Built and trained without memory and values, as planners of memory and of parallelism do."""
    from torch._subclasses import FakeTensorMode

    with FakeTensorMode():
        model = make(drop_path_rate=0.1)
        loss(model(torch.randn(2, 3, 48, 48))).backward()
        assert all(p.grad is not None for p in model.parameters())


def test_init_weights_leaves_values_that_are_there():
    model = make()
    for p in model.parameters():
        p.data.fill_(77)
    model.to(torch.float64).init_weights()
    assert all((p == 77).all() for p in model.parameters())


def test_portable_fusion():
    from torch.utils.flop_counter import FlopCounterMode

    model, x = make(), images()
    model(x)
    model.eval()
    portable, fused = copy.deepcopy(model).fuse(portable=True), copy.deepcopy(model).fuse()

    def flops(model):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            levels = model(x)
        return counter.get_total_flops(), levels

    (whole, levels), (folded, same), (unseen, too) = map(flops, (model, portable, fused))
    assert folded == whole > unseen
    assert_close(same, levels, rtol=1e-3, atol=1e-4)
    assert_close(too, levels, rtol=1e-3, atol=1e-4)
    kinds = {type(m) for m in portable.modules()}
    assert {torch.nn.Conv2d, torch.nn.Linear} <= kinds and torch.nn.BatchNorm2d not in kinds
