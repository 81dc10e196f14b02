"""What the docs say is what the project does: links, files, snippets and short commands."""

import re
import shlex
from pathlib import Path

import pytest
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from convmlp_cli import make_parser

PAGES = {page.name: page.read_text() for page in [*ROOT.glob('*.md'), *ROOT.glob('docs/*.md')]}
FENCED = re.compile(r'```(\w*)\n(.*?)```', re.S)
LINES = [
    line.strip()
    for text in PAGES.values()
    for block in re.findall(r'```\w*\n(.*?)```|^((?: {4}.*\n)+)', text, re.S | re.M)
    for line in ''.join(block).replace('\\\n', ' ').splitlines()
]
COMMANDS = [line.partition('#')[0] for line in LINES if line.startswith('convmlp ')]
SHORT = [
    line
    for text in PAGES.values()
    for kind, block in FENCED.findall(text)
    if kind == 'bash'
    for line in block.splitlines()
    if re.match(r'(convmlp |python tools/dev/)(get_flops|visualize|grad_cam|plot_p)', line)
]


def snippet(page, word):
    """The Python block of a page that holds a word."""
    (block,) = (b for kind, b in FENCED.findall(PAGES[page]) if kind == 'python' and word in b)
    return block


@pytest.mark.parametrize('name', PAGES)
def test_links_and_files(name):
    folder = ROOT if (ROOT / name).exists() else ROOT / 'docs'
    for link in re.findall(r'\]\(([^)]+)\)', PAGES[name]):
        path, _, section = link.partition('#')
        if path.startswith('https://'):
            continue
        target = folder / (path or Path(name).name)
        assert target.exists(), link
        headings = re.findall(r'^#+ (.*)$', target.read_text(), re.M) if section else []
        assert not section or section in {
            re.sub(r'[^\w -]', '', h).lower().replace(' ', '-') for h in headings
        }, link
    for path in re.findall(r'\b((?:tools|configs|convmlp_backbone)/[\w/]+\.\w+)', PAGES[name]):
        assert (ROOT / path).exists(), path


def test_every_page_is_a_question_and_found_from_the_readme():
    for page in ROOT.glob('docs/*.md'):
        assert f'docs/{page.name}' in PAGES['README.md']
    for name in ('own_project.md', 'own_dataset.md', 'from_mmdet2.md', 'reproduce.md', 'faq.md'):
        assert PAGES[name].splitlines()[0].endswith('?')


@pytest.mark.parametrize('command', SHORT)
def test_commands(command, call_tool, tmp_path):
    (tmp_path / 'docs').symlink_to(ROOT / 'docs')
    tool, *args = shlex.split(command)[1:]
    assert not call_tool(tool.removeprefix('tools/'), *args).startswith('error: ')


@pytest.mark.parametrize('line', COMMANDS)
def test_commands_have_these_options(line):
    _, name, *args = shlex.split(line)
    make_parser(name).parse_args([name, *args])


def test_there_are_commands():
    assert len(SHORT) >= 5 and len(COMMANDS) >= 15


@pytest.mark.parametrize(
    'page, word', [('own_project.md', 'create_model'), ('own_project.md', 'load_backbone')]
)
def test_programs(page, word):
    if word == 'create_model':
        pytest.importorskip('timm')
    names = {}
    exec(snippet(page, word), names)
    assert len(names.get('levels') or names['features']) in (3, 4)


def test_programs_that_make_models_fast():
    from convmlp_backbone.commands.models import build_model

    names = dict(your_model=build_model('fpn_convmlp_s_coins')[0])
    exec(snippet('benchmarks.md', 'your_model'), names)
    assert names['backbone'].fused and names['model'].backbone.fused
    names = dict(cfg=Config.fromfile(ROOT / 'configs/fpn_convmlp_s_coins.py'))
    exec(snippet('benchmarks.md', 'fit_model_to_cpu'), names)
    assert names['cfg'].model.decode_head.norm_cfg.type == 'BN'


def test_classifier_in_mmpretrain(tmp_path):
    pytest.importorskip('mmpretrain')
    import torch

    (tmp_path / 'own.py').write_text(snippet('own_project.md', 'ImageClassifier'))
    cfg = Config.fromfile(tmp_path / 'own.py')
    init_default_scope('mmpretrain')
    assert MODELS.build(cfg.model)(torch.randn(2, 3, 64, 64), mode='tensor').shape == (2, 10)


def test_visualizer_line_fits_the_configs(tmp_path):
    base = f'_base_ = [{str(ROOT / "configs/retinanet_convmlp_s_fpn_nuclei.py")!r}]\n'
    (tmp_path / 'own.py').write_text(base + snippet('own_dataset.md', 'vis_backends'))
    visualizer = Config.fromfile(tmp_path / 'own.py').visualizer
    assert visualizer.type == 'DetLocalVisualizer'
    assert [b.type for b in visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
