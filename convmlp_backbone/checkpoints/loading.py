"""What of a checkpoint goes into a model, and how MMEngine is made to read every file safely."""

import difflib
import os
import re
from pathlib import Path
from typing import Any

import torch
from mmengine.fileio import get_file_backend
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)
from torch import Tensor, nn

from ..errors import CheckpointError, printable
from .download import shown
from .names import describe, rename_published, split_backbone, unwrap
from .published import BASE_URL, OLD_BASE_URL, SCHEME, fetch
from .reading import class_names, colours, plain_meta, read

# The names of weights that MMEngine looks up, by scheme.
ZOOS = {
    'torchvision': get_torchvision_models,
    'modelzoo': get_torchvision_models,
    'open-mmlab': get_external_models,
    'openmmlab': get_external_models,
    'mmcls': get_mmcls_models,
}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

_trust_all = False


def load(source: str | Path, trust: bool = False, map_location: Any = 'cpu') -> dict[Any, Any]:
    """The content of the checkpoint that ``source`` stands for; see :func:`fetch`, :func:`read`."""
    return read(fetch(source), trust or _trust_all, map_location)


def load_from_convmlp(filename: str | Path, map_location: Any = None) -> dict[Any, Any]:
    """``filename`` as MMEngine's runner wants it: ``state_dict`` and ``meta`` on top.

    Without the texts of configs, which the runner and the inferencers would run as Python, unless
    all files are trusted, and without what of ``meta`` and ``message_hub`` is malformed.
    """
    checkpoint = _load_any(str(filename), map_location)
    wrapper, state_dict = unwrap(checkpoint)
    if wrapper != 'state_dict':
        checkpoint = dict(checkpoint if wrapper else {}, state_dict=state_dict)
    return checkpoint if _trust_all else _without_configs(checkpoint)


def _load_any(name, map_location):
    """As :func:`load`, for the schemes that MMEngine knows, too."""
    if re.match(r'(\S+:)?(s3|petrel)://', name):
        try:
            backend = get_file_backend(name, backend_args=dict(backend='petrel'))
            with backend.get_local_path(name) as path:
                return load(path, map_location=map_location)
        except ImportError as error:
            raise CheckpointError(f'{name}: {error}') from None
    scheme, _, model = name.partition('://')
    if scheme not in ZOOS:
        return load(name, map_location=map_location)
    zoo = ZOOS[scheme]()
    if scheme in ('open-mmlab', 'openmmlab'):
        model = get_deprecated_model_names().get(model, model)
    if model not in zoo:
        near = difflib.get_close_matches(model, zoo, cutoff=0)
        raise CheckpointError(f'{name} is unknown; did you mean {" or ".join(near)}?')
    source = zoo[model]
    if not re.match('https?://', source):  # of a list of the user's own, in MMEngine's folder
        cache = os.environ.get('XDG_CACHE_HOME', '~/.cache')
        home = os.environ.get('MMENGINE_HOME', os.path.join(cache, 'mmengine'))
        source = os.path.join(os.path.expanduser(home), source)
    checkpoint = load(source, map_location=map_location)
    if scheme == 'mmcls':
        checkpoint = dict(
            state_dict={
                name.removeprefix('backbone.'): v
                for name, v in unwrap(checkpoint)[1].items()
                if name.startswith('backbone.')
            }
        )
    return checkpoint


def _without_configs(checkpoint):
    """``checkpoint`` without the texts of configs and what the toolboxes would stumble over."""
    checkpoint = dict(checkpoint)
    meta, hub = checkpoint.pop('meta', None), checkpoint.pop('message_hub', None)
    meta = _named_classes(meta, 'CLASSES', 'PALETTE') if isinstance(meta, dict) else {}
    dataset = meta.pop('dataset_meta', None)
    if isinstance(dataset, dict):
        meta['dataset_meta'] = _named_classes(dataset, 'classes', 'palette')
    checkpoint['meta'] = _but(meta, 'cfg', 'config')
    parts = 'log_scalars', 'runtime_info', 'resumed_keys'
    if isinstance(hub, dict) and all(isinstance(hub.get(part), dict) for part in parts):
        checkpoint['message_hub'] = dict(hub, runtime_info=_but(hub['runtime_info'], 'cfg'))
    return checkpoint


def _named_classes(meta, classes, palette):
    names = class_names(meta.get(classes))
    meta = meta if names else _but(meta, classes)
    return meta if colours(meta.get(palette), len(names or ())) else _but(meta, palette)


def _but(items, *keys):
    return {key: value for key, value in items.items() if key not in keys}


# Published checkpoints by name or address, in every process that has imported the package.
CheckpointLoader.register_scheme([SCHEME, BASE_URL, OLD_BASE_URL], load_from_convmlp, force=True)


def enable_safe_loading(trust: bool = False) -> None:
    """Make MMEngine read all checkpoints of this process by :func:`read`.

    MMEngine 0.10.7 cannot read its own training checkpoints with torch >= 2.6, and its successor
    falls back to executing what it does not know.

    Args:
        trust (bool): Run the code that files hold, if any.
    """
    global _trust_all
    _trust_all = trust
    # MMEngine takes the last by the alphabet of the patterns that a name begins with. This one is
    # behind all others, and every name begins with it, no times: no other loader is reached.
    CheckpointLoader.register_scheme('\U0010ffff*', load_from_convmlp, force=True)


