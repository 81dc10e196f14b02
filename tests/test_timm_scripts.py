"""timm's own scripts, as docs/classification.md runs them.

timm's package lacks them: where TIMM_SCRIPTS names a checkout of timm's repository, every command
of the page is run, on a few small images.
"""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT

timm = pytest.importorskip('timm')

import convmlp_backbone  # noqa: E402  registers the models

PAGE = (ROOT / 'docs/classification.md').read_text()
SECTION = PAGE.partition("### timm's scripts")[2].partition('\n## ')[0]
SHELL = re.search(r'^ {4}(timm\(\) .*)$', SECTION, re.M)[1]
COMMANDS = re.findall(r'^ {4}((?:python|torchrun|timm) .*)$', SECTION, re.M)
TRAINING = '--epochs 1 --warmup-epochs 0 --cooldown-epochs 0 --log-interval 1 --output output'
SMALL = {  # what makes a run of each script small
    'train.py': f'{TRAINING} --device cpu --img-size 64 -b 4 -j 0',
    'validate.py': '--device cpu --img-size 64 -b 4 -j 0',
    'inference.py': '--device cpu --img-size 64 -b 4 -j 0 --results-dir labels',
    'benchmark.py': '--device cpu --img-size 64 -b 2 --num-warm-iter 1 --num-bench-iter 5',
    'onnx_export.py': '',
}
CLASSES = dict(cifar10=10, flowers102=102, imagenet=1000)
YAML = """
model: convmlp_{size}_classification
num_classes: {classes}
img_size: 224
mean: [0.485, 0.456, 0.406]
std: [0.229, 0.224, 0.225]
amp: True
epochs: 300
cooldown_epochs: 10
warmup_epochs: 5
patience_epochs: 10
batch_size: 128
lr: 3e-4
min_lr: 1e-5
sched: cosine
weight_decay: 0.05
opt: adamw
opt_eps: 1.0e-08
smoothing: 0.1
crop_pct: 0.9
hflip: 0.5
vflip: 0.0
ratio: [0.75, 1.3333333333333333]
train_interpolation: bicubic
recount: 1
remode: pixel
reprob: 0.25
aa: rand-m9-mstd0.5-inc1
mixup: 0.8
mixup_mode: batch
mixup_off_epoch: 0
mixup_prob: 1.0
mixup_switch_prob: 0.5
cutmix: 1.0
"""
OF_A_DATA_SET = dict(  # from which of the authors' files which of its lines
    imagenet='seed: 42\nmodel_ema: true\nmodel_ema_decay: 0.99996\n',
    cifar10='dataset: cifar10\npretrained: True\nwarmup_lr: 1e-6\nscale: [0.8, 1.0]\n',
    flowers102='dataset: flowers102\ntrain_split: train\nval_split: valid\npretrained: True\n',
)


def write_yaml(folder, data_set):
    """What the authors' file of S says, if not in its words."""
    size = 'l' if data_set == 'flowers102' else 's'
    text = YAML.format(size=size, classes=CLASSES[data_set])
    (folder / f'convmlp_s_{data_set}.yml').write_text(text + OF_A_DATA_SET[data_set])


