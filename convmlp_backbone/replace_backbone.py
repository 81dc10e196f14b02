"""ConvMLP under a config that was written for another backbone, a toolbox's own say.

What the old backbone gives is measured, not looked up: it is built and shown an image. A part that
reads a level of so many channels then reads the ConvMLP's level in its place.
"""

import contextlib
import copy
import json
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor

from .archs import ABLATIONS, ARCHS, NAMES, resolve_arch
from .checkpoints import NORMALISATION, imagenet_weights
from .config import walk
from .convmlp import ConvMLP
from .errors import UserError

# Height and width of the images that backbones are measured with, in pixels; those of MMPretrain
# may have no strides, of SSD many.
IMAGE, SMALL_IMAGE = 320, 64
Fail = Callable[[str], NoReturn]


def arch_of(name: str | dict) -> str | dict:
    """The ``arch`` of the class ConvMLP that ``convmlp_s``, ``s``, ``s-pure-mlp`` or JSON means."""
    if isinstance(name, str) and name.lstrip().startswith('{'):
        try:
            name = json.loads(name)
        except ValueError as error:
            raise UserError(f'--backbone {name}: not JSON: {error}') from None
    if isinstance(name, dict):
        try:
            return resolve_arch(name)
        except ValueError as error:
            raise UserError(error) from None
    short = name.removeprefix('convmlp_')
    if short not in NAMES:
        expected = ', '.join(f'convmlp_{size}' for size in ARCHS)
        raise UserError(
            f'--backbone {name}: expected {expected}, one of {", ".join(NAMES[1:5])} (or m, l), '
            'or a JSON object with the keys of ARCHS in convmlp_backbone/archs.py'
        )
    size, _, part = short.partition('-')
    return {**ARCHS[size], **ABLATIONS[part]} if part else size


def replace_backbone(cfg: Config, name: str | dict) -> list[str]:
    """Put ConvMLP under the model of a config, with all that depends on the backbone.

    Changed are the backbone, with the levels of the same strides, and the published ImageNet
    weights if there are any; the channels that neck and heads read; the normalisation of the data
    preprocessor; and checkpoints of the whole model are not loaded any more.

    Args:
        cfg (Config): Of MMDetection, MMSegmentation or MMPretrain; changed in place.
        name (str | dict): ``'convmlp_s'``, any of ``NAMES`` in :mod:`convmlp_backbone.archs`, or
            an ``arch``, as a dict or as JSON.

    Returns:
        list[str]: What was changed, a line each.

    Raises:
        UserError: The config does not say where the channels go, or asks for levels that ConvMLP
            has not; the message tells what to write by hand.
    """
    arch = arch_of(name)
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    model = cfg.get('model') or {}
    # The semi-supervised methods and the trackers of MMDetection hold a detector.
    path, part = (
        ('model', model) if 'backbone' in model else ('model.detector', model.get('detector'))
    )
    if not isinstance(part, dict) or not isinstance(part.get('backbone'), dict):
        raise UserError(f'{cfg.filename}: no model.backbone to replace')
    old = part['backbone']
    fail = by_hand(cfg, path, old.get('type'), arch)
    if 'shared_head' in (part.get('roi_head') or {}):
        fail(f'{path}.roi_head.shared_head is a stage of that backbone; take a config with an FPN')
    size = SMALL_IMAGE if cfg.get('default_scope') == 'mmpretrain' else IMAGE
    before = measured(lambda: features_of(old, size), fail)
    new = dict(type='ConvMLP', arch=arch, out_indices=same_levels(before, size, fail))
    if old.get('in_channels', 3) != 3:
        new['in_channels'] = old['in_channels']
    after = measured(lambda: features_of(new, size), fail)
    lines = [
        f'{path}.backbone: {old.get("type")} {channels(before)} -> ConvMLP {channels(after)}, '
        f'out_indices={new["out_indices"]}'
    ]
    if isinstance(arch, str):
        checkpoint = imagenet_weights(arch)
        new['init_cfg'] = dict(type='Pretrained', checkpoint=checkpoint)
        lines.append(f'{path}.backbone.init_cfg: {checkpoint}')
    part['backbone'] = new
    read = fit_neck(part, path, before, after, lines, fail)
    if read:
        fit_heads(part, path, read[0], read[1], lines)
    if channels(before) != channels(after) and not any('in_channels' in line for line in lines):
        fail('nothing in this config says that it reads so many channels')
    fit_preprocessors(cfg, new, lines)
    forget_checkpoints(cfg, model, lines)
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer') or {}
    if optimizer.get('type') != 'AdamW':
        lines.append(
            f'not changed: optimizer {optimizer.get("type")}, lr={optimizer.get("lr")}; '
            "the paper's is AdamW, lr=1e-4 (detectors) or 2e-4 (segmentors), weight_decay=1e-4"
        )
    imports = cfg.get('custom_imports') or {}
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    cfg.custom_imports = {**imports, 'imports': [*names, *({'convmlp_backbone'} - set(names))]}
    return lines


