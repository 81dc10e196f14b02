"""Checkpoints: where the published ones lie, and what of a file goes into a model.

Also how MMEngine is made to read every file safely, see :mod:`convmlp_backbone.safe_load`.
"""
import difflib
import hashlib
import os
import re
from pathlib import Path

import mmengine.runner.checkpoint
import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from .convmlp import ARCHS
from .download import download
from .safe_load import CheckpointError, plain_meta, read

# The published checkpoints. Configs name them by SCHEME, so that the address stands only here.
BASE_URL = 'https://shi-labs.com/projects/convmlp/checkpoints/'
OLD_BASE_URL = 'http://ix.cs.uoregon.edu/~alih/conv-mlp/checkpoints/'  # in the authors' configs
SCHEME = 'convmlp://'
PUBLISHED = [
    *(f'convmlp_{size}_{data}.pth' for data in ('imagenet', 'cifar10', 'cifar100', 'flowers102')
      for size in 'sml'),
    *(f'detection/{model}_convmlp_{size}_coco.pth' for model in ('retinanet', 'maskrcnn')
      for size in 'sml'),
    *(f'segmentation/sem_fpn_convmlp_{size}_ade20k.pth' for size in 'sml')]
# name: dict(size=bytes, sha256=hexadecimal digits), for those of which they are known
KNOWN = {}
# The environment variable that names a folder with copies of published checkpoints.
FOLDER = 'CONVMLP_CHECKPOINTS'

_trust_all = False


def fetch(source):
    """The local file that ``source`` stands for, downloaded to torch hub's cache if need be.

    Args:
        source (str | Path): A path, an ``http(s)://`` address, or ``convmlp://NAME`` with one of
            :data:`PUBLISHED`. A published one is first looked for in the folder that the
            environment variable ``CONVMLP_CHECKPOINTS`` names, as ``DIR/detection/x.pth`` or
            ``DIR/x.pth``.

    Returns:
        Path: A file that exists.

    Raises:
        CheckpointError: There is no such file, or it cannot be downloaded.
    """
    source = str(source)
    base = next((b for b in (SCHEME, BASE_URL, OLD_BASE_URL) if source.startswith(b)), None)
    if base is None and not source.startswith(('http://', 'https://')):
        path = Path(source).expanduser()
        if not path.is_file():
            raise CheckpointError(f'no such checkpoint file: {path}')
        return path

    name, url, folder = Path(source).name, source, os.environ.get(FOLDER)
    cache = Path(torch.hub.get_dir(), 'checkpoints')
    if base is None:
        # Two addresses may end alike.
        target = cache / hashlib.sha256(url.encode()).hexdigest()[:8] / name
        known = {}
    else:
        published = source[len(base):]
        if published not in PUBLISHED:
            near = difflib.get_close_matches(published, PUBLISHED, cutoff=0)
            raise CheckpointError(f'{source} has not been published; did you mean '
                                  f'{" or ".join(SCHEME + n for n in near)}?')
        if folder and not Path(folder).is_dir():
            raise CheckpointError(f'{FOLDER}={folder}: no such folder')
        if folder:
            for path in (Path(folder, published), Path(folder, name)):
                if path.is_file():
                    return path
        url, target, known = BASE_URL + published, cache / name, KNOWN.get(published, {})
    try:
        download(url, target, **known)
    except OSError as error:
        here = f' ({folder} has no such file)' if base and folder else ''
        hint = f'; if you have the file, set {FOLDER} to its folder{here}' if base else ''
        raise CheckpointError(f'{error}{hint}') from None
    return target


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


def unwrap(checkpoint):
    """The key under which the weights lie, None if there is no wrapper, and the tensors there.

    As in timm, the moving average comes first; it is what the paper's figures were measured with.
    (MMEngine's EMAHook puts the average into ``state_dict`` itself.)
    """
    wrapper = next((key for key in ('state_dict_ema', 'model_ema', 'state_dict', 'model')
                    if isinstance(checkpoint.get(key), dict)), None)
    state_dict = checkpoint if wrapper is None else checkpoint[wrapper]
    return wrapper, {str(n): v for n, v in state_dict.items() if torch.is_tensor(v)}


def split_backbone(state_dict):
    """Split weights into the backbone's, by their published names, and the names of the others.

    Returns:
        tuple[str | None, dict, list]: What stood before the backbone's names, such as
        ``'module.backbone.'``, None if there is no ConvMLP; ``{name: tensor}``; the other names.
    """
    first = 'tokenizer.block.0.weight'
    prefix = next((name[:-len(first)] for name in state_dict
                   if re.fullmatch(rf'((module|model|backbone)\.)*{re.escape(first)}', name)), None)
    if prefix is None:
        return None, {}, list(state_dict)
    own = re.compile(rf'{re.escape(prefix)}(tokenizer|conv_stages|stages)\.')
    weights = {n[len(prefix):]: v for n, v in state_dict.items() if own.match(n)}
    return prefix, weights, [n for n in state_dict if not own.match(n)]


def describe(state_dict):
    """What weights look like, in a few words: ``ConvMLP-S, 185 tensors, with norm, head``."""
    prefix, weights, others = split_backbone(state_dict)
    if prefix is None:
        return f'no ConvMLP: {len(others)} tensors, {", ".join(map(str, others[:3]))} ...'
    parts = list(dict.fromkeys(name.split('.')[0] for name in others))
    where = f' behind {prefix}' if prefix else ''
    surroundings = f', with {", ".join(parts)}' if parts else ''
    return f'ConvMLP-{_size(weights)}, {len(weights)} tensors{where}{surroundings}'


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
            mlp_ratio=fc1.shape[0] // fc1.shape[1])
    except KeyError:
        return '?'
    return next((size.upper() for size, arch in ARCHS.items() if arch == found), '?')


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
    """Load every tensor of a detector or segmentor from a checkpoint of it and say so.

    Returns:
        dict: :func:`plain_meta` of the checkpoint.

    Raises:
        CheckpointError: No such file, or not one with the weights of this model, wholly.
    """
    checkpoint = load(source, trust)
    _, state_dict = unwrap(checkpoint)
    weights = {re.sub(r'^module\.', '', name): v for name, v in state_dict.items()}
    require_fit(model, weights, source, state_dict)
    model.load_state_dict(weights, strict=False)
    print_log(f'Loaded {len(weights)} tensors from {source}', logger='current')
    return plain_meta(checkpoint)


def _names(names):
    more = f' and {len(names) - 4} more' if len(names) > 4 else ''
    return ', '.join(names[:4]) + more if names else 'nothing'
