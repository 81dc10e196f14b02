"""Mixed precision without a GPU: what is chosen, and what stays in float32."""

import numpy as np
import pytest
import torch
from conftest import ROOT
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from tiny_models import tiny_config, tiny_model

from convmlp_backbone import amp, fuse_model
from convmlp_backbone.cpu import fit_model_to_cpu
from convmlp_backbone.deploy.agreement import predict
from convmlp_backbone.errors import UserError


@pytest.mark.parametrize(
    'line, unit',
    [
        ('flags\t\t: fpu avx512_bf16 amx_bf16 amx_tile', 'AMX'),
        ('flags : fpu avx512f avx512_bf16', 'AVX512_BF16'),
        ('Features : fp asimd bf16', 'Arm BF16'),
        ('flags : fpu avx2 avx512f', None),
        ('', None),
    ],
)
def test_the_processor_is_asked(line, unit, tmp_path):
    path = tmp_path / 'cpuinfo'
    path.write_text(f'processor : 0\nmodel name : with amx_bf16 in it\n{line}\n')
    assert amp.bf16_unit(path) == unit
    assert amp.bf16_unit(tmp_path / 'none') is None


@pytest.mark.parametrize(
    'choice, device, unit, expected',
    [
        ('on', 'cuda', None, dict(type='AmpOptimWrapper', loss_scale='dynamic')),
        ('auto', 'cuda', None, dict(type='AmpOptimWrapper', loss_scale='dynamic')),
        ('fp16', 'cuda', None, dict(type='AmpOptimWrapper', loss_scale='dynamic')),
        ('bf16', 'cuda', None, dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale=1.0)),
        ('on', 'cpu', 'AMX', dict(type='CPUAmpOptimWrapper')),
        ('bf16', 'cpu', 'AMX', dict(type='CPUAmpOptimWrapper')),
        ('auto', 'cpu', 'AMX', dict(type='CPUAmpOptimWrapper')),
        ('auto', 'cpu', None, dict(type='OptimWrapper')),
        ('on', 'cpu', None, 'there is no GPU'),
        ('bf16', 'cpu', None, 'AVX512_BF16'),
        ('fp16', 'cpu', 'AMX', '--amp bf16'),
        ('fp16', 'cpu', None, 'leave it out'),
        ('fp8', 'cuda', None, 'on, auto, bf16, fp16'),
    ],
    ids=str,
)
def test_what_is_chosen(choice, device, unit, expected, monkeypatch):
    monkeypatch.setattr(amp, 'bf16_unit', lambda: unit)
    cfg = ConfigDict(optim_wrapper=dict(type='OptimWrapper'))
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected) as error:
            amp.use_mixed_precision(cfg, choice, device)
        assert '\n' not in str(error.value)
    else:
        words = amp.use_mixed_precision(cfg, choice, device)
        assert cfg.optim_wrapper == expected
        assert unit is None or device == 'cuda' or unit in words


@pytest.mark.parametrize(
    'choice, unit, expected',
    [
        ('f32', 'AMX', ('f32', 'f32')),
        ('bf16', None, ('bf16', 'bf16')),  # whoever asks gets it
        ('auto', 'AMX', ('bf16', 'bf16, by AMX')),
        ('auto', None, ('f32', 'no units')),
        ('int8', 'AMX', 'export --precision int8'),
    ],
)
def test_what_is_predicted_in(choice, unit, expected, monkeypatch):
    monkeypatch.setattr(amp, 'bf16_unit', lambda: unit)
    if isinstance(expected, str):
        with pytest.raises(UserError, match=expected):
            amp.inference_precision(choice, 'cpu')
    else:
        precision, reason = amp.inference_precision(choice, 'cpu')
        assert precision == expected[0] and expected[1] in reason


TINY = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 1, 1), mlp_ratio=2)