def by_hand(cfg: Config, path: str, kind: Any, arch: str | dict) -> Fail:
    """A function that raises, for a reason, and tells what to write."""

    def fail(reason: str) -> NoReturn:
        size = arch if isinstance(arch, str) else '...'
        raise UserError(
            f'{cfg.filename}: ConvMLP cannot take the place of {kind} by itself: {reason}. By '
            f"hand: {path}.backbone=dict(_delete_=True, type='ConvMLP', arch='{size}', "
            'out_indices=...) with strides 4, 8, 16, 32, and its channels, '
            f'{list(channels_of(arch))}, as in_channels of neck and heads'
        )

    return fail


def channels_of(arch: str | dict) -> tuple[int, ...]:
    """Channels of F1 to F4."""
    with torch.device('meta'):
        return ConvMLP(arch).out_channels


def measured(function: Callable, fail: Fail) -> list[Tensor]:
    """What ``function`` returns; ``fail`` where a part cannot be built or run."""
    try:
        with torch.no_grad(), contextlib.redirect_stdout(None):
            found = function()
    except Exception as error:  # any code of a toolbox
        fail(f'{type(error).__name__}: {" ".join(str(error).split())[:200]}')
    found = list(found) if isinstance(found, (tuple, list)) else [found]
    if not found or not all(isinstance(level, Tensor) and level.dim() in (2, 4) for level in found):
        fail('it gives no feature maps')
    return found


def built(settings: dict) -> Any:
    """The part of these settings, to be evaluated; the random numbers stay where they are."""
    with torch.random.fork_rng([]):
        part = MODELS.build(copy.deepcopy(settings))
    part.eval()  # which returns None in some
    return part


def features_of(settings: dict, size: int) -> Any:
    """The levels that the backbone of these settings makes of an image."""
    settings = {**settings, 'init_cfg': None}
    for name in ('pretrained', 'dcn', 'plugins'):  # the latter may need operators, for nothing
        settings.pop(name, None)
    return built(settings)(torch.zeros(1, settings.get('in_channels', 3), size, size))


def channels(levels: Sequence[Tensor]) -> list[int]:
    return [level.shape[1] for level in levels]


def same_levels(levels: list[Tensor], size: int, fail: Fail) -> tuple[int, ...]:
    """The ``out_indices`` of ConvMLP that stand for these levels of an image of this size."""
    if len(levels) == 1 and size == SMALL_IMAGE:
        return (3,)  # what is pooled has no stride
    strides = [round(size / level.shape[-1]) if level.dim() == 4 else 0 for level in levels]
    if len(strides) == 4 and strides[0] == 4 and strides == sorted(strides):
        return (0, 1, 2, 3)  # one a stage; MMSegmentation's ResNets do not shrink the last two
    if any(stride not in ConvMLP.STRIDES for stride in strides):
        fail(f'its levels have strides {strides}')
    if len(set(strides)) < len(strides):
        fail(f'its levels, of strides {strides}, are no pyramid')
    return tuple(ConvMLP.STRIDES.index(stride) for stride in strides)


