import os
import runpy
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

import convmlp_backbone  # noqa: F401  before mmcv.ops, whose operators it may have to offer

# The networks in the tests are tiny: more threads would only wait for one another.
torch.set_num_threads(1)

# What a property without a number of its own is tried on; `make torture` asks for the second.
hypothesis.settings.register_profile('suite', max_examples=40, deadline=None)
hypothesis.settings.register_profile('torture', max_examples=20_000, deadline=None, print_blob=True)
hypothesis.settings.load_profile('suite')

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / 'shared/data'
sys.path[:0] = [str(ROOT), str(ROOT / 'tools/dev'), str(ROOT / 'tools/datasets')]


@pytest.fixture(scope='session')
def shared_data():
    """Real COCO, ADE20K and other samples; not part of the project for their licences."""
    if not DATA.is_dir():
        pytest.skip(f'real data is not there: {DATA}')
    return DATA


@pytest.fixture(scope='session')
def coins(tmp_path_factory):
    """The coins data set."""
    from make_coins_dataset import make

    root = tmp_path_factory.mktemp('data') / 'coins'
    make(root)
    return root


@pytest.fixture
def run_tool(tmp_path):
    """Run a program of tools/ in an empty folder, as a user would; returns the process."""

    def run(tool, *args, env=None, timeout=600, check=True, cwd=tmp_path):
        path = ROOT / 'tools' / tool
        command = ['bash', path] if path.suffix == '.sh' else [sys.executable, path]
        done = subprocess.run(
            [str(part) for part in (*command, *args)],
            cwd=cwd,
            text=True,
            timeout=timeout,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, 'PYTHON': sys.executable, **(env or {})},
        )
        if check:
            assert done.returncode == 0, done.stdout[-4000:]
        return done

    return run


@pytest.fixture
def call_tool(tmp_path, monkeypatch, capsys):
    """Run a command, or a program of tools/, in this process and an empty folder.

    Returns what it prints on its standard output, or its error.
    """
    import mmengine
    from mmengine.registry import DefaultScope
    from mmengine.visualization import Visualizer

    from convmlp_cli import main

    monkeypatch.chdir(tmp_path)
    # MMEngine prettifies the config four times a run, which takes most of the time.
    monkeypatch.setattr(mmengine.Config, 'pretty_text', property(lambda cfg: ''))

    def run(name, *args):
        # MMEngine keeps the scope of every experiment, two of one second have the same name, and
        # the visualizers, which write into the folder of their first run.
        for kept in (DefaultScope, Visualizer, *Visualizer.__subclasses__()):
            kept._instance_dict.clear()
        monkeypatch.setattr(sys, 'argv', [name, *map(str, args)])
        try:
            if name.endswith('.py'):
                runpy.run_path(str(ROOT / 'tools' / name), run_name='__main__')
            else:
                main([name, *args])
        except SystemExit as exit:
            assert isinstance(exit.code, str), capsys.readouterr()
            return exit.code
        return capsys.readouterr().out

    return run


@pytest.fixture
def restore_loaders():
    """Undoes enable_safe_loading() after the test."""
    import mmengine.runner.checkpoint as module
    from mmengine.runner import CheckpointLoader

    from convmlp_backbone import checkpoints

    schemes, from_http = dict(CheckpointLoader._schemes), module.load_from_http
    yield
    CheckpointLoader._schemes, module.load_from_http = schemes, from_http
    checkpoints.loading._trust_all = False
