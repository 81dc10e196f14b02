import copy
import itertools
import math
import pickle
import subprocess
import sys
from pathlib import Path

import golden_outputs as golden
import numpy as np
import pytest
import torch
from torch import nn

from convmlp_backbone import ConvMLP, recompute
from convmlp_backbone.archs import ARCHS
from convmlp_backbone.network import Network

TINY = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2)
OUT_INDICES = [indices for n in (1, 2, 3, 4) for indices in itertools.combinations(range(4), n)]


def tiny(**kwargs):
    torch.manual_seed(0)
    return ConvMLP(**{'arch': TINY, **kwargs})


def images(height=64, width=64, n=2, seed=0):
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


def running_statistics(model):
    return {name: buffer.clone() for name, buffer in model.named_buffers()}


def assert_same(ours, theirs, **tolerance):
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **tolerance)


# Agreement with the published network


@pytest.fixture(scope='module', params=ARCHS)
def published(request):
    """A size and its backbone with the weights behind the reference outputs."""
    model = ConvMLP(request.param).eval()
    weights = golden.weights(request.param)
    result = model.load_state_dict(weights, strict=False)
    assert all(name.endswith('num_batches_tracked') for name in result.missing_keys)
    assert result.unexpected_keys == [n for n in weights if n.startswith(('norm.', 'head.'))]
    return request.param, model


def test_names_and_shapes(published):
    size, model = published
    ours = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert ours == {
        name: shape
        for name, shape in golden.shapes(size).items()
        if not name.startswith(('norm.', 'head.'))
    }


@pytest.mark.parametrize('input_size', golden.INPUT_SIZES)
def test_outputs_and_gradients(published, input_size):
    size, model = published
    reference = {
        name.split(f'{size}/{input_size}/')[1]: golden.OUTPUTS[name]
        for name in golden.OUTPUTS.files
        if name.startswith(f'{size}/{input_size}/')
    }
    x = golden.image(input_size).requires_grad_()
    levels = model(x)
    for i, level in enumerate(levels):
        assert level.shape == tuple(reference[f'F{i + 1}/shape'])
        values = golden.sample(level, size, input_size, i)
        assert golden.relative_error(values, reference[f'F{i + 1}/values']) < 1e-4
        stats = [level.mean().item(), level.std().item(), level.abs().max().item()]
        assert golden.relative_error(stats, reference[f'F{i + 1}/stats']) < 1e-4

    model.zero_grad()
    sum((level**2).mean() for level in levels).backward()
    norms = {name: p.grad.norm().item() for name, p in model.named_parameters()}
    names = sorted(
        name
        for name in golden.shapes(size)
        if not name.endswith(('running_mean', 'running_var', 'num_batches_tracked'))
    )
    np.testing.assert_allclose(
        [norms.get(name, -1) for name in names], reference['gradnorm'], rtol=1e-4
    )
    np.testing.assert_allclose(x.grad.norm(), reference['inputgrad'].item(), rtol=1e-4)

    # The published classifier: LayerNorm at every location, mean over locations, linear.
    weights = golden.weights(size)
    x = nn.functional.layer_norm(
        levels[3].permute(0, 2, 3, 1),
        levels[3].shape[1:2],
        weights['norm.weight'],
        weights['norm.bias'],
    )
    logits = nn.functional.linear(x.mean((1, 2)), weights['head.weight'], weights['head.bias'])
    assert golden.relative_error(logits[:, ::37].detach(), reference['logits']) < 1e-4


@pytest.mark.parametrize('size, count', [('s', 8508896), ('m', 16896480), ('l', 41957904)])
def test_number_of_parameters(size, count):
    assert sum(p.numel() for p in ConvMLP(size).parameters()) == count


# The interface


@pytest.mark.parametrize(
    'size, channels',
    [('s', (64, 128, 256, 512)), ('m', (64, 128, 256, 512)), ('l', (96, 192, 384, 768))],
)
def test_out_channels_and_strides(size, channels):
    model = ConvMLP(size)
    assert model.out_channels == channels
    assert model.out_strides == (4, 8, 16, 32)


