"""Bad input, case by case: what is tried, and what must be answered."""

import math
import os
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv import imread
from mmengine.config import Config
from PIL import Image

from convmlp_backbone import ConvMLP
from convmlp_backbone.checkpoints import CheckpointError, load, load_backbone
from convmlp_backbone.checks.coco import CocoFile
from convmlp_backbone.checks.images import image_problems
from convmlp_backbone.checks.model import check_model
from convmlp_backbone.commands.models import load_config
from convmlp_backbone.commands.options import job
from convmlp_backbone.config import read_config
from convmlp_backbone.errors import UserError
from convmlp_backbone.hooks import AtomicBackend

COINS = 'retinanet_convmlp_s_fpn_coins'
TINY = dict(channels=8, conv_blocks=1, dims=(8, 8, 8), mlp_blocks=(1, 1, 1), mlp_ratio=2)


# Images: how each is made, its size, and words of the answer; '' where it is simply read.


def picture(mode='RGB', size=(40, 30), **options):
    def write(path):
        Image.new(mode, size).save(path, **options)

    return write


def noise(path, cut=None, **options):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    path.write_bytes(path.read_bytes()[:cut])


def turned(path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    Image.new('RGB', (40, 30)).save(path, exif=exif)


def animated(path):
    Image.new('RGB', (40, 30)).save(
        path, save_all=True, append_images=[Image.new('RGB', (40, 30), 'red')]
    )


IMAGES = dict(
    truncated_jpeg=('x.jpg', lambda p: noise(p, cut=1000), None, 'error: image file is truncated'),
    truncated_png=('x.png', lambda p: noise(p, cut=1000), None, 'error: '),
    zero_bytes=('x.jpg', lambda p: p.touch(), None, 'error: is empty'),
    missing=('x.jpg', lambda p: None, None, 'error: No such file'),
    folder=('x.jpg', lambda p: p.mkdir(), None, 'error: '),
    text=('x.jpg', lambda p: p.write_text('hello'), None, 'error: is no image'),
    web_page=('x.jpg', lambda p: p.write_text('<!DOCTYPE html>'), None, 'error: is no image'),
    random_bytes=('x.png', lambda p: p.write_bytes(os.urandom(500)), None, 'error: is no image'),
    one_pixel=('x.png', picture(size=(1, 1)), (1, 1), ''),
    one_row=('x.png', picture(size=(4000, 1)), (4000, 1), ''),
    one_column=('x.png', picture(size=(1, 4000)), (1, 4000), ''),
    sixteen_bits=('x.png', picture('I;16'), (40, 30), 'warning: has more than 8 bits'),
    floats=('x.tif', picture('F'), None, 'warning: has more than 8 bits'),
    grayscale=('x.png', picture('L'), (40, 30), ''),
    two_colours=('x.png', picture('1'), (40, 30), ''),
    palette=('x.png', picture('P'), (40, 30), ''),
    rgba=('x.png', picture('RGBA'), (40, 30), 'warning: has transparency'),
    gray_alpha=('x.png', picture('LA'), (40, 30), 'warning: has transparency'),
    cmyk=('x.jpg', picture('CMYK'), (40, 30), 'warning: is CMYK'),
    progressive_jpeg=('x.jpg', picture(progressive=True), (40, 30), ''),
    exif_rotated=('x.jpg', turned, (30, 40), ''),
    exif_rotated_boxes_not=('x.jpg', turned, (40, 30), 'error: without its EXIF rotation'),
    other_size=('x.jpg', picture(), (80, 60), 'error: is 40x30, the annotations say 80x60'),
    spaces_and_umlauts=('ä ß 硬币 x.png', picture(), (40, 30), ''),
    wrong_suffix=('x.png', lambda p: picture(format='JPEG')(p), (40, 30), ''),
    animated_gif=('x.gif', animated, (40, 30), 'warning: has 2 frames'),
    hundred_megapixels=('x.png', picture('L', (10000, 10000)), None, 'warning: has 100 megapixels'),
)


@pytest.mark.parametrize('name', IMAGES)
def test_image(name, tmp_path):
    file, write, size, answer = IMAGES[name]
    path = tmp_path / file
    write(path)
    problems = [f'{severity}: {text}' for severity, text in image_problems(path, size)]
    if not answer:
        assert problems == []
    else:
        severity, words = answer.split(': ')
        assert len(problems) == 1 and problems[0].startswith(severity) and words in problems[0]
    if size and not answer.startswith('error'):
        # What we call readable, the toolboxes read so, with three channels.
        assert imread(str(path)).shape == (size[1], size[0], 3)


# Configs and command lines


CONFIGS = dict(
    typo_in_an_argument=({'model.backbone.frozen_stage': 1}, 'did you mean frozen_stages'),
    argument_of_another_backbone=({'model.backbone.depth': 50}, 'no such argument'),
    unknown_arch=({'model.backbone.arch': 'xl'}, "arch='xl': expected one of ['s', 'm', 'l']"),
    arch_number=({'model.backbone.arch': 50}, 'arch=50: expected'),
    means_of_other_channels=({'model.data_preprocessor.mean': [1.0, 2.0]}, '2 values'),
    channels_without_means=({'model.backbone.in_channels': 1}, 'mean=[123.675'),
    no_levels=({'model.backbone.out_indices': ()}, 'out_indices=(): expected'),
    level_too_high=({'model.backbone.out_indices': (1, 2, 4)}, 'out_indices=(1, 2, 4)'),
    levels_twice=({'model.backbone.out_indices': (1, 1)}, 'at most once'),
    levels_for_another_neck=({'model.backbone.out_indices': (1, 2, 3)}, 'the backbone gives [128,'),
    drop_path_of_one=({'model.backbone.drop_path_rate': 1.0}, 'expected 0 <= rate < 1'),
    too_many_frozen=({'model.backbone.frozen_stages': 4}, 'frozen_stages=4: expected'),
    no_channels=({'model.backbone.in_channels': 0}, 'expected a positive integer'),
    wrong_channels_in_the_neck=(
        {'model.neck.in_channels': [64, 128, 256, 768]},
        'the backbone gives [64, 128, 256, 512]',
    ),
    other_size_than_the_neck=({'model.backbone.arch': 'l'}, 'the backbone gives [96,'),
    wrong_number_of_classes=(
        {'model.bbox_head.num_classes': 80},
        'the data set has 1 classes, coin',
    ),
    negative_stride=(
        {'model.bbox_head.anchor_generator.strides': [8, 16, -32, 64, 128]},
        'expected positive numbers',
    ),
    text_stride=({'model.bbox_head.anchor_generator.strides': ['8']}, 'expected positive numbers'),
    key_inside_a_number=({'model.bbox_head.num_classes.x': 1}, '--cfg-options'),
)


@pytest.mark.parametrize('name', CONFIGS)
def test_config(name, restore_loaders):
    options, words = CONFIGS[name]
    with pytest.raises(UserError) as error:
        load_config(job(COINS, cfg_options=options), [])
    assert words in str(error.value) and '\n' not in str(error.value)
    assert 'model.' in str(error.value) or words == '--cfg-options'


@pytest.mark.parametrize(
    'text, words',
    [
        ('model = dict(', 'SyntaxError'),
        ('_base_ = ["nowhere.py"]', 'nowhere.py'),
        ('x = 1 / 0', 'ZeroDivisionError'),
    ],
)
def test_config_file(text, words, tmp_path):
    (tmp_path / 'x.py').write_text(text)
    with pytest.raises(UserError, match=words) as error:
        read_config(str(tmp_path / 'x.py'))
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('path', sorted(ROOT.glob('configs/*.py')), ids=lambda path: path.stem)
def test_shipped_configs_pass(path):
    if path.stem.startswith('convmlp_'):
        pytest.importorskip('mmpretrain')
    check_model(Config.fromfile(path), pytest.fail)


@pytest.mark.parametrize(
    'changes, words',
    [
        (dict(config='nowhere.py'), 'no config nowhere.py'),
        (dict(config='retinanet_convmlp_s'), 'did you mean'),
        (dict(config=''), 'no config'),
        (dict(data_root='/nowhere'), 'the train data set is not there: /nowhere'),
    ],
)
def test_command_line(changes, words, restore_loaders):
    with pytest.raises(UserError, match=words):
        load_config(job(**{'config': COINS, **changes}), ['train'])


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['tools/dist_train.sh'], 'CONFIG GPUS'),
        (['tools/dist_train.sh', 'x.py'], 'CONFIG GPUS'),
        (['tools/dist_train.sh', 'x.py', 'two'], 'whole number'),
        (['tools/dist_train.sh', 'x.py', '0'], 'whole number'),
        (['tools/dist_train.sh', 'x.py', '--amp'], 'whole number'),
        (['tools/dist_test.sh', 'x.py', 'y.pth'], 'CONFIG CHECKPOINT GPUS'),
        (['tools/slurm_train.sh', 'gpu'], 'PARTITION JOB_NAME CONFIG WORK_DIR'),
    ],
)
def test_command_line_of_a_script(arguments, words):
    done = subprocess.run(['bash', *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and words in done.stderr and len(done.stderr.splitlines()) <= 4


# Checkpoints


def torn(path):
    torch.save(ConvMLP(TINY).state_dict(), path)
    path.write_bytes(path.read_bytes()[:2000])


CHECKPOINTS = dict(
    torn=('x.pth', torn, 'is damaged or no checkpoint'),
    empty=('x.pth', lambda p: p.touch(), 'is damaged or no checkpoint'),
    text=('x.pth', lambda p: p.write_text('epoch 12'), 'is damaged or no checkpoint'),
    web_page=('x.pth', lambda p: p.write_text('<!DOCTYPE html><html>404'), 'is damaged or no'),
    image=('x.pth', lambda p: noise(p, format='PNG'), 'is damaged or no checkpoint'),
    torn_safetensors=(
        'x.safetensors',
        lambda p: p.write_bytes(b'\1' * 99),
        'is damaged or no checkpoint',
    ),
    missing=('x.pth', lambda p: None, 'no such checkpoint file'),
    a_list=('x.pth', lambda p: torch.save([1], p), 'holds a list, expected a dict'),
    no_tensors=('x.pth', lambda p: torch.save({}, p), 'does not fit'),
    other_network=(
        'x.pth',
        lambda p: torch.save(torch.nn.Linear(2, 2).state_dict(), p),
        'no ConvMLP',
    ),
    other_size=('x.pth', lambda p: torch.save(ConvMLP('s').state_dict(), p), 'ConvMLP-S'),
    weights_not_finite=(
        'x.pth',
        lambda p: torch.save(
            {
                n: v * math.nan if v.is_floating_point() else v
                for n, v in ConvMLP(TINY).state_dict().items()
            },
            p,
        ),
        'not finite',
    ),
)


@pytest.mark.parametrize('name', CHECKPOINTS)
def test_checkpoint(name, tmp_path):
    file, write, words = CHECKPOINTS[name]
    write(tmp_path / file)
    backbone = ConvMLP(TINY)
    before = {n: v.clone() for n, v in backbone.state_dict().items()}
    with pytest.raises(CheckpointError, match=words) as error:
        load_backbone(backbone, tmp_path / file)
    assert file in str(error.value) and '\n' not in str(error.value)
    assert all(v.equal(before[n]) for n, v in backbone.state_dict().items())


# Whatever comes


@settings(max_examples=30, deadline=None)
@given(
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    n=st.integers(1, 2),
    channels=st.integers(1, 5),
    indices=st.lists(st.sampled_from(range(4)), min_size=1, max_size=4, unique=True),
)
def test_backbone_gives_every_size_its_levels(height, width, n, channels, indices):
    model = ConvMLP(TINY, in_channels=channels, out_indices=indices).eval()
    with torch.no_grad():
        levels = model(torch.rand(n, channels, height, width))
    for level, c, s in zip(levels, model.out_channels, model.out_strides, strict=True):
        assert level.shape == (n, c, math.ceil(height / s), math.ceil(width / s))
        assert level.isfinite().all()


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=300))
def test_no_bytes_surprise_the_readers(content, tmp_path_factory):
    folder = tmp_path_factory.mktemp('bytes')
    for name in ('x.pth', 'x.safetensors', 'x.jpg', 'x.json'):
        (folder / name).write_bytes(content)
    assert image_problems(folder / 'x.jpg')[0][0] == 'error'
    with pytest.raises(UserError):
        CocoFile(folder / 'x.json')
    for name in ('x.pth', 'x.safetensors'):
        with pytest.raises(CheckpointError):
            load(folder / name)


@settings(max_examples=50, deadline=None)
@given(contents=st.lists(st.binary(max_size=100), min_size=1, max_size=4))
def test_atomic_writes_leave_the_last_content_alone(contents, tmp_path_factory):
    folder = tmp_path_factory.mktemp('atomic')
    for content in contents:
        AtomicBackend().put(content, folder / 'x')
    assert os.listdir(folder) == ['x'] and (folder / 'x').read_bytes() == contents[-1]
