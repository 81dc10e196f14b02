"""The contract of a timm model, as timm's own model tests check it, over every registered size."""

import os
import re
import subprocess
import sys
from argparse import Namespace

import golden_outputs as golden
import pytest
import torch
from conftest import ROOT

timm = pytest.importorskip('timm')

from timm.layers import set_scriptable  # noqa: E402
from timm.models._features_fx import create_feature_extractor, get_graph_node_names  # noqa: E402
from timm.optim import param_groups_layer_decay, param_groups_weight_decay  # noqa: E402

import convmlp_backbone  # noqa: E402, F401  registers the models

TINY = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2)
MODELS = ('convmlp_s', 'convmlp_m', 'convmlp_l')
LEVELS = [8, 8, 16, 24]  # channels of the tiny network


def create(name='convmlp_s', arch=TINY, **kwargs):
    """A network of three blocks behind the name of a published one, or with arch=None that one."""
    torch.manual_seed(0)
    return timm.create_model(name, **({} if arch is None else {'arch': arch}), **kwargs).eval()


def images(size=64, n=2, channels=3):
    return torch.randn(n, channels, size, size, generator=torch.Generator().manual_seed(0))


def weights(model):
    return {name: value for name, value in model.state_dict().items() if value.is_floating_point()}


# The published models


@pytest.mark.parametrize('name', MODELS)
def test_published_names_and_logits(name):
    size = name[-1]
    model = create(name, arch=None)
    assert {n: tuple(v.shape) for n, v in model.state_dict().items()} == golden.shapes(size)
    model.load_state_dict(golden.weights(size), strict=False)
    for input_size in golden.INPUT_SIZES:
        with torch.no_grad():
            logits = model(golden.image(input_size))[:, ::37]
        assert golden.relative_error(logits, golden.OUTPUTS[f'{size}/{input_size}/logits']) < 1e-4


@pytest.mark.parametrize(
    'name, millions',
    [
        ('convmlp_s', (8.51, 8.56, 8.56)),
        ('convmlp_m', (16.90, 16.95, 16.95)),
        ('convmlp_l', (41.97, 42.04, 42.04)),
    ],
)
def test_parameters(name, millions):
    """The paper's figures, some rounded and some cut off."""
    with torch.device('meta'):
        model = create(name, arch=None)
        for num_classes, expected in zip((10, 100, 102), millions, strict=True):
            model.reset_classifier(num_classes)
            assert abs(sum(p.numel() for p in model.parameters()) / 1e6 - expected) < 0.01


@pytest.mark.parametrize('name', MODELS)
def test_default_cfg(name):
    with torch.device('meta'):
        model = create(name, arch=None)
        cfg = model.default_cfg
        features = model.forward_features(torch.empty(2, *cfg['input_size']))
        assert features.shape[-2:] == cfg['pool_size']
        model.reset_classifier(0)
        assert model.forward_head(features).shape == (2, model.num_features)
        model.reset_classifier(0, '')
        assert model.forward_head(features).shape == features.shape
    assert f'{cfg["classifier"]}.weight' in golden.shapes(name[-1])
    assert f'{cfg["first_conv"]}.weight' in golden.shapes(name[-1])


def test_pretrained_tags():
    assert set(timm.list_pretrained('convmlp_*')) == {
        f'{name}.{tag}' for name in MODELS for tag in ('in1k', 'cifar10', 'cifar100', 'flowers102')
    }
    for name in MODELS:
        cfg = timm.get_pretrained_cfg(name)
        assert cfg.tag == 'in1k' and cfg.url.endswith(f'/checkpoints/{name}_imagenet.pth')
        assert timm.get_pretrained_cfg(f'{name}.flowers102').num_classes == 102


def test_load_pretrained(tmp_path, monkeypatch):
    """A published address resolves to a local copy; in_chans and num_classes are adapted."""
    published = create(num_classes=1000)
    torch.save(published.state_dict(), tmp_path / 'convmlp_s_imagenet.pth')
    monkeypatch.setenv('CONVMLP_CHECKPOINTS', str(tmp_path))
    same = create(pretrained=True)
    for name, value in weights(same).items():
        torch.testing.assert_close(value, published.state_dict()[name])
    adapted = create(pretrained=True, in_chans=1, num_classes=5)
    assert adapted(images(channels=1)).shape == (2, 5)
    torch.testing.assert_close(
        weights(adapted)['tokenizer.block.0.weight'],
        weights(published)['tokenizer.block.0.weight'].sum(1, keepdim=True),
    )
    features = create(pretrained=True, features_only=True)
    torch.testing.assert_close(
        features(images())[3], published.forward_intermediates(images(), intermediates_only=True)[3]
    )


