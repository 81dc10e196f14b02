"""The programs that measure, and the memory that they measure."""

from argparse import Namespace
from functools import partial

from benchmark_process import Process, peak_memory

from convmlp_backbone.cpu import mallopt


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


def test_bfloat16_beside_float32(call_tool):
    options = ('--shape', 33, 47, '--turns', 2, '--dtype', 'bf16')
    out = call_tool('dev/benchmark.py', 's', *options, '--openvino')
    for name in ('fused', 'fused, fp32', 'OpenVINO'):
        assert f'| s {name} | 33x47 |' in out
    refused = call_tool('dev/benchmark.py', 's', *options, '--onnx')
    assert '--onnx measures inference on a CPU in fp32 only' in refused


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