def mismatches(model: nn.Module, weights: dict[str, Tensor]) -> list[str]:
    """Why ``weights`` are not those of ``model``: one text for every name; [] if they are.

    BatchNorm's ``num_batches_tracked``, which old files lack, may be missing.
    """
    wanted = model.state_dict()
    return (
        [
            f'{n} missing'
            for n in wanted
            if n not in weights and not n.endswith('.num_batches_tracked')
        ]
        + [f'{n} unknown to the model' for n in weights if n not in wanted]
        + [
            f'{n} {tuple(weights[n].shape)} instead of {tuple(v.shape)}'
            for n, v in wanted.items()
            if n in weights and weights[n].shape != v.shape
        ]
    )


def require_fit(
    model: nn.Module, weights: dict[str, Tensor], source: str | Path, state_dict: dict[str, Tensor]
) -> dict[str, Tensor]:
    """``weights``, of the file's ``state_dict``, in the types of ``model``'s own.

    Raises:
        CheckpointError: They do not suit the model, or are not all finite numbers.
    """
    wanted = model.state_dict()
    wrong = mismatches(model, weights) or [
        f'{name} is {_type(v)} instead of {_type(wanted[name])}'
        for name, v in weights.items()
        if not _converts(v.dtype, wanted[name].dtype)
    ]
    if wrong:
        more = f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''
        raise CheckpointError(
            f'{shown(source)} does not fit: {"; ".join(wrong[:3])}{more}. '
            f'The file holds {describe(state_dict)}'
        )
    weights = {name: v.to(wanted[name].dtype) for name, v in weights.items()}
    spoilt = [n for n, v in weights.items() if v.is_floating_point() and not v.isfinite().all()]
    if spoilt:
        raise CheckpointError(f'{shown(source)} holds values that are not finite: {_names(spoilt)}')
    return weights


def _converts(dtype, wanted):
    """Whether numbers of one type stand for the same in another: floats, or integers."""
    integers = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
    return dtype == wanted or any(dtype in kind and wanted in kind for kind in (FLOATS, integers))


def _type(tensor):
    return str(tensor.dtype).removeprefix('torch.')


def load_backbone(backbone: nn.Module, source: str | Path, trust: bool = False) -> None:
    """Load every tensor of a ConvMLP backbone from a checkpoint and log one line about it.

    The classifier, and whatever else surrounds the backbone in the file, is left out, as are the
    stages behind the last level that ``backbone`` returns.

    Args:
        backbone (ConvMLP): Changed in place, either wholly or not at all.
        source (str | Path): See :func:`fetch`.
        trust (bool): Run the code that the file holds, if any.

    Raises:
        CheckpointError: No such file, or not one with the weights of this backbone.
    """
    try:
        path = fetch(source)
    except CheckpointError as error:
        raise CheckpointError(
            f'{error}; to train without these weights: --cfg-options model.backbone.init_cfg=None'
        ) from None
    wrapper, state_dict = unwrap(load(path, trust))
    _, weights, left_out = split_backbone(state_dict)
    built = tuple(
        part
        for name in backbone.state_dict()
        for part in re.findall(r'^(?:stages\.\d+|\w+)\.', name)
    )
    left_out += [name for name in weights if not name.startswith(built)]
    weights = {name: v for name, v in weights.items() if name.startswith(built)}
    weights = require_fit(backbone, weights, source, state_dict)
    missing = [name for name in backbone.state_dict() if name not in weights]
    backbone.load_state_dict(weights, strict=False)
    print_log(
        printable(
            f'Loaded {len(weights)} tensors from {shown(source)} '
            f'({wrapper + ": " if wrapper else ""}{describe(state_dict)}); '
            f'left out: {_names(left_out)}; missing: {_names(missing)}'
        ),
        logger='current',
    )


def load_model(model: nn.Module, source: str | Path, trust: bool = False) -> dict[str, Any]:
    """Load every tensor of a detector, segmentor or classifier from a checkpoint and say so.

    Returns:
        dict: :func:`plain_meta` of the checkpoint.

    Raises:
        CheckpointError: No such file, or not one with the weights of this model, wholly.
    """
    checkpoint = load(source, trust)
    _, state_dict = unwrap(checkpoint)
    weights = {re.sub(r'^module\.', '', name): v for name, v in state_dict.items()}
    if hasattr(model, 'head'):  # a classifier, whose published names are others
        weights = rename_published(weights)
    model.load_state_dict(require_fit(model, weights, source, state_dict), strict=False)
    print_log(f'Loaded {len(weights)} tensors from {shown(source)}', logger='current')
    return plain_meta(checkpoint)


def _names(names):
    more = f' and {len(names) - 4} more' if len(names) > 4 else ''
    return ', '.join(names[:4]) + more if names else 'nothing'
