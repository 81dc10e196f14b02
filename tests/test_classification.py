import math
from pathlib import Path
from types import SimpleNamespace

import golden_outputs as golden
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, MODELS, PARAM_SCHEDULERS, init_default_scope
from mmengine.runner import load_checkpoint
from torch import nn

pytest.importorskip('mmpretrain')

from mmpretrain.structures import DataSample  # noqa: E402

from convmlp_backbone.checkpoints import CheckpointError  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'
TINY = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2)
DATA = ('imagenet', 'cifar10', 'cifar100', 'flowers102')


def config(name):
    init_default_scope('mmpretrain')
    return Config.fromfile(CONFIGS / f'{name}.py')


def build(cfg, arch=TINY, checkpoint=None):
    """The classifier of ``cfg``, tiny, from ``checkpoint``."""
    torch.manual_seed(0)
    cfg.model.backbone.update(
        arch=arch, init_cfg=checkpoint and dict(type='Pretrained', checkpoint=str(checkpoint))
    )
    cfg.model.head.in_channels = arch['dims'][-1]
    return MODELS.build(dict(cfg.model, data_preprocessor=cfg.data_preprocessor))


def published_names(model):
    """The weights of a classifier as the authors name them."""
    return {
        name.replace('backbone.', '').replace('head.', '').replace('fc.', 'head.'): value
        for name, value in model.state_dict().items()
    }


@pytest.mark.parametrize('size', 'sml')
def test_published_file_gives_published_logits(size, tmp_path):
    weights = golden.weights(size)
    weights.update(
        {
            name: torch.tensor(0)
            for name in golden.shapes(size)
            if name.endswith('num_batches_tracked')
        }
    )
    torch.save(weights, tmp_path / 'published.pth')
    model = MODELS.build(config(f'convmlp_{size}_imagenet').model).eval()
    load_checkpoint(model, str(tmp_path / 'published.pth'), strict=True)
    for input_size in golden.INPUT_SIZES:
        with torch.no_grad():
            logits = model(golden.image(input_size))[:, ::37]
        assert golden.relative_error(logits, golden.OUTPUTS[f'{size}/{input_size}/logits']) < 1e-4


def test_own_checkpoints_load_too():
    model, other = build(config('convmlp_s_cifar10')), build(config('convmlp_s_cifar10'))
    nn.init.ones_(model.head.fc.weight)
    other.load_state_dict(model.state_dict())
    assert other.head.fc.weight.eq(1).all()


@pytest.mark.parametrize('published', [True, False])
def test_fine_tuning_starts_from_backbone_and_norm(published, tmp_path):
    model = build(config('convmlp_s_imagenet'))
    for p in model.parameters():
        nn.init.normal_(p)
    weights = published_names(model) if published else model.state_dict()
    torch.save(weights, tmp_path / 'file.pth')
    tuned = build(config('convmlp_s_cifar10'), checkpoint=tmp_path / 'file.pth')
    tuned.init_weights()
    for name, value in tuned.state_dict().items():
        if not name.startswith('head.fc.'):
            torch.testing.assert_close(value, model.state_dict()[name])
    assert tuned.head.fc.weight.shape[0] == 10 and tuned.head.fc.weight.std() < 0.03

    wide = {**TINY, 'dims': (8, 16, 32)}
    with pytest.raises(CheckpointError, match='does not fit'):
        build(config('convmlp_s_cifar10'), wide, checkpoint=tmp_path / 'file.pth').init_weights()


@pytest.mark.parametrize(
    'size, counts',
    [
        ('s', (9_022_920, 8_515_050, 8_561_220, 8_562_246)),
        ('m', (17_410_504, 16_902_634, 16_948_804, 16_949_830)),
        ('l', (42_728_440, 41_967_130, 42_036_340, 42_037_878)),
    ],
)
def test_parameters_and_weights_of_the_configs(size, counts):
    for data, count in zip(DATA, counts, strict=True):
        cfg = config(f'convmlp_{size}_{data}')
        with torch.device('meta'):
            model = MODELS.build(cfg.model)
        assert sum(p.numel() for p in model.parameters()) == count
        assert cfg.data_preprocessor.num_classes == cfg.model.head.num_classes
        init_cfg = cfg.model.backbone.get('init_cfg')
        assert init_cfg == (
            None
            if data == 'imagenet'
            else dict(type='Pretrained', checkpoint=f'convmlp://convmlp_{size}_imagenet.pth')
        )


@pytest.mark.parametrize('data', DATA)
def test_loss_and_prediction(data):
    cfg = config(f'convmlp_s_{data}')
    model = build(cfg).train()
    batch = dict(
        inputs=[torch.randint(256, (3, 64, 64), dtype=torch.uint8) for _ in range(4)],
        data_samples=[DataSample().set_gt_label(i) for i in range(4)],
    )
    mixed = model.data_preprocessor(batch, training=True)
    scores = torch.stack([sample.gt_score for sample in mixed['data_samples']])
    assert scores.shape == (4, cfg.model.head.num_classes) and (scores.max(1).values < 1).any()
    loss = model(**mixed, mode='loss')['loss']
    loss.backward()
    assert abs(loss.item() - math.log(scores.shape[1])) < 0.5  # knows nothing yet
    assert all(p.grad is not None for p in model.parameters())
    with torch.no_grad():
        predictions = model.eval().test_step(batch)
    assert [p.pred_score.shape for p in predictions] == [(scores.shape[1],)] * 4


