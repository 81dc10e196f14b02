"""Pictures of feature maps: what is computed, and that every file is drawn."""

import numpy as np
import pytest
import torch
from PIL import Image

from convmlp_backbone.checkpoints import CheckpointError
from convmlp_backbone.commands import visualize_features as tool
from convmlp_backbone.commands.models import build_model
from convmlp_backbone.errors import UserError


@pytest.fixture
def photo():
    pixels = torch.randint(0, 256, (40, 56, 3), generator=torch.Generator().manual_seed(0))
    return Image.fromarray(pixels.byte().numpy())


def normalised(photo, mean, std):
    pixels = (torch.tensor(np.array(photo)) - torch.tensor(mean)) / torch.tensor(std)
    return pixels.permute(2, 0, 1)[None]


def test_levels_are_those_of_the_backbone(photo, tmp_path):
    model, _ = build_model('s')
    torch.save(model.state_dict(), tmp_path / 's.pth')
    features = tool.compute(f's={tmp_path / "s.pth"}', photo)
    assert 'weights of s.pth' in features.title and '40×56' in features.title
    assert [(name, maps.shape) for name, maps in features.levels] == [
        ('stride 4', (64, 10, 14)),
        ('stride 8', (128, 5, 7)),
        ('stride 16', (256, 3, 4)),
        ('stride 32', (512, 2, 2)),
    ]
    with torch.no_grad():
        levels = model(normalised(photo, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))
    for (_, drawn), level in zip(features.levels, levels, strict=True):
        torch.testing.assert_close(torch.from_numpy(drawn), level[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('config', ['retinanet_convmlp_s_fpn_coins', 'convmlp_s_imagenet'])
def test_a_config_sees_the_same_pixels(config, photo, tmp_path):
    if config.startswith('convmlp'):
        pytest.importorskip('mmpretrain')
    model, _ = build_model(config)
    torch.save(model.state_dict(), tmp_path / 'detector.pth')
    torch.save(model.backbone.state_dict(), tmp_path / 's.pth')
    whole = tool.compute(f'{config}={tmp_path / "detector.pth"}', photo, (64, 96))
    alone = tool.compute(f's={tmp_path / "s.pth"}', photo, (64, 96))
    assert len(whole.levels) == len(alone.levels) == 4
    for (_, a), (_, b) in zip(whole.levels, alone.levels, strict=True):
        torch.testing.assert_close(torch.from_numpy(a), torch.from_numpy(b), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    'name, mean, std',
    [
        ('mixer_s16_224', (127.5,) * 3, (127.5,) * 3),  # as mixer_b16_224, but smaller
        ('resnet18', (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    ],
)
def test_timm_models_see_what_they_were_trained_on(name, mean, std, photo):
    timm = pytest.importorskip('timm')
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    photo = photo.resize((224, 224))
    with torch.no_grad():
        expected = model.forward_intermediates(
            normalised(photo, mean, std), intermediates_only=True
        )[-1][0]
    torch.manual_seed(0)
    drawn = torch.from_numpy(tool.compute(name, photo).levels[-1][1])
    torch.testing.assert_close(drawn, expected, atol=1e-4, rtol=1e-4)


def test_fixed_input_size_is_said(photo):
    pytest.importorskip('timm')
    features = tool.compute('mixer_s32_224', photo, (64, 64))
    assert 'fed 224×224, the only size it takes' in features.title
    assert [name for name, _ in features.levels] == [f'block {i} of 8' for i in (2, 4, 6, 8)]


def test_strongest_channels_vary_most():
    maps = torch.stack([torch.zeros(4, 4), torch.rand(4, 4), 9 * torch.rand(4, 4)]).numpy()
    assert list(tool.pick(maps, 2, strongest=True)) == [2, 1]
    assert list(tool.pick(maps, 5, strongest=False)) == [0, 1, 2]


@pytest.mark.parametrize(
    'spec, error',
    [('nope', UserError), ('s=none.pth', CheckpointError), ('m-pure-mlp=pretrained', UserError)],
)
def test_wrong_models(spec, error, photo):
    with pytest.raises(error, match='nope|none.pth|m-pure-mlp'):
        tool.compute(spec, photo)


def test_program(call_tool, photo, tmp_path):
    photo.save(tmp_path / 'photo.png')
    call_tool('visualize_features', 'photo.png', 's', 'm-pure-mlp', '--channels', 3)
    sizes = {
        path.stem: Image.open(path).size for path in (tmp_path / 'work_dirs/features').glob('*.png')
    }
    assert sizes.keys() == {'s', 'm-pure-mlp', 'all'}
    assert abs(sizes['all'][0] - sizes['s'][0] - sizes['m-pure-mlp'][0]) <= 1
    assert call_tool('visualize_features', 'none.png', 's').startswith('error: no image')
