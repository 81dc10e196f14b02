"""What of a checkpoint goes into a model, and how MMEngine is made to read every file safely."""
import re

import mmengine.runner.checkpoint
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from ..errors import CheckpointError
from .names import describe, rename_published, split_backbone, unwrap
from .published import BASE_URL, OLD_BASE_URL, SCHEME, fetch
from .reading import plain_meta, read

_trust_all = False


def load(source, trust=False, map_location='cpu'):
    """The content of the checkpoint that ``source`` stands for; see :func:`fetch`, :func:`read`."""
    return read(fetch(source), trust or _trust_all, map_location)


def load_from_convmlp(filename, map_location=None):
    """``filename`` as MMEngine's runner wants it: ``state_dict`` and ``meta`` on top."""
    checkpoint = load(filename, map_location=map_location)
    wrapper, state_dict = unwrap(checkpoint)
    if wrapper != 'state_dict':
        checkpoint = dict(checkpoint if wrapper else {}, state_dict=state_dict)
    # Runner.resume() executes this text, the config of an MMDetection 2.x checkpoint, as Python.
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


# Published checkpoints by name or address, in every process that has imported the package.
CheckpointLoader.register_scheme(
    [SCHEME, BASE_URL, OLD_BASE_URL], load_from_convmlp, force=True)


def enable_safe_loading(trust=False):
    """Make MMEngine read all checkpoints of this process by :func:`read`.

    MMEngine 0.10.7 cannot read its own training checkpoints with torch >= 2.6, and its successor
    falls back to executing what it does not know.

    Args:
        trust (bool): Run the code that files hold, if any.
    """
    global _trust_all
    _trust_all = trust
    CheckpointLoader.register_scheme(['', 'http://', 'https://'], load_from_convmlp, force=True)
    # torchvision:// and open-mmlab:// look up an address and then call this.
    mmengine.runner.checkpoint.load_from_http = load_from_convmlp


def mismatches(model, weights):
    """Why ``weights`` are not those of ``model``: one text for every name; [] if they are.

    BatchNorm's ``num_batches_tracked``, which old files lack, may be missing.
    """
    wanted = model.state_dict()
    return ([f'{n} missing' for n in wanted
             if n not in weights and not n.endswith('.num_batches_tracked')]
            + [f'{n} unknown to the model' for n in weights if n not in wanted]
            + [f'{n} {tuple(weights[n].shape)} instead of {tuple(v.shape)}'
               for n, v in wanted.items() if n in weights and weights[n].shape != v.shape])


def require_fit(model, weights, source, state_dict):
    """Raise a CheckpointError unless ``weights``, of the file's ``state_dict``, suit ``model``."""
    if wrong := mismatches(model, weights):
        more = f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''
        raise CheckpointError(f'{source} does not fit: {"; ".join(wrong[:3])}{more}. '
                              f'The file holds {describe(state_dict)}')
    spoilt = [n for n, v in weights.items() if v.is_floating_point() and not v.isfinite().all()]
    if spoilt:
        raise CheckpointError(f'{source} holds values that are not finite: {_names(spoilt)}')


def load_backbone(backbone, source, trust=False):
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
        raise CheckpointError(f'{error}; to train without these weights: '
                              '--cfg-options model.backbone.init_cfg=None') from None
    wrapper, state_dict = unwrap(load(path, trust))
    _, weights, left_out = split_backbone(state_dict)
    built = tuple(re.match(r'stages\.\d+\.|\w+\.', name)[0] for name in backbone.state_dict())
    left_out += [name for name in weights if not name.startswith(built)]
    weights = {name: v for name, v in weights.items() if name.startswith(built)}
    require_fit(backbone, weights, source, state_dict)
    missing = [name for name in backbone.state_dict() if name not in weights]
    backbone.load_state_dict(weights, strict=False)
    print_log(f'Loaded {len(weights)} tensors from {source} '
              f'({wrapper + ": " if wrapper else ""}{describe(state_dict)}); '
              f'left out: {_names(left_out)}; missing: {_names(missing)}', logger='current')


def load_model(model, source, trust=False):
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
    require_fit(model, weights, source, state_dict)
    model.load_state_dict(weights, strict=False)
    print_log(f'Loaded {len(weights)} tensors from {source}', logger='current')
    return plain_meta(checkpoint)


def _names(names):
    more = f' and {len(names) - 4} more' if len(names) > 4 else ''
    return ', '.join(names[:4]) + more if names else 'nothing'
