"""Checkpoints in the forms that people have, with seeded weights under the published names.

The names behind the backbone are those of MMDetection 2.x and MMSegmentation 0.x.
"""

import zipfile
from argparse import Namespace
from collections import OrderedDict
from functools import cache

import golden_outputs as golden
import numpy as np
import torch

COCO_START = ('person', 'bicycle', 'car')
ADE_START = ('wall', 'building', 'sky')


def layer(name, *shape, bias=True):
    return {f'{name}.weight': shape, **({f'{name}.bias': shape[:1]} if bias else {})}


def fpn(channels):
    shapes = {}
    for i, c in enumerate(channels):
        shapes |= layer(f'neck.lateral_convs.{i}.conv', 256, c, 1, 1)
        shapes |= layer(f'neck.fpn_convs.{i}.conv', 256, 256, 3, 3)
    return shapes


def retinanet(channels, classes):
    shapes = fpn(channels[1:])
    for i in (3, 4):
        shapes |= layer(f'neck.fpn_convs.{i}.conv', 256, channels[-1] if i == 3 else 256, 3, 3)
    for i in range(4):
        shapes |= layer(f'bbox_head.cls_convs.{i}.conv', 256, 256, 3, 3)
        shapes |= layer(f'bbox_head.reg_convs.{i}.conv', 256, 256, 3, 3)
    return (
        shapes
        | layer('bbox_head.retina_cls', 9 * classes, 256, 3, 3)
        | layer('bbox_head.retina_reg', 9 * 4, 256, 3, 3)
    )


def maskrcnn(channels, classes):
    shapes = (
        fpn(channels)
        | layer('rpn_head.rpn_conv', 256, 256, 3, 3)
        | layer('rpn_head.rpn_cls', 3, 256, 1, 1)
        | layer('rpn_head.rpn_reg', 12, 256, 1, 1)
        | layer('roi_head.bbox_head.shared_fcs.0', 1024, 256 * 49)
        | layer('roi_head.bbox_head.shared_fcs.1', 1024, 1024)
        | layer('roi_head.bbox_head.fc_cls', classes + 1, 1024)
        | layer('roi_head.bbox_head.fc_reg', 4 * classes, 1024)
    )
    for i in range(4):
        shapes |= layer(f'roi_head.mask_head.convs.{i}.conv', 256, 256, 3, 3)
    return (
        shapes
        | layer('roi_head.mask_head.upsample', 256, 256, 2, 2)
        | layer('roi_head.mask_head.conv_logits', classes, 256, 1, 1)
    )


def sem_fpn(channels, classes):
    shapes = fpn(channels)
    for level, convs in enumerate((1, 1, 2, 3)):
        for i in range(convs):
            name = f'decode_head.scale_heads.{level}.{2 * i}'  # an upsampling after each
            shapes |= layer(f'{name}.conv', 128, 128 if i else 256, 3, 3, bias=False)
            shapes |= layer(f'{name}.bn', 128)
            shapes |= {
                f'{name}.bn.running_mean': (128,),
                f'{name}.bn.running_var': (128,),
                f'{name}.bn.num_batches_tracked': (),
            }
    return shapes | layer('decode_head.conv_seg', classes, 128, 1, 1)


MODELS = dict(retinanet=retinanet, maskrcnn=maskrcnn, sem_fpn=sem_fpn)


def downstream_shapes(model, size, classes):
    """``{name: shape}`` of a detector's or segmentor's checkpoint."""
    backbone = {
        n: s for n, s in golden.shapes(size).items() if not n.startswith(('norm.', 'head.'))
    }
    channels = [backbone[f'stages.{i}.blocks.0.norm1.weight'][0] for i in range(3)]
    channels.insert(0, backbone['conv_stages.conv_blocks.0.0.weight'][1])
    return {f'backbone.{n}': s for n, s in backbone.items()} | MODELS[model](channels, classes)


def seeded(shapes):
    """Small random weights; heads that see next to nothing."""
    generator = torch.Generator().manual_seed(0)
    return OrderedDict(
        (
            name,
            torch.tensor(0)
            if name.endswith('num_batches_tracked')
            else torch.rand(shape, generator=generator) + 0.5
            if name.endswith('running_var')
            else torch.randn(shape, generator=generator) * 0.02,
        )
        for name, shape in shapes.items()
    )


