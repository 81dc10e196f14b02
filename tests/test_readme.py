"""What the README says is what the project does."""

import re
from pathlib import Path

import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

README = (ROOT / 'README.md').read_text()
SNIPPETS = re.findall(r'```python\n(.*?)```', README, re.S)


def test_links():
    for link in re.findall(r'\]\(([^)]+)\)', README):
        assert link.startswith('https://') or (ROOT / link).exists(), link


def test_commands_exist():
    targets = re.findall(r'^([\w-]+):', (ROOT / 'Makefile').read_text(), re.M)
    assert set(re.findall(r'`?make ([\w-]+)', README)) <= {*targets, 'and'}
    for tool in re.findall(r'(tools/[\w/]+\.\w+)', README):
        assert (ROOT / tool).exists()


@pytest.mark.parametrize(
    'stack, packages',
    [
        ('onedl', ['onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection', 'onedl-mmsegmentation']),
        ('openmmlab', ['mmcv', 'mmengine', 'mmdet', 'mmsegmentation']),
    ],
)
def test_versions_of_the_tested_stacks(stack, packages):
    (row,) = re.findall(rf'^\| `{stack}`.*$', README, re.M)
    versions = re.findall(r'\d+\.\d+\.\d+', row)
    pins = (ROOT / 'constraints.txt').read_text().split()
    assert len(versions) == 6
    for package, version in zip([*packages, 'torch', 'numpy'], versions, strict=True):
        assert f'{package}=={version}' in pins


@pytest.mark.parametrize(
    'toolbox, base',
    [
        ('mmdet', 'retinanet/retinanet_r50_fpn_1x_coco.py'),
        ('mmseg', 'sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py'),
    ],
)
def test_own_config(toolbox, base, tmp_path):
    package = pytest.importorskip(toolbox)
    configs = Path(package.__file__).parent / '.mim/configs'
    snippet = next(s for s in SNIPPETS if base.split('/')[1] in s)
    # What a reader has as a copy, or inherits by name, lies in the installed toolbox.
    base_line = f"_base_ = ['{configs / base}']"
    (tmp_path / 'own.py').write_text(re.sub(r'^_base_ = .*$', base_line, snippet, flags=re.M))
    cfg = Config.fromfile(tmp_path / 'own.py')
    init_default_scope(toolbox)
    model = MODELS.build(cfg.model)
    assert list(model.backbone.out_channels) == cfg.model.neck.in_channels


def test_without_a_toolbox():
    names = {}
    snippet = next(s for s in SNIPPETS if 'import torch' in s)
    exec(snippet, names)
    shapes = re.search(r'# (\(.*\))', snippet).group(1)
    assert repr(tuple(tuple(names[f].shape) for f in ('f2', 'f3', 'f4')))[1:-1] == shapes