# What a model does


@pytest.mark.parametrize('name', MODELS)
def test_backward(name):
    model = create(name, num_classes=42).train()
    logits = model(images())
    assert logits.shape == (2, 42)
    logits.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_head():
    model = create(num_classes=5, drop_rate=0.5)
    features = model.forward_features(images())
    assert features.shape == (2, model.num_features, 2, 2)
    pooled = model.forward_head(features, pre_logits=True)
    torch.testing.assert_close(pooled, features.mean((2, 3)))
    torch.testing.assert_close(model.head(pooled), model(images()))
    assert model.get_classifier() is model.head
    assert model.train().forward_head(features, pre_logits=True).eq(0).any()
    model.reset_classifier(7)
    assert model(images()).shape == (2, 7) and model.num_classes == 7
    model.double().reset_classifier(3)
    assert model(images().double()).shape == (2, 3)


@pytest.mark.parametrize('global_pool, width', [('avg', 24), ('max', 24), ('catavgmax', 48)])
def test_global_pool(global_pool, width):
    model = create(num_classes=3, global_pool=global_pool)
    assert model(images()).shape == (2, 3)
    assert model.forward_head(model.forward_features(images()), pre_logits=True).shape[1] == width
    assert create(num_classes=0, global_pool=global_pool)(images()).shape == (2, width)


def test_in_chans_and_drop_path_rate():
    assert create(in_chans=5)(images(channels=5)).shape == (2, 1000)
    rates = [block.drop_path.p for block in create(drop_path_rate=0.3).stages[1].blocks]
    assert rates == pytest.approx([0, 0.3])
    with pytest.raises(TypeError):
        create(drop_path=0.3)


@pytest.mark.parametrize('feature_cls', ['getter', 'hook', 'fx'])
def test_features_only(feature_cls):
    model = create(features_only=True, feature_cls=feature_cls)
    assert model.feature_info.channels() == LEVELS
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    levels = model(images(72))
    assert [tuple(level.shape) for level in levels] == [
        (2, 8, 18, 18),
        (2, 8, 9, 9),
        (2, 16, 5, 5),
        (2, 24, 3, 3),
    ]
    for level, expected in zip(
        levels, create().forward_intermediates(images(72), intermediates_only=True), strict=True
    ):
        torch.testing.assert_close(level, expected)


@pytest.mark.parametrize('out_indices', [(0,), (1,), (2,), (0, 2), (1, 3), (-1,)])
def test_features_only_keeps_what_the_levels_need(out_indices):
    model = create(features_only=True, out_indices=out_indices)
    assert model.feature_info.channels() == [LEVELS[i] for i in out_indices]
    levels = model.train()(images())
    assert [level.shape[1] for level in levels] == [LEVELS[i] for i in out_indices]
    sum(level.mean() for level in levels).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_forward_intermediates():
    model = create()
    features, levels = model.forward_intermediates(images())
    torch.testing.assert_close(features, model.forward_features(images()))
    torch.testing.assert_close(model.norm(levels[-1]), features)
    last_two = model.forward_intermediates(images(), indices=2, intermediates_only=True)
    torch.testing.assert_close(last_two, levels[2:])
    first = model.forward_intermediates(
        images(), indices=[0], stop_early=True, intermediates_only=True
    )
    torch.testing.assert_close(first, levels[:1])
    normalised = model.forward_intermediates(images(), indices=[3], norm=True)[1]
    torch.testing.assert_close(normalised, [features])
    with pytest.raises(ValueError, match='NLC'):
        model.forward_intermediates(images(), output_fmt='NLC')


def test_grad_checkpointing():
    def gradients(checkpointing):
        model = create(drop_path_rate=0).train()
        model.set_grad_checkpointing(checkpointing)
        model(images()).square().mean().backward()
        return [p.grad for p in model.parameters()], model.stages[1].blocks.with_cp

    (plain, off), (checkpointed, on) = gradients(False), gradients(True)
    torch.testing.assert_close(plain, checkpointed)
    assert (off, on) == (False, True)


# What timm does to a model


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize('training', [False, True])
def test_torchscript(name, training):
    with set_scriptable(True):
        model = create(name, drop_path_rate=0.5 if training else 0.1).train(training)
    script = torch.jit.script(model)
    if training:  # another stream of random numbers
        script(images()).mean().backward()
        assert all(p.grad is not None for p in script.parameters())
    else:
        torch.testing.assert_close(script(images(72)), model(images(72)))


