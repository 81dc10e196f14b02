"""The names of weights: a file's wrapper and prefix, what it holds, how they are renamed."""

import re
from typing import Any

import torch
from torch import Tensor

from ..archs import ARCHS
from ..errors import printable


def unwrap(checkpoint: dict[Any, Any]) -> tuple[str | None, dict[str, Tensor]]:
    """The key under which the weights lie, None if there is no wrapper, and the tensors there.

    As in timm, the moving average comes first, unless there is none in it; it is what the paper's
    figures were measured with. (MMEngine's EMAHook puts the average into ``state_dict`` itself.)
    """
    found = {
        wrapper: {str(n): v for n, v in inside.items() if torch.is_tensor(v)}
        for wrapper in ('state_dict_ema', 'model_ema', 'state_dict', 'model', None)
        if isinstance(inside := checkpoint.get(wrapper) if wrapper else checkpoint, dict)
    }
    wrapper = next(filter(found.get, found), next(iter(found)))
    return wrapper, found[wrapper]


def split_backbone(
    state_dict: dict[str, Tensor],
) -> tuple[str | None, dict[str, Tensor], list[str]]:
    """Split weights into the backbone's, by their published names, and the names of the others.

    Returns:
        tuple[str | None, dict, list]: What stood before the backbone's names, such as
        ``'module.backbone.'``, None if there is no ConvMLP; ``{name: tensor}``; the other names.
    """
    first = 'tokenizer.block.0.weight'
    prefix = next(
        (
            name[: -len(first)]
            for name in state_dict
            if re.fullmatch(rf'((module|model|backbone)\.)*{re.escape(first)}', name)
        ),
        None,
    )
    if prefix is None:
        return None, {}, list(state_dict)
    own = re.compile(rf'{re.escape(prefix)}(tokenizer|conv_stages|stages)\.')
    weights = {n[len(prefix) :]: v for n, v in state_dict.items() if own.match(n)}
    return prefix, weights, [n for n in state_dict if not own.match(n)]


def describe(state_dict: dict[str, Tensor]) -> str:
    """What weights look like, in a few words: ``ConvMLP-S, 185 tensors, with norm, head``."""
    prefix, weights, others = split_backbone(state_dict)
    if prefix is None:
        return printable(f'no ConvMLP: {len(others)} tensors, {", ".join(others[:3])} ...')
    parts = list(dict.fromkeys(name.split('.')[0] for name in others))
    where = f' behind {prefix}' if prefix else ''
    surroundings = f', with {", ".join(parts)}' if parts else ''
    return printable(f'ConvMLP-{_size(weights)}, {len(weights)} tensors{where}{surroundings}')


def _size(weights):
    """``'S'``, ``'M'``, ``'L'``, or ``'?'`` where the shapes are those of none of them."""

    def count(pattern):
        return len({m[0] for m in map(re.compile(pattern).match, weights) if m})

    try:
        blocks = [f'stages.{i}.blocks.' for i in range(3)]
        fc1 = weights[blocks[0] + '0.channel_mlp1.fc1.weight']
        found = dict(
            channels=weights['tokenizer.block.6.weight'].shape[0],
            conv_blocks=count(r'conv_stages\.conv_blocks\.\d+'),
            dims=tuple(weights[b + '0.norm1.weight'].shape[0] for b in blocks),
            mlp_blocks=tuple(count(re.escape(b) + r'\d+') for b in blocks),
            mlp_ratio=fc1.shape[0] // fc1.shape[1],
        )
    except (KeyError, IndexError, ZeroDivisionError):
        return '?'
    return next((size.upper() for size, arch in ARCHS.items() if arch == found), '?')


def rename_published(state_dict: dict[str, Tensor], prefix: str = '') -> dict[str, Tensor]:
    """The weights under the names of :class:`ConvMLPClassifier`, if they have the published ones.

    Args:
        state_dict (dict[str, Tensor]): Weights with the backbone's parts, ``norm.*`` and ``head.*``
            behind ``prefix``; any other is returned as it is.
    """
    if f'{prefix}tokenizer.block.0.weight' not in state_dict:
        return dict(state_dict)
    parts = {'norm': 'head.norm', 'head': 'head.fc'}

    def rename(name):
        part, rest = name.removeprefix(prefix).split('.', 1)
        return f'{prefix}{parts.get(part, f"backbone.{part}")}.{rest}'

    return {rename(name): weight for name, weight in state_dict.items()}