def test_every_input_size():
    model = tiny().eval()
    # No layer mixes height and width, so every height and every width stand for all pairs.
    sizes = [(h, w) for h in range(1, 98) for w in (1, 50, 161)]
    sizes += [(h, w) for h in (1, 33, 97) for w in range(1, 162)]
    with torch.inference_mode():
        for size in sizes:
            shapes = [tuple(level.shape[2:]) for level in model(images(*size, n=1))]
            assert shapes == [tuple(-(-n // stride) for n in size) for stride in (4, 8, 16, 32)]


@pytest.mark.parametrize('indices', OUT_INDICES, ids=str)
def test_out_indices(indices):
    x = images()
    every_level = tiny().eval()
    wanted = tiny(out_indices=indices).eval()
    wanted.load_state_dict(
        {name: v for name, v in every_level.state_dict().items() if name in wanted.state_dict()}
    )
    assert_same(wanted(x), [every_level(x)[i] for i in indices])
    assert wanted.out_channels == tuple(every_level.out_channels[i] for i in indices)

    sum(level.mean() for level in wanted.train()(x)).backward()
    without = [name for name, p in wanted.named_parameters() if p.grad is None]
    assert without == []


def test_levels_come_in_the_order_asked_for():
    x = images()
    assert_same(tiny(out_indices=(3, 1)).eval()(x), tiny().eval()(x)[3:0:-2])


@pytest.mark.parametrize(
    'wrong',
    [
        dict(arch='xl'),
        dict(arch=dict(channels=8)),
        dict(arch=dict(TINY, depth=3)),
        dict(arch=3),
        dict(arch=dict(TINY, dims=(8, 16))),
        dict(arch=dict(TINY, dims=8)),
        dict(arch=dict(TINY, dims=(8, 16, '24'))),
        dict(arch=dict(TINY, dims=(8, 0, 24))),
        dict(arch=dict(TINY, mlp_blocks=(1, -1, 1))),
        dict(arch=dict(TINY, channels=-8)),
        dict(arch=dict(TINY, conv_blocks=1.5)),
        dict(arch=dict(TINY, mlp_ratio='x')),
        dict(arch=dict(TINY, mlp_ratio=float('nan'))),
        dict(arch=dict(TINY, mlp_ratio=0)),
        dict(in_channels=0),
        dict(in_channels=3.5),
        dict(in_channels=True),
        dict(frozen_stages=1.0),
        dict(drop_path_rate='0.1'),
        dict(arch=dict(TINY, dims=(True, 16, 24))),
        dict(out_indices=()),
        dict(out_indices=(-1,)),
        dict(out_indices=(4,)),
        dict(out_indices=3),
        dict(out_indices=(1, 1)),
        dict(drop_path_rate=1.0),
        dict(drop_path_rate=-0.1),
        dict(frozen_stages=4),
        dict(frozen_stages=-2),
    ],
    ids=str,
)
def test_wrong_value(wrong):
    with pytest.raises(ValueError) as error:
        tiny(**wrong)
    (name,) = wrong
    assert name in str(error.value) and 'expected' in str(error.value)


def test_unknown_argument():
    with pytest.raises(TypeError, match='out_indicies'):
        ConvMLP(out_indicies=(1, 2, 3))


@pytest.mark.parametrize('shape', [(2, 1, 8, 8), (2, 4, 8, 8), (3, 8, 8), (3,)], ids=str)
def test_wrong_input(shape):
    with pytest.raises(ValueError, match=r'\(N, 3, H, W\).*got') as error:
        tiny()(torch.zeros(shape))
    assert str(tuple(shape)) in str(error.value)


def test_in_channels():
    assert tiny(in_channels=1)(torch.zeros(2, 1, 32, 32))[0].shape == (2, 8, 8, 8)


def test_initialisation():
    model = ConvMLP('s')
    linear, conv = model.stages[2].blocks[0].channel_mlp1.fc1, model.stages[1].downsample_mlp
    assert linear.weight.std().item() == pytest.approx(0.02, rel=0.05)
    conv = conv.downsample.weight
    assert conv.std().item() == pytest.approx((2 / (conv.shape[0] * 9)) ** 0.5, rel=0.05)
    assert all(not p.any() for name, p in model.named_parameters() if name.endswith('bias'))


# Training


@pytest.mark.parametrize('frozen_stages', range(-1, 4))
def test_frozen_stages(frozen_stages):
    model = tiny(frozen_stages=frozen_stages)
    assert model.train() is model and model.eval() is model
    model.train()
    before = {name: v.clone() for name, v in model.state_dict().items()}
    optimizer = (
        torch.optim.SGD((p for p in model.parameters() if p.requires_grad), 1.0)
        if frozen_stages < 3
        else None
    )
    loss = sum((level**2).mean() for level in model(images()))
    if optimizer:
        loss.backward()
        optimizer.step()
    else:
        assert not loss.requires_grad
    parts = ('tokenizer.', 'conv_stages.', 'stages.0.', 'stages.')[: frozen_stages + 1]
    # Step and forward pass together change every tensor that is not frozen.
    changed = {name for name, v in model.state_dict().items() if not torch.equal(v, before[name])}
    assert changed == {name for name in before if not name.startswith(parts)}


def test_norm_eval_keeps_statistics_but_trains():
    model = tiny(norm_eval=True).train()
    before = running_statistics(model)
    sum(level.mean() for level in model(images())).backward()
    assert_same(before.values(), running_statistics(model).values(), rtol=0, atol=0)
    assert all(p.grad is not None for p in model.parameters())
    assert model.stages[0].training


RECOMPUTED = [dict(with_cp=True, large=math.inf), dict(large=0), dict(with_cp=True, large=0)]


@pytest.mark.parametrize('norm_eval', [False, True])
@pytest.mark.parametrize('how', RECOMPUTED, ids=str)
@pytest.mark.parametrize('autocast', [False, True])
def test_computing_again_changes_nothing(autocast, norm_eval, how):
    def train(**how):
        model = tiny(norm_eval=norm_eval, drop_path_rate=0.5).train()
        recompute.apply(model, **how)
        x = images(n=8).requires_grad_()
        torch.manual_seed(1)  # the drop path's
        with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
            levels = model(x)
        sum((level**2).mean() for level in levels).backward()
        # Statistics too: the second forward pass of a checkpointed block must not move them.
        return [*levels, x.grad, *(p.grad for p in model.parameters()), *model.buffers()]

    assert_same(train(large=math.inf), train(**how), rtol=0, atol=0)


def kept(**how):
    """Numbers that a training step keeps for the backward pass."""
    model, sizes = tiny(), []
    recompute.apply(model, **how)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: sizes.append(t.numel()) or t, lambda t: t
    ):
        model(images(128, 128))
    return sum(sizes)


def test_computing_again_saves_memory():
    assert kept(with_cp=True) < 0.6 * kept(large=0) < 0.5 * kept(large=math.inf)
    assert kept() == kept(large=math.inf)  # these are small


@pytest.mark.parametrize('autocast, bytes_each', [(False, 4), (True, 2)])
def test_large_is_a_number_of_bytes(autocast, bytes_each):
    largest = images(128, 128).shape[0] * TINY['channels'] // 2 * 64**2 * bytes_each
    with torch.autocast('cpu', torch.bfloat16, enabled=autocast):
        assert kept(large=largest) < kept(large=largest + 1) == kept(large=math.inf)


def test_drop_path():
    model = tiny(arch=dict(TINY, mlp_blocks=(3, 1, 2)), drop_path_rate=0.3)
    rates = [[block.drop_path.p for block in stage.blocks] for stage in model.stages]
    assert rates == [pytest.approx([0, 0.15, 0.3]), [0], pytest.approx([0, 0.3])]
    drop = model.stages[0].blocks[2].drop_path
    x = torch.ones(20000, 1, 1, 2)
    torch.manual_seed(0)
    y = drop.train()(x)
    assert sorted(set(y[:, 0, 0, 0].tolist())) == pytest.approx([0, 1 / 0.7])
    assert torch.equal(y[..., 0], y[..., 1])  # whole samples
    assert y.mean().item() == pytest.approx(1, abs=0.02)
    assert drop.eval()(x) is x


@pytest.mark.parametrize('training', [False, True])
def test_autocast(training):
    model = tiny(drop_path_rate=0).train(training)
    exact = [level.detach() for level in copy.deepcopy(model)(images())]
    with torch.autocast('cpu', torch.bfloat16):
        levels = model(images())
    for level, wanted in zip(levels, exact, strict=True):
        assert (level.float() - wanted).norm() < 0.05 * wanted.norm()
    sum(level.float().mean() for level in levels).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


# Life in a framework


@pytest.mark.parametrize(
    'copy_of', [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=['deepcopy', 'pickle']
)
def test_copies(copy_of):
    model = tiny(frozen_stages=0, with_cp=True).eval()
    copied = copy_of(model)
    assert_same(model(images()), copied(images()), rtol=0, atol=0)
    assert not copied.train().tokenizer.training and copied.stages[0].training


def test_compiles():
    torch._dynamo.reset()
    model = tiny(arch=dict(TINY, mlp_blocks=(1, 1, 1))).eval()
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=backend)
    for height, width in ((64, 96), (128, 80), (36, 52)):
        assert_same(compiled(images(height, width)), model(images(height, width)))
    assert len(graphs) == 1
    # PyTorch's max pooling compiles again for other remainders of the size divided by 4.
    assert_same(compiled(images(33, 47)), model(images(33, 47)))


def test_registered_once_for_all_toolboxes():
    from mmengine.registry import MODELS

    assert MODELS.get('ConvMLP') is ConvMLP
    for toolbox in ('mmdet', 'mmseg', 'mmpretrain'):
        registry = pytest.importorskip(f'{toolbox}.registry').MODELS
        assert type(registry.build(dict(type='ConvMLP', arch=TINY))) is ConvMLP
        assert 'ConvMLP' not in registry.module_dict


def test_syncbn_and_frozen_affine():
    model = tiny(norm_cfg=dict(type='SyncBN', requires_grad=False))
    norm = model.tokenizer.block[1]
    assert isinstance(norm, nn.SyncBatchNorm) and not norm.weight.requires_grad


def test_network_needs_torch_alone():
    """And is the backbone without its policies."""
    code = """
import importlib.util, sys, types
before = set(sys.modules)
import torch
torch_alone = set(sys.modules)
package = types.ModuleType('convmlp_backbone')  # without what its __init__ imports
package.__path__ = [sys.argv[1]]
sys.modules['convmlp_backbone'] = package
from convmlp_backbone.network import Network
names = {name for name in set(sys.modules) - torch_alone if not name.startswith('torch')}
print(sorted(names), len(Network()(torch.zeros(2, 3, 32, 32))))
"""
    folder = str(Path(recompute.__file__).parent)
    done = subprocess.run([sys.executable, '-c', code, folder], text=True, capture_output=True)
    parts = 'archs', 'initialisation', 'network', 'patch_merging'
    names = ['convmlp_backbone', *(f'convmlp_backbone.{part}' for part in parts)]
    assert done.stdout.strip() == f'{names} 4', done.stderr
    model, network = tiny().train(), Network(TINY, drop_path_rate=0.1).train()
    network.load_state_dict(model.state_dict())
    assert not any(isinstance(m, recompute.Recomputed) for m in network.modules())
    levels = []
    for net in (model, network):
        torch.manual_seed(1)
        levels.append(net(images()))
    assert_same(*levels)


def test_works_without_the_toolboxes():
    code = """
import sys
for name in ('mmdet', 'mmseg', 'mmpretrain', 'timm', 'mmcv.ops'):
    sys.modules[name] = None
import torch
from convmlp_backbone import ConvMLP
levels = ConvMLP('s')(torch.zeros(2, 3, 32, 32))
ConvMLP('s', norm_cfg=dict(type='SyncBN'))
print([tuple(level.shape) for level in levels])
"""
    done = subprocess.run([sys.executable, '-c', code], text=True, capture_output=True)
    assert done.stdout.strip() == '[(2, 64, 8, 8), (2, 128, 4, 4), (2, 256, 2, 2), (2, 512, 1, 1)]'