@pytest.mark.parametrize('training', [False, True])
def test_fx(training):
    model = create(drop_path_rate=0).train(training)
    node = get_graph_node_names(model)[not training][-1]
    graph = create_feature_extractor(model, return_nodes={node: 'logits'}).train(training)
    torch.testing.assert_close(graph(images())['logits'], model(images()))
    torch.testing.assert_close(torch.jit.script(graph)(images())['logits'], model(images()))
    graph(images())['logits'].mean().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_weight_decay_groups():
    model = create()
    assert model.no_weight_decay() == set()
    groups = param_groups_weight_decay(model, 0.05)
    assert {g['weight_decay']: {p.ndim for p in g['params']} for g in groups} == {
        0: {1},
        0.05: {2, 4},
    }


def test_group_matcher_follows_the_network():
    """The layers are those of our own constructor: see test_layer_decay.py for the order."""
    from convmlp_backbone.layer_decay import backbone_layers

    model = create()
    layers = backbone_layers(convmlp_backbone.ConvMLP(TINY))
    scale = {
        id(p): group['lr_scale']
        for group in param_groups_layer_decay(model, layer_decay=0.5)
        for p in group['params']
    }
    depth = max(layers.values()) + 1
    for name, p in model.named_parameters():
        expected = 0.5 ** (depth - layers.get(name, depth - name.startswith('norm')))
        assert scale[id(p)] == expected, name
    coarse = timm.models.group_parameters(model, model.group_matcher(coarse=True))
    assert len(coarse) == 6  # tokenizer, conv stage, three stages, norm and head


# What timm's own tests ask of the models that they name


def test_unknown_argument():
    with pytest.raises(TypeError):
        create(not_an_argument=1)


@pytest.mark.parametrize('dtype', [torch.float64, torch.bfloat16], ids=str)
def test_device_and_dtype(dtype):
    model = create(device='meta', dtype=dtype, num_classes=3)
    assert {(t.device.type, t.dtype) for t in weights(model).values()} == {('meta', dtype)}
    model.reset_classifier(0)
    model.reset_classifier(2)
    assert (model.head.weight.device.type, model.head.weight.dtype) == ('meta', dtype)
    assert not any(module.training for module in model.modules())
    model.to_empty(device='cpu')
    for tensor in weights(model).values():
        tensor.fill_(torch.nan)
    model.init_weights()
    assert all(tensor.isfinite().all() for tensor in weights(model).values())
    assert model(images().to(dtype)).dtype == dtype


@pytest.mark.parametrize('features_only', [False, True])
@pytest.mark.parametrize('in_chans', [1, 3, 4])
def test_in_chans_of_the_data(in_chans, features_only):
    model = create(in_chans=in_chans, features_only=features_only)
    assert model.in_chans == in_chans
    mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    if in_chans != 3:  # as timm's loaders do
        mean, std = ((sum(values) / 3,) * in_chans for values in (mean, std))
    for resolve in ('resolve_model_data_config', 'resolve_input_data_config'):
        if hasattr(timm.data, resolve):  # the second since timm 1.0.31
            config = getattr(timm.data, resolve)(model)
            assert config['input_size'] == (in_chans, 224, 224)
            assert (config['mean'], config['std']) == (mean, std)
    assert timm.data.resolve_data_config(model=model)['input_size'][0] == in_chans