_published = cache(golden.weights)


def imagenet(size='s'):
    """The published classification checkpoint: a plain state_dict."""
    return OrderedDict(_published(size))


BACKBONE = {name: v for name, v in imagenet().items() if not name.startswith(('norm.', 'head.'))}


def downstream(model, size='s', classes=COCO_START, state_dict=None):
    """A checkpoint that MMDetection 2.x or MMSegmentation 0.x wrote at the end of training."""
    if state_dict is None:
        state_dict = seeded(downstream_shapes(model, size, len(classes)))
    name = 'mmseg_version' if model == 'sem_fpn' else 'mmdet_version'
    palette = np.arange(3 * len(classes)).reshape(-1, 3) % 256 if model == 'sem_fpn' else None
    meta = {
        name: '2.14.0',
        'mmcv_version': '1.3.9',
        'CLASSES': classes,
        'PALETTE': palette,
        'config': "model = dict(type='RetinaNet')\n",
        'env_info': 'sys.platform: linux',
        'seed': None,
        'exp_name': 'x.py',
        'epoch': 12,
        'iter': 87960,
        'time': 'Mon Sep  6 12:00:00 2021',
        'hook_msgs': dict(best_score=np.float64(0.372)),
    }
    steps = {
        i: dict(step=87960, exp_avg=torch.zeros(3), exp_avg_sq=torch.zeros(3)) for i in range(2)
    }
    return dict(
        meta=meta,
        state_dict=state_dict,
        optimizer=dict(state=steps, param_groups=[dict(lr=1e-6, params=[0, 1])]),
    )


def timm_training(size='s'):
    """A checkpoint of timm's train.py: raw weights, and their average, which is the better."""
    average = imagenet(size)
    return dict(
        epoch=299,
        arch=f'convmlp_{size}',
        version=2,
        metric=76.8,
        state_dict=OrderedDict((f'module.{n}', v + 1) for n, v in average.items()),
        state_dict_ema=OrderedDict((f'module.{n}', v) for n, v in average.items()),
        optimizer=dict(state={}, param_groups=[]),
        amp_scaler=dict(scale=65536.0),
        args=Namespace(model=f'convmlp_{size}', lr=5e-4, aa='rand-m9-mstd0.5'),
    )


class Code:
    """Unpickled with trust, writes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return exec, (f'open({self.path!r}, "w").close()',)


def prefixed(prefix, state_dict):
    return {prefix + name: v for name, v in state_dict.items()}


def saved(path, content):
    torch.save(content, path)
    return path


class Made:
    """Pickled as what ``function(*args)`` gives, changed by ``state``: one of a file's choice."""

    def __init__(self, function, *args, state=None):
        self.call = function, args, state

    def __reduce__(self):
        return self.call


def zipped(path, pickled, blocks={}, **options):
    """A file as ``torch.save`` writes it, of a pickle and blocks of numbers of one's choice."""
    with zipfile.ZipFile(path, 'w', **options) as archive:
        archive.writestr('x/data.pkl', pickled)
        archive.writestr('x/version', '3\n')
        for name, content in blocks.items():
            archive.writestr(f'x/data/{name}', content)
    return path


def repickled(path, change):
    """A zip file with its pickle changed; the sums of its entries are right again."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w') as archive:
        for name, content in entries.items():
            archive.writestr(name, change(content) if name.endswith('data.pkl') else content)
    return path


def tensor(size, stride, count, offset=0, storage='Float', block=b'0'):
    """A pickled dict with a tensor x, over ``count`` numbers of a block."""

    def number(n):
        return b'\x8a\x08' + n.to_bytes(8, 'little', signed=True)

    def numbers(values):
        return b'(' + b''.join(map(number, values)) + b't'

    return (
        b'\x80\x02}X\x01\0\0\0xctorch._utils\n_rebuild_tensor_v2\n(('
        b'X\x07\0\0\0storagectorch\n'
        + storage.encode()
        + b'Storage\nX'
        + len(block).to_bytes(4, 'little')
        + block
        + b'X\x03\0\0\0cpu'
        + number(count)
        + b'tQ'
        + number(offset)
        + numbers(size)
        + numbers(stride)
        + b'\x89ccollections\nOrderedDict\n)RtRs.'
    )
