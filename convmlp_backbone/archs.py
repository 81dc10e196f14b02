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


def resolve_arch(arch: str | dict) -> dict[str, Any]:
    """The whole dict that ``arch``, a size or a dict, stands for; ValueError if it is neither."""
    if isinstance(arch, str) and arch in ARCHS:
        arch = ARCHS[arch]
    required = set(ARCHS['s'])
    if not isinstance(arch, dict) or not required <= set(arch) <= required | set(ABLATION):
        raise ValueError(
            f'arch={arch!r}: expected one of {list(ARCHS)} or a dict with the keys of '
            f'size s, {ARCHS["s"]}, and optionally {list(ABLATION)}'
        )
    for key, least in dict(dims=1, mlp_blocks=0).items():
        value = arch[key]
        if (
            not isinstance(value, (tuple, list))
            or [isinstance(n, int) for n in value] != [True] * 3
        ):
            raise ValueError(
                f'arch[{key!r}]={value!r}: expected three numbers, one for every Conv-MLP stage'
            )
        if min(value) < least:
            raise ValueError(f'arch[{key!r}]={value!r}: expected numbers from {least} on')
    for key, least in dict(channels=2, conv_blocks=0).items():
        if not isinstance(arch[key], int) or arch[key] < least:
            raise ValueError(
                f'arch[{key!r}]={arch[key]!r}: expected a whole number from {least} on'
            )
    ratio = arch['mlp_ratio']
    if not isinstance(ratio, (int, float)) or not 1 <= ratio * min(arch['dims']) < math.inf:
        raise ValueError(f"arch['mlp_ratio']={ratio!r}: expected a number above 0")
    return {**ABLATION, **arch}