def test_distillation_task():
    task = pytest.importorskip('timm.task')
    student, teacher = create(num_classes=5).train(), create(num_classes=5)
    distilled = task.LogitDistillationTask(student, teacher, verbose=False)
    distilled(images(), torch.tensor([0, 1]))['loss'].backward()
    assert all(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize('pool', ['avg', 'max', 'catavgmax'])
@pytest.mark.parametrize('level', range(4))
def test_head_of_any_level(level, pool):
    model = create(num_classes=0)
    model.prune_intermediate_layers([level], prune_norm=True)
    for num_classes in (0, 7):
        model.reset_classifier(num_classes, pool)
        features = model.forward_features(images())
        width = model.forward_head(features, pre_logits=True).shape[1]
        assert width == model.head_hidden_size == LEVELS[level] * (1 + (pool == 'catavgmax'))
        assert model(images()).shape == (2, num_classes or width)
    assert model.reset_classifier(3) or model.global_pool.pool_type == pool


@pytest.mark.parametrize('indices', [[0], [1], [2], [3], [0, 2], 2], ids=str)
@pytest.mark.parametrize('prune_norm', [False, True])
def test_pruned(indices, prune_norm):
    model = create(drop_rate=0.5)
    levels = model.forward_intermediates(images(), intermediates_only=True)
    logits = model(images())
    wanted = model.prune_intermediate_layers(indices, prune_norm=prune_norm)
    last = max(wanted)
    assert not any(module.training for module in model.modules())
    selected = model.forward_intermediates(images(), indices=wanted, intermediates_only=True)
    torch.testing.assert_close(selected, [levels[i] for i in wanted])
    features, every = model.forward_intermediates(images())
    assert len(every) == last + 1
    torch.testing.assert_close(features, model.forward_features(images()))
    if last < 3 or prune_norm:
        torch.testing.assert_close(features, levels[last])
    assert torch.equal(model(images()), model(images()))
    features, selected = model.train().forward_intermediates(images(), indices=wanted)
    (features.sum() + sum(level.sum() for level in selected)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []

    whole = create(drop_rate=0.5)
    whole.prune_intermediate_layers([3], prune_head=False)
    torch.testing.assert_close(whole(images()), logits)


def test_stop_early():
    model = create()
    levels = model.forward_intermediates(images(), intermediates_only=True)
    for norm in (False, True):
        features, first = model.forward_intermediates(
            images(), indices=[0], norm=norm, stop_early=True
        )
        assert torch.equal(first[0], levels[0]) and torch.equal(features, levels[0])
    features, _ = model.forward_intermediates(images(), indices=[3], stop_early=True)
    assert torch.equal(features, model.forward_features(images()))


@pytest.mark.parametrize('out_indices', [(0, 1, 2, 3), (0,), (1, 2)], ids=str)
def test_torchscript_of_features(out_indices):
    model = create(features_only=True, out_indices=out_indices)
    torch.testing.assert_close(torch.jit.script(model)(images(72)), model(images(72)))


@pytest.mark.parametrize('output_stride', [8, 16, 32])
def test_output_stride(output_stride):
    model = create(features_only=True, output_stride=output_stride)
    reductions = model.feature_info.reduction()
    assert reductions == [min(stride, output_stride) for stride in (4, 8, 16, 32)]
    assert [level.shape[2] for level in model(images(64))] == [64 // r for r in reductions]
    # Dilated, a level has between its pixels what it has without: every n-th is the same.
    plain = create(features_only=True).train()(images(64))[2]
    dense = model.train()(images(64))[2]
    step = 16 // reductions[2]
    torch.testing.assert_close(dense[:, :, ::step, ::step], plain, rtol=1e-3, atol=1e-4)


def test_wrong_output_stride():
    with pytest.raises(ValueError, match='expected 8, 16 or 32'):
        create(output_stride=4)
    with pytest.raises(ValueError, match='expected 32'):
        create(arch=dict(TINY, conv_downsample=False), output_stride=16)


def test_frozen_stays_frozen():
    model = create().requires_grad_(False)
    model.reset_classifier(0)
    model.reset_classifier(0, '')
    assert not any(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize('name', MODELS)
def test_as_the_authors_import_it(name):
    model = getattr(convmlp_backbone, name)(progress=True, num_classes=10, arch=TINY)
    assert model(images()).shape == (2, 10)


def test_the_authors_pretrained_models(tmp_path, monkeypatch):
    published = create()
    torch.save(published.state_dict(), tmp_path / 'convmlp_s_imagenet.pth')
    monkeypatch.setenv('CONVMLP_CHECKPOINTS', str(tmp_path))
    model = convmlp_backbone.convmlp_s(pretrained=True, progress=False, arch=TINY).eval()
    torch.testing.assert_close(model(images()), published(images()))
    with pytest.raises(AttributeError, match='convmlp_xl'):
        _ = convmlp_backbone.convmlp_xl


IMAGENET_YAML = dict(  # what of the authors' convmlp_s_imagenet.yml reaches the model and optimizer
    num_classes=1000,
    img_size=224,
    mean=[0.485, 0.456, 0.406],
    std=[0.229, 0.224, 0.225],
    crop_pct=0.9,
    model='convmlp_s_classification',
    opt='adamw',
    lr=0.0005,
    weight_decay=0.05,
    momentum=0.9,
    sched='cosine',
    epochs=300,
    warmup_epochs=5,
    cooldown_epochs=10,
    min_lr=1e-5,
)


def test_the_authors_yaml_in_the_training_script():
    """As timm's train.py takes it to a model, its images, its optimizer and its schedule."""
    from timm.optim import create_optimizer_v2, optimizer_kwargs
    from timm.scheduler import create_scheduler_v2, scheduler_kwargs

    args = IMAGENET_YAML
    model = create(
        args['model'],
        pretrained=False,
        in_chans=3,
        num_classes=args['num_classes'],
        drop_rate=0.0,
        drop_path_rate=None,
        drop_block_rate=None,
        global_pool=None,
        bn_momentum=None,
        bn_eps=None,
        scriptable=False,
        checkpoint_path='',
    )
    assert isinstance(model, type(create())) and model.num_classes == 1000
    assert timm.data.resolve_data_config(args, model=model)['input_size'] == (3, 224, 224)
    optimizer = create_optimizer_v2(model, **optimizer_kwargs(cfg=Namespace(**args)))
    scheduler, epochs = create_scheduler_v2(
        optimizer, **scheduler_kwargs(Namespace(**args, decay_milestones=[]))
    )
    assert epochs == 310 and isinstance(optimizer, torch.optim.AdamW)
    model.train()(images()).mean().backward()
    optimizer.step()
    scheduler.step(1)


def test_the_names_of_the_authors_are_not_listed():
    assert timm.list_models('convmlp*') == ['convmlp_l', 'convmlp_m', 'convmlp_s']


# Registration


def test_import_order(tmp_path):
    """Every sequence in a process of its own, forked where the slow imports are done."""
    program = """
import os, sys, warnings
import torch, torchvision, mmengine.model, mmengine.runner
SIZES = ['convmlp_l', 'convmlp_m', 'convmlp_s']
for code, expected in (
        ('import convmlp_backbone, timm', SIZES),
        ('import timm, convmlp_backbone, importlib; importlib.reload(convmlp_backbone)', SIZES),
        # The line of docs/classification.md that runs any script of timm's.
        (f'sys.argv = ["-c", "script.py", "convmlp_s"]; {LINE}', SIZES),
        # Not installed: no word about it.
        ('sys.modules["timm"] = None; import convmlp_backbone; del sys.modules["timm"]', []),
        # A timm too old or too new for our models is a warning, not an error.
        ('import timm.models._features as part; del part.feature_take_indices; '
         'import convmlp_backbone', None)):
    child = os.fork()
    if child == 0:
        with warnings.catch_warnings(record=True) as caught:
            exec(code)
            import timm
        warned = any('no ConvMLP models' in str(warning.message) for warning in caught)
        os._exit(timm.list_models('convmlp*') != (expected or [])
                 or warned != (expected is None))
    assert os.waitpid(child, 0)[1] == 0, code
"""
    (tmp_path / 'script.py').write_text(
        'import sys, timm\nassert __name__ == "__main__" and timm.is_model(sys.argv[1])'
    )
    (line,) = re.findall(
        r"timm\(\) { python -c '(.*)' \"\$@\"; }", (ROOT / 'docs/classification.md').read_text()
    )
    subprocess.run(
        [sys.executable, '-c', f'LINE = {line!r}\n{program}'],
        check=True,
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
    )


def test_pretrained_weights_are_read_safely_whatever_timm_does(tmp_path, monkeypatch):
    """An old timm calls torch.load, which may run what is in the file."""
    from checkpoint_files import Code, imagenet, saved
    from timm.models import _builder

    from convmlp_backbone.checkpoints import CheckpointError

    monkeypatch.setattr(_builder, 'load_state_dict', lambda *args, **kwargs: pytest.fail('timm'))
    path = saved(
        tmp_path / 'x.pth', dict(state_dict={f'module.{name}': v for name, v in imagenet().items()})
    )
    model = timm.create_model(
        'convmlp_s', pretrained=True, pretrained_cfg_overlay=dict(file=str(path))
    )
    assert torch.equal(model.head.weight, imagenet()['head.weight'])
    assert not (model.pretrained_cfg.get('state_dict') or model.default_cfg.get('state_dict'))
    evil = saved(tmp_path / 'evil.pth', dict(state_dict={}, x=Code(tmp_path / 'was run')))
    with pytest.raises(CheckpointError, match='holds code'):
        timm.create_model('convmlp_s', pretrained=True, pretrained_cfg_overlay=dict(file=str(evil)))
    assert not (tmp_path / 'was run').exists()