def write_photos(folder, splits):
    from PIL import Image

    random = np.random.default_rng(0)
    for split in splits:
        for name in 'ab':
            (folder / split / name).mkdir(parents=True)
            for i in range(4):
                pixels = random.integers(0, 256, (70, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f'{name}{i}.png')


def write_cifar10(folder):
    """Eight images in torchvision's format, and a module that lets it take them."""
    (folder / 'data/cifar-10-batches-py').mkdir(parents=True)
    names = [f'data_batch_{i}' for i in range(1, 6)] + ['test_batch']
    for name in names:
        batch = dict(data=np.zeros((8, 3072), np.uint8), labels=list(range(8)))
        (folder / f'data/cifar-10-batches-py/{name}').write_bytes(pickle.dumps(batch))
    meta = dict(label_names=list('abcdefghij'))
    (folder / 'data/cifar-10-batches-py/batches.meta').write_bytes(pickle.dumps(meta))
    (folder / 'small_cifar.py').write_text(
        'import torchvision.datasets as d\n'
        'd.cifar.check_integrity = lambda *a: True\n'
        'd.CIFAR10._check_integrity = lambda self: True\n'
    )


@pytest.fixture(scope='module')
def checkout(tmp_path_factory):
    """A folder with timm's scripts, data and weights."""
    scripts = os.environ.get('TIMM_SCRIPTS')
    if not scripts:
        pytest.skip("TIMM_SCRIPTS names no checkout of timm's repository")
    folder = tmp_path_factory.mktemp('timm')
    for script in Path(scripts).resolve().glob('*.py'):
        (folder / script.name).symlink_to(script)
    write_photos(folder / 'DIR', ('train', 'val'))
    write_photos(folder / 'data/flowers', ('train', 'valid'))
    write_cifar10(folder)
    for data_set in OF_A_DATA_SET:
        write_yaml(folder, data_set)
    (folder / 'weights').mkdir()
    torch.save(
        timm.create_model('convmlp_s').state_dict(), folder / 'weights/convmlp_s_imagenet.pth'
    )
    (folder / 'bin').mkdir()
    for name, module in (('python', ''), ('torchrun', '-m torch.distributed.run ')):
        program = folder / 'bin' / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
        program.chmod(0o755)
    return folder


@pytest.mark.parametrize('command', COMMANDS)
def test_command(command, checkout):
    (script,) = re.findall(r'\w+\.py', command)
    if script == 'inference.py':
        pytest.importorskip('pandas')
    if not (checkout / script).exists():
        pytest.skip(f'TIMM_SCRIPTS has no {script}')
    command = f'{command} {SMALL[script]}'.replace('--nproc-per-node 8', '--nproc-per-node 2')
    if 'torch/cifar10' in command:
        command = command.replace('--dataset-download', '')
        command = command.replace('convmlp_backbone', 'convmlp_backbone small_cifar')
    done = subprocess.run(
        ['bash', '-c', f'{SHELL}\n{command}'],
        cwd=checkout,
        env={
            **os.environ,
            'PATH': f'{checkout / "bin"}:{os.environ["PATH"]}',
            'PYTHONPATH': os.pathsep.join(
                [str(ROOT), str(checkout), os.environ.get('PYTHONPATH', '')]
            ),
            'CONVMLP_CHECKPOINTS': str(checkout / 'weights'),
            'OMP_NUM_THREADS': '1',
        },
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:]


def test_there_is_a_command_for_every_script():
    run = {name for command in COMMANDS for name in re.findall(r'\w+\.py', command)}
    assert run == set(SMALL)
    configs = {
        name for command in COMMANDS for name in re.findall(r'convmlp_s_(\w+)\.yml', command)
    }
    assert configs == set(OF_A_DATA_SET)


@pytest.mark.parametrize('size', 'sml')
@pytest.mark.parametrize('pretrained', [False, True])
def test_the_authors_names_resolve_as_in_the_scripts(size, pretrained, tmp_path, monkeypatch):
    """Since timm 1.0.31 a script looks the name up first, and hands on what it found."""
    resolve = getattr(timm.models, 'resolve_model_input_args', None)
    if resolve is None:
        pytest.skip('this timm creates models by their names alone')
    arch = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 1, 1), mlp_ratio=2)
    published = timm.create_model(f'convmlp_{size}', arch=arch)
    torch.save(published.state_dict(), tmp_path / f'convmlp_{size}_imagenet.pth')
    monkeypatch.setenv('CONVMLP_CHECKPOINTS', str(tmp_path))
    settings = dict(img_size=64, input_size=None, in_chans=None)
    name = f'convmlp_{size}_classification'
    arguments = resolve(name, settings, pretrained=pretrained, num_classes=10, arch=arch)
    model = timm.create_model(**arguments)
    assert model.num_classes == 10 and model.pretrained_cfg['crop_pct'] == 0.9
    assert model.pretrained_cfg['architecture'] == f'convmlp_{size}'
    weight, ours = published.tokenizer.block[0].weight, model.tokenizer.block[0].weight
    assert torch.equal(weight, ours) == pretrained
    assert convmlp_backbone.timm_models.AUTHORS_NAMES[name] == f'convmlp_{size}'