def sample(task):
    size = dict(img_shape=(64, 64), ori_shape=(64, 64))
    if task == 'fpn':
        from mmseg.structures import SegDataSample

        return SegDataSample(
            metainfo=size, gt_sem_seg=PixelData(data=torch.arange(64).expand(1, 64, 64) // 32)
        )
    if task == 'convmlp':
        from mmpretrain.structures import DataSample

        return DataSample(metainfo=size).set_gt_label(2)
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    return DetDataSample(
        metainfo=size,
        gt_instances=InstanceData(
            bboxes=torch.tensor([[4.0, 4.0, 40.0, 44.0], [20, 20, 60, 60]]),
            labels=torch.tensor([0, 0]),
            masks=BitmapMasks(torch.ones(2, 64, 64, dtype=torch.uint8).numpy(), 64, 64),
        ),
    )


@pytest.mark.parametrize(
    'name',
    [
        'retinanet_convmlp_s_fpn_coins',
        'maskrcnn_convmlp_s_fpn_coins',
        'fpn_convmlp_s_coins',
        'convmlp_s_clothing',
    ],
)
def test_a_step_in_bfloat16(name):
    if name.startswith('convmlp'):
        pytest.importorskip('mmpretrain')
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    cfg.model.backbone.update(arch=TINY, drop_path_rate=0)
    if 'neck' in cfg.model:
        cfg.model.neck.in_channels = [8, 8, 16, 24]
    else:
        cfg.model.head.in_channels = 24
        cfg.model.data_preprocessor = dict(type='ClsDataPreprocessor', num_classes=4)
    init_default_scope(cfg.default_scope)
    fit_model_to_cpu(cfg.model)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    dtypes = []
    model.backbone.register_forward_hook(lambda *args: dtypes.append(args[2][-1].dtype))
    loss, before = {}, [p.detach().clone() for p in model.parameters()]
    for wrapper in ('OptimWrapper', 'CPUAmpOptimWrapper'):
        torch.manual_seed(0)
        optimizer = build_optim_wrapper(model, dict(cfg.optim_wrapper, type=wrapper))
        with optimizer.optim_context(model):
            data = model.data_preprocessor(
                dict(
                    inputs=[torch.arange(3 * 64 * 64).reshape(3, 64, 64).byte()] * 2,
                    data_samples=[sample(name.partition('_')[0]) for _ in range(2)],
                ),
                training=True,
            )
            losses = model(**data, mode='loss')
        terms = [
            term
            for found in losses.values()
            for term in (found if isinstance(found, list) else [found])
        ]
        assert {term.dtype for term in terms if term.is_floating_point()} == {torch.float32}
        loss[wrapper] = model.parse_losses(losses)[0]
        # Nothing of it stays in the model.
        assert not any(
            m._forward_pre_hooks or m._forward_hooks
            for m in model.modules()
            if m is not model.backbone
        )
    optimizer.update_params(loss['CPUAmpOptimWrapper'])
    assert dtypes == [torch.float32, torch.bfloat16]
    a, b = (float(value.detach()) for value in loss.values())
    assert a == pytest.approx(b, rel=0.2 if 'maskrcnn' in name else 0.03)  # other regions by chance
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    assert any(not p.equal(old) for p, old in zip(model.parameters(), before, strict=True))


TASKS = dict(
    retinanet='detection',
    maskrcnn='instances',
    segmentor='segmentation',
    classifier='classification',
)


@pytest.mark.parametrize('fuse', [False, True])
@pytest.mark.parametrize('kind', TASKS)
def test_predictions_in_bfloat16(kind, fuse):
    if kind == 'classifier':
        pytest.importorskip('mmpretrain')
    cfg = tiny_config(kind, ROOT)
    model = tiny_model(cfg)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    images = images.repeat(12, 1).repeat(12, 2)
    facts = dict(task=TASKS[kind])
    expected = predict(model, images, (96, 96), facts)
    dtypes = []
    model.backbone.register_forward_hook(lambda *args: dtypes.append(args[2][-1].dtype))
    found = predict(
        amp.predict_in_bf16(fuse_model(model) if fuse else model), images, (96, 96), facts
    )
    assert dtypes == [torch.bfloat16]
    if kind == 'segmentor':
        assert 0.95 < (found == expected).mean() < 1
    elif kind == 'classifier':
        assert 0 < abs(found[0] - expected[0]).max() < 0.05 and found[0].dtype == np.float32
    else:
        for a, b in zip(found, expected, strict=True):
            assert len(a.scores) == pytest.approx(len(b.scores), rel=0.3) and len(b.scores)
            assert a.boxes.dtype == a.scores.dtype == np.float32
            assert 0 < abs(a.scores[:5] - b.scores[:5]).max() < 0.05