def fit_neck(
    part: dict,
    path: str,
    before: list[Tensor],
    after: list[Tensor],
    lines: list[str],
    fail: Fail,
) -> tuple[list[Tensor], list[Tensor]] | None:
    """Let the neck read ``after``. Returns what heads read before and now, None if the same."""
    necks = part.get('neck')
    if not necks:
        return before, after
    neck = necks[0] if isinstance(necks, (list, tuple)) else necks
    old = copy.deepcopy(neck)
    if 'in_channels' in neck:
        olds, news = channels(before), channels(after)
        value = neck['in_channels']
        changed = exchanged(value, olds, news)
        if changed is None:
            fail(f'{path}.neck.in_channels={value} are not its channels, {olds}')
        neck['in_channels'] = changed
        if changed != value:
            lines.append(f'{path}.neck.in_channels: {value} -> {changed}')
        if neck.get('type') == 'SSDNeck':  # hands its inputs on, and wants to be told so
            neck['out_channels'] = changed + type(value)(neck['out_channels'][len(changed) :])
    try:
        old_outputs = measured(lambda: built(old)(tuple(before)), fail)
    except UserError:
        if 'in_channels' in neck:
            return None  # it cannot be run here; it says itself what it reads, and gives
        raise
    outputs = measured(lambda: built(neck)(tuple(after)), fail)
    return None if channels(old_outputs) == channels(outputs) else (old_outputs, outputs)


def exchanged(value: Any, old: list[int], new: list[int]) -> Any:
    """The channels ``value``, a level's or those of some, of the new levels; None if not theirs."""
    if isinstance(value, int):
        return new[-1] if value == old[-1] else None
    if not isinstance(value, (list, tuple)):
        return None
    table = dict(zip(old, new, strict=True))
    if len(set(old)) < len(old):  # the levels are told apart by their places only
        found = list(new) if list(value) == old else [None]
    else:
        # Behind SSD's neck come levels of its own.
        found = [table.get(c) for c in value[: len(old)]] + list(value[len(old) :])
    return None if None in found else type(value)(found)


def fit_heads(
    part: dict, path: str, before: list[Tensor], after: list[Tensor], lines: list[str]
) -> None:
    """Let all that reads the backbone's or the neck's channels read the new ones."""
    old, new = channels(before), channels(after)
    for key in part:
        if key in ('backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg'):
            continue
        for where, head in walk(part[key], f'{path}.{key}'):
            for name, value in list(head.items()):
                if name not in ('in_channels', 'c1_in_channels', 'out_channels'):
                    continue
                if name == 'out_channels' and 'featmap_strides' not in head:
                    continue  # only a RoI extractor hands on what it reads
                changed = head_channels(head, name, value, old, new)
                if changed is not None and changed != value:
                    head[name] = changed
                    lines.append(f'{where}.{name}: {value} -> {changed}')


def head_channels(head: dict, name: str, value: Any, old: list[int], new: list[int]) -> Any:
    """The channels that this entry of a head is to have, None to leave it."""
    index = 0 if name == 'c1_in_channels' else head.get('in_index')
    if index is None:
        return exchanged(value, old, new)
    places = list(index) if isinstance(index, (list, tuple)) else [index]
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    if any(place >= len(old) for place in places) or values != [old[place] for place in places]:
        return None  # of what another head gives
    changed = [new[place] for place in places]
    return changed if isinstance(value, (list, tuple)) else changed[0]


def fit_preprocessors(cfg: Config, backbone: dict, lines: list[str]) -> None:
    """Images as the published weights expect them."""
    if backbone.get('in_channels', 3) != 3:
        return
    rgb = 'to_rgb' if cfg.get('default_scope') == 'mmpretrain' else 'bgr_to_rgb'
    wanted = {**NORMALISATION, rgb: True}
    found = [
        (path, settings)
        for root in ('data_preprocessor', 'model')
        for path, settings in walk(cfg.get(root), root)
        if path.endswith('data_preprocessor') and 'data_preprocessor' not in settings
    ]
    for path, settings in found:
        changes = {key: value for key, value in wanted.items() if plain(settings.get(key)) != value}
        if settings.pop('rgb_to_bgr', False):
            changes[rgb] = True
        settings.update(copy.deepcopy(changes))
        if changes:
            lines.append(
                f'{path}: ' + ', '.join(f'{key}={value}' for key, value in changes.items())
            )


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, (list, tuple)) else value


def forget_checkpoints(cfg: Config, model: dict, lines: list[str]) -> None:
    """No weights of the network that was."""
    for path, settings, key in (('', cfg, 'load_from'), ('model.', model, 'pretrained')):
        if settings.get(key):
            lines.append(f'{path}{key}: {settings[key]} -> None, weights of another network')
            settings[key] = None
