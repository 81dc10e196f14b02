"""The programs that measure, and the memory that they measure."""

from argparse import Namespace
from functools import partial

import pytest
from benchmark_process import Process, exported, peak_memory

from convmlp_backbone.cpu import mallopt
from convmlp_backbone.errors import UserError


def test_benchmark(call_tool, tmp_path):
    out = call_tool(
        'dev/benchmark.py',
        's',
        '--shape',
        33,
        47,
        '--turns',
        2,
        '--vs',
        'resnet18',
        '--memory-format',
        'channels_last',
        '--openvino',
    )
    assert '| s fused | 33x47 |' in out and '| s fused, memory kept |' in out
    assert '| s OpenVINO |' in out
    assert '| resnet18 |' in out
    folder = tmp_path / 'work_dirs/benchmark'
    assert {path.name for path in folder.iterdir()} == {
        'benchmark.json',
        'benchmark.md',
        'benchmark.png',
    }
    assert 'timm has no such model' in call_tool('dev/benchmark.py', 's', '--vs', 'resnet1')


def test_what_runtimes_compute_in():
    args = Namespace(train=False, device='cpu', dtype='bf16', onnx=True, openvino=True)
    with pytest.raises(UserError, match='--onnx measures inference on a CPU in fp32 only'):
        exported(None, args, (32, 32))


def test_whole_models_in_one_runtime(call_tool):
    config = 'fpn_convmlp_s_coins'
    out = call_tool(
        'dev/benchmark.py', config, '--shape', 64, '--turns', 2, '--dtype', 'bf16', '--openvino'
    )
    names = ('ResNet-50', 'eager', 'fused', 'ResNet-50, OpenVINO', 'ConvMLP, OpenVINO')
    rows = {line.split(' |')[0][2:]: line for line in out.splitlines() if line.startswith('| fpn')}
    assert list(rows) == [f'{config} {name}' for name in names]


def test_profile(call_tool):
    out = call_tool('dev/profile_layers.py', 's', '--shape', 96)
    rows = {
        cells[1]: float(cells[4])
        for line in out.splitlines()
        if len(cells := [cell.strip() for cell in line.split('|')]) == 6
        and cells[4].replace('.', '').isdigit()
    }
    # Nothing is faster than its floor, or the floor is wrong; a small image is in the caches.
    assert {'linear, with GELU', 'depthwise convolution 3x3', 'whole'} <= rows.keys()
    assert rows['linear, with GELU'] > 0.7 and rows['whole'] > 1


def test_training_needs_less_memory_than_the_reference():
    args = Namespace(
        train=True,
        batch=2,
        device='cpu',
        dtype='fp32',
        compile=False,
        onnx=False,
        openvino=False,
        vs=[],
        memory_format=None,
    )
    with Process('s', args, (512, 512), partial(mallopt, mmap_threshold=1 << 17)) as process:
        peaks = {name: process.call(peak_memory, name) for name in process.flops}
    assert peaks['s eager'] < 0.85 * peaks['s reference']
    assert peaks['s with_cp'] < 0.5 * peaks['s reference']
