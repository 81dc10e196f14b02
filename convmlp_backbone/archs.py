"""The paper's sizes of ConvMLP, its ablation's switches, and what else ``arch`` may be."""

import math
from typing import Any

# The paper's sizes: channels after the tokenizer, number of blocks in the conv stage, and for the
# three Conv-MLP stages their channels and numbers of blocks; the hidden layer of an MLP is
# mlp_ratio times as wide.
ARCHS: dict[str, dict[str, Any]] = {
    's': dict(channels=64, conv_blocks=2, dims=(128, 256, 512), mlp_blocks=(2, 4, 2), mlp_ratio=2),
    'm': dict(channels=64, conv_blocks=3, dims=(128, 256, 512), mlp_blocks=(3, 6, 3), mlp_ratio=3),
    'l': dict(channels=96, conv_blocks=3, dims=(192, 384, 768), mlp_blocks=(4, 8, 3), mlp_ratio=3),
}

# Optional keys of an arch, for the paper's ablation. With conv_blocks=0, which turns off the conv
# stage, and both of these False (patch merging instead of strided convolutions; no depthwise
# convolution and no norm before it), what remains is the Pure-MLP baseline.
ABLATION = dict(conv_downsample=True, depthwise=True)

# What the names s-no-conv-stage, m-pure-mlp and so on change in the size of that letter.
ABLATIONS: dict[str, dict[str, Any]] = {
    'no-conv-stage': dict(conv_blocks=0),
    'no-conv-downsample': dict(conv_downsample=False),
    'no-depthwise': dict(depthwise=False),
    'pure-mlp': dict(conv_blocks=0, conv_downsample=False, depthwise=False),
}
NAMES = [name for size in ARCHS for name in (size, *(f'{size}-{part}' for part in ABLATIONS))]


def expect(holds: bool, name: str, value: object, expected: str) -> None:
    """ValueError that names an argument, its value and what is expected, unless that holds."""
    if not holds:
        raise ValueError(f'{name}={value!r}: expected {expected}')


def is_whole(value: object, least: int) -> bool:
    """Whether that is a whole number from ``least`` on; True and False are none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def resolve_arch(arch: str | dict) -> dict[str, Any]:
    """The whole dict that ``arch``, a size or a dict, stands for; ValueError if it is neither."""
    if isinstance(arch, str) and arch in ARCHS:
        arch = ARCHS[arch]
    required = set(ARCHS['s'])
    whole = isinstance(arch, dict) and required <= set(arch) <= required | set(ABLATION)
    keys = f'a dict with the keys of size s, {ARCHS["s"]}, and optionally {list(ABLATION)}'
    expect(whole, 'arch', arch, f'one of {list(ARCHS)} or {keys}')
    assert isinstance(arch, dict)
    for key, least in dict(dims=1, mlp_blocks=0).items():
        numbers = arch[key] if isinstance(arch[key], (tuple, list)) else ()
        whole = [is_whole(number, least) for number in numbers] == [True] * 3
        expected = f'three whole numbers from {least} on, one for every Conv-MLP stage'
        expect(whole, f'arch[{key!r}]', arch[key], expected)
    for key, least in dict(channels=2, conv_blocks=0).items():
        whole = is_whole(arch[key], least)
        expect(whole, f'arch[{key!r}]', arch[key], f'a whole number from {least} on')
    ratio = arch['mlp_ratio']
    wide = isinstance(ratio, (int, float)) and 1 <= ratio * min(arch['dims']) < math.inf
    expect(wide, "arch['mlp_ratio']", ratio, 'a number above 0')
    return {**ABLATION, **arch}
