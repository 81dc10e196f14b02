"""The wheel: what it asks for, what it carries, and that the tools work from it."""

import email
import re
import subprocess
import sys
import zipfile

import pytest
import yaml
from conftest import ROOT

from convmlp_backbone.version import __version__


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, made from what git would check out."""
    folder = tmp_path_factory.mktemp('wheel')
    files = subprocess.check_output(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'], cwd=ROOT
    )
    subprocess.run(
        ['tar', '--null', '-T-', '-cf', folder / 'source.tar'], cwd=ROOT, input=files, check=True
    )
    (folder / 'source').mkdir()
    subprocess.run(['tar', '-xf', '../source.tar'], cwd=folder / 'source', check=True)
    subprocess.run(
        [
            sys.executable,
            '-m',
            'pip',
            'wheel',
            '-q',
            '--no-deps',
            '--no-build-isolation',
            '-w',
            folder,
            folder / 'source',
        ],
        check=True,
    )
    (path,) = folder.glob('*.whl')
    return path


def test_one_version():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    newest = re.search(r'^## \[(.*?)\]', (ROOT / 'CHANGELOG.md').read_text(), re.M).group(1)
    assert __version__ == citation['version'] == newest


def test_installs_nothing_over_an_mm_stack(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (n for n in archive.namelist() if n.endswith('.dist-info/METADATA'))
        metadata = email.message_from_bytes(archive.read(metadata))
    needed = [r for r in metadata.get_all('Requires-Dist') if 'extra ==' not in r]
    assert needed == ['torch']
    assert {'onedl', 'openmmlab', 'timm', 'demo', 'dev'} <= set(metadata.get_all('Provides-Extra'))


def test_carries_what_can_run_from_it_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        beside = ('py.typed', 'report/page.css', 'report/page.js')
        assert {f'convmlp_backbone/{name}' for name in beside} <= {*archive.namelist()}
        carried = {n for n in archive.namelist() if n.startswith('convmlp_backbone/.mim/')}
    files = [*(ROOT / 'configs').rglob('*.py'), *(ROOT / 'tools').glob('*.*')]
    assert carried == {
        f'convmlp_backbone/.mim/{path.relative_to(ROOT)}'
        for path in [*files, ROOT / 'model-index.yml']
    }


def test_commands_work_from_the_wheel(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'site')
        names = archive.namelist()
        (scripts,) = (archive.read(n).decode() for n in names if n.endswith('entry_points.txt'))
    assert 'convmlp = convmlp_cli:main' in scripts
    done = subprocess.run(
        [sys.executable, '-m', 'convmlp_backbone', 'get-flops', 'fpn_convmlp_s_coin'],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        env={'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(tmp_path / 'site')},
    )
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith('error: ')
    assert f'{tmp_path}/site/convmlp_backbone/.mim/configs' in done.stderr  # is where they are


def test_tools_work_from_the_wheel(wheel, tmp_path, coins):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / 'site')
    tool = tmp_path / 'site/convmlp_backbone/.mim/tools/train.py'
    done = subprocess.run(
        [
            sys.executable,
            tool,
            'fpn_convmlp_s_coins',
            '--data-root',
            coins,
            '--cfg-options',
            'train_dataloader.dataset.indices=4',
            'train_dataloader.batch_size=2',
            'train_dataloader.dataset.pipeline.2.scale=(64,64)',
            'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
            'train_cfg.max_epochs=1',
            'model.data_preprocessor.size=(64,64)',
            'default_hooks.checkpoint.save_best=None',
        ],
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={'PATH': '/usr/bin:/bin', 'PYTHONPATH': str(tmp_path / 'site')},
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / 'work_dirs/fpn_convmlp_s_coins/epoch_1.pth').exists()
