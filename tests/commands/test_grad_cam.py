"""Heat maps of what a classifier looks at."""

import checkpoint_files as files
import numpy as np
import pytest
import timm
import torch
from checkpoint_files import saved
from conftest import ROOT
from PIL import Image

import convmlp_backbone  # noqa: F401  registers convmlp_s
from convmlp_backbone.commands import grad_cam
from convmlp_backbone.errors import UserError

PHOTO = ROOT / 'docs/demo.png'


def test_equals_the_definition():
    torch.manual_seed(0)
    model, x = timm.create_model('convmlp_s', num_classes=7).eval(), torch.randn(1, 3, 70, 90)
    heat, number, probability = grad_cam.heat_map(model, x, 5)
    features = model.forward_intermediates(x, 1, intermediates_only=True)[0].detach()
    features.requires_grad_()
    logits = model.forward_head(model.norm(features))
    (weights,) = torch.autograd.grad(logits[0, 5], features)
    expected = (weights.mean((2, 3), keepdim=True) * features).sum(1)[0].relu()
    np.testing.assert_allclose(heat, (expected / expected.max()).detach(), atol=1e-5)
    assert heat.shape == (3, 3) and number == 5
    assert probability == pytest.approx(float(logits.softmax(1)[0, 5]), rel=1e-4)


def test_config_of_a_classifier(call_tool, tmp_path):
    """The same network and weights, by timm and by MMPretrain, look at the same places."""
    pytest.importorskip('mmpretrain')
    path, photo = saved(tmp_path / 'x.pth', files.imagenet()), grad_cam.open_photo(PHOTO)
    names = 'convmlp_s', 'convmlp_s_imagenet'
    (_, _, heat), (_, _, same) = (
        grad_cam.compute(f'{name}={path}', photo, (96, 64), 7) for name in names
    )
    assert heat.shape == (3, 2)
    np.testing.assert_allclose(same, heat, atol=1e-4)


def test_picture_of_several_models(call_tool, tmp_path):
    assert 'picture' in call_tool(
        'grad_cam', PHOTO, 'convmlp_s', 'resnet18', '--shape', 96, '--out', 'cam.png'
    )
    with Image.open(tmp_path / 'cam.png') as picture:
        assert picture.width > 1200 and len(np.unique(np.asarray(picture.convert('L')))) > 100


@pytest.mark.parametrize(
    'args, words',
    [
        (['s'], 's is no classifier'),
        (['fpn_convmlp_s_coins'], 'is no classifier'),
        (['mixer_s32_224'], 'expected a map'),
        (['convmlp_s', '--target-class', '1000'], 'expected 0 to 999'),
    ],
)
def test_wrong_models(args, words, call_tool):
    assert words in call_tool('grad_cam', PHOTO, *args, '--shape', 64)


def test_no_photo():
    with pytest.raises(UserError, match='no image'):
        grad_cam.open_photo('nowhere.jpg')
