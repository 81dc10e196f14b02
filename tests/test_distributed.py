"""Several processes: the same training as one, and a clear end where one of them dies."""

import itertools
import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import torch.distributed as dist
from conftest import ROOT
from distributed_program import Model
from torch.nn.parallel import DistributedDataParallel

PROGRAM = ROOT / 'tests/distributed_program.py'


def launch(folder, processes, task='train', **env):
    folder.mkdir(exist_ok=True)
    command = (
        [sys.executable, PROGRAM, task, '--launcher', 'none']
        if processes == 1 and not env
        else ['bash', ROOT / 'tools/torchrun.sh', str(processes), PROGRAM, task]
    )
    return subprocess.Popen(
        command,
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={
            **os.environ,
            'PYTHON': sys.executable,
            'OMP_NUM_THREADS': '1',
            'CUDA_VISIBLE_DEVICES': '',
            **env,
        },
    )


def losses(process, folder):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-3000:]
    return json.loads((folder / 'losses.json').read_text())


@pytest.fixture(scope='module')
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp('one')
    return losses(launch(folder, 1), folder)


def test_two_processes_equal_one(one_process, tmp_path):
    two = losses(launch(tmp_path, 2), tmp_path)
    assert len(two) == 10 and two[-1] < two[0]
    np.testing.assert_allclose(two, one_process, rtol=1e-5)


def test_two_processes_equal_one_in_bfloat16(one_process, tmp_path):
    one, two = (losses(launch(tmp_path / str(n), n, 'amp'), tmp_path / str(n)) for n in (1, 2))
    np.testing.assert_allclose(two, one, rtol=1e-3)
    assert one != one_process


def test_two_nodes_equal_one_process(one_process, tmp_path):
    # No other test listens there; torchrun takes a free port only where there is one node.
    nodes = [
        launch(
            tmp_path,
            1,
            NNODES='2',
            NODE_RANK=str(rank),
            MASTER_ADDR='127.0.0.1',
            PORT=str(20000 + os.getpid() % 10000),
        )
        for rank in (1, 0)
    ]
    two = losses(nodes[1], tmp_path)
    output = nodes[0].communicate(timeout=60)[0]
    assert nodes[0].returncode == 0, output[-3000:]
    np.testing.assert_allclose(two, one_process, rtol=1e-5)


def test_dead_rank_ends_the_job_and_is_named(tmp_path):
    began = time.monotonic()
    process = launch(tmp_path, 2, 'kill')
    output = process.communicate(timeout=120)[0]
    assert process.returncode != 0
    assert 'rank      : 1 (local_rank: 1)' in output and 'SIGKILL' in output
    assert time.monotonic() - began < 60
    assert not (tmp_path / 'losses.json').exists()


@pytest.fixture(scope='module')
def process_group():
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('frozen_stages', range(-1, 4))
def test_no_variant_has_unused_parameters(frozen_stages, with_cp, process_group):
    for n in range(1, 5):
        for indices in itertools.combinations(range(4), n):
            model = DistributedDataParallel(
                Model(out_indices=indices, frozen_stages=frozen_stages, with_cp=with_cp).train()
            )
            for _ in range(2):  # DDP raises in the second step
                model(torch.randn(2, 3, 32, 32))['loss'].backward()


def test_unused_parameters_would_be_found(process_group):
    model = Model()
    model.unused = torch.nn.Linear(1, 1)
    model = DistributedDataParallel(model)
    with pytest.raises(RuntimeError, match='find_unused_parameters'):
        for _ in range(2):
            model(torch.randn(2, 3, 32, 32))['loss'].backward()