# The recipe


@pytest.mark.parametrize(
    'name, lr, lowest, warm_up, epochs',
    [
        ('s_imagenet', 5e-4, 1e-5, 5, 300),
        ('s_cifar10', 3e-4, 1e-5, 10, 50),
        ('s_flowers102', 5e-4, 1e-8, 10, 50),
        ('m_flowers102', 3e-4, 1e-8, 10, 50),
        ('l_flowers102', 3e-4, 1e-8, 10, 50),
    ],
)
def test_learning_rate_is_that_of_the_authors(name, lr, lowest, warm_up, epochs):
    """A cosine with the warm-up from 1e-6 laid over it, then ten epochs at the lowest rate.

    MMEngine multiplies the two, which the cosine's lowest rate disturbs by up to three per cent.
    """
    cfg = config(f'convmlp_{name}')
    optimizer = build_optim_wrapper(nn.Linear(1, 1), cfg.optim_wrapper).optimizer
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer))
        for scheduler in cfg.param_scheduler
    ]
    assert cfg.train_cfg.max_epochs == epochs + 10
    for epoch in range(cfg.train_cfg.max_epochs):
        expected = lowest + (lr - lowest) * (1 + math.cos(math.pi * min(epoch / epochs, 1))) / 2
        if epoch < warm_up:
            expected *= 1e-6 / lr + (1 - 1e-6 / lr) * epoch / warm_up
        assert optimizer.param_groups[0]['lr'] == pytest.approx(expected, rel=0.03), epoch
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


@pytest.mark.parametrize('data', DATA)
def test_no_weight_decay_on_norms_and_biases(data):
    cfg = config(f'convmlp_s_{data}')
    groups = build_optim_wrapper(build(cfg), cfg.optim_wrapper).optimizer.param_groups
    assert all(
        g['weight_decay'] == (0.05 if p.ndim > 1 else 0) for g in groups for p in g['params']
    )


def test_moving_average():
    """0.99996 of the old average and the rest of the new weights, BN statistics included."""
    cfg = dict(config('convmlp_s_imagenet').custom_hooks[0])
    assert cfg.pop('priority') == 'ABOVE_NORMAL'  # before the checkpoint is written
    hook = HOOKS.build(cfg)

    class Model(BaseModel):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm1d(1)

        def forward(self):
            pass

    model = Model()
    hook.before_run(SimpleNamespace(model=model))
    hook.ema_model.update_parameters(model)  # the first is a copy
    nn.init.constant_(model.norm.weight, 2)
    nn.init.constant_(model.norm.running_mean, 1)
    hook.ema_model.update_parameters(model)
    assert hook.ema_model.module.norm.weight.item() == pytest.approx(1 + 4e-5, abs=1e-6)
    assert hook.ema_model.module.norm.running_mean.item() == pytest.approx(4e-5, rel=1e-3)


# From classification to detection


def write_photos(root):
    """Two classes, bright and dark, as a folder of images."""
    import cv2
    import numpy as np

    for split, count in (('train', 8), ('val', 4)):
        for label in range(2):
            folder = root / split / ('dark', 'bright')[label]
            folder.mkdir(parents=True)
            for i in range(count):
                noise = np.random.RandomState(i).randint(0, 100, (48, 48, 3))
                cv2.imwrite(str(folder / f'{i}.png'), noise + 150 * label)


def test_pretrain_then_detect(run_tool, tmp_path):
    """The recipe of docs/classification.md with a tiny network."""
    pytest.importorskip('mmdet')
    write_photos(tmp_path / 'photos')
    (tmp_path / 'tiny.py').write_text(f"""
_base_ = ['{CONFIGS}/convmlp_s_clothing.py']
model = dict(backbone=dict(arch=dict(_delete_=True, **{TINY})),
             head=dict(in_channels=24, num_classes=2))
data_preprocessor = dict(num_classes=2)
train_cfg = dict(max_epochs=4, val_interval=4)
""")
    train = run_tool('train.py', 'tiny.py', '--data-root', 'photos', '--work-dir', 'work')
    best = next((tmp_path / 'work').glob('best_*.pth'))
    test = run_tool('test.py', 'tiny.py', best, '--data-root', 'photos', '--work-dir', 'work')
    figures = [done.stdout.split('accuracy/top1: ')[1].split()[0] for done in (train, test)]
    assert figures[0] == figures[1]

    cfg = Config.fromfile(CONFIGS / 'retinanet_convmlp_s_fpn_1x_coco.py')
    cfg.merge_from_dict({'model.backbone.init_cfg.checkpoint': str(best)})
    cfg.model.backbone.arch = TINY
    cfg.model.neck.in_channels = [8, 8, 16, 24]
    init_default_scope('mmdet')
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    trained = torch.load(best, weights_only=False)['state_dict']
    for name, value in detector.backbone.state_dict().items():
        torch.testing.assert_close(value, trained[f'backbone.{name}'])


def test_old_name_of_the_module():
    """Configs of older versions, and those inside their checkpoints, import it."""
    from convmlp_backbone import classification, mmpretrain_models

    assert MODELS.get('ConvMLPClassifier') is classification.ConvMLPClassifier
    assert classification.ConvMLPClsHead is mmpretrain_models.ConvMLPClsHead
