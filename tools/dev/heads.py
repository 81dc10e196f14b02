"""Try ConvMLP under heads of every kind and write the tables of docs/heads.md.

  python tools/dev/heads.py                     all heads: 20 minutes
  python tools/dev/heads.py mmseg:: retinanet   those with one of these in PACKAGE::NAME

A head is the toolbox's own config, with ConvMLP put under it as ``--backbone`` does, in a tiny
arch, and fewer proposals and queries. Rows that are not tried, for their package is not here or
they were not asked for, stay what they are.
"""

import argparse
import copy
import random
import re
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import MessageHub, MMLogger
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

import convmlp_backbone  # noqa: F401  before mmcv.ops, whose operators it may have to offer
from convmlp_backbone import recompute
from convmlp_backbone.config import read_config, walk
from convmlp_backbone.cpu import fit_model_to_cpu
from convmlp_backbone.deploy.agreement import agreement, open_file
from convmlp_backbone.deploy.facts import facts_of
from convmlp_backbone.deploy.files import trace, unfinished
from convmlp_backbone.deploy.models import exportable
from convmlp_backbone.errors import UserError
from convmlp_backbone.network import Network
from convmlp_backbone.replace_backbone import replace_backbone

PAGE = Path(__file__).resolve().parents[2] / 'docs/heads.md'
ARCH = dict(channels=8, conv_blocks=1, dims=(8, 16, 24), mlp_blocks=(1, 2, 1), mlp_ratio=2)
SIZE = (64, 96)  # height and width of the image, in pixels; odd ones are 11 more
NO_EXPORT = 'no export of this head'
LARGER = {
    'ssd300_coco': (300, 300),
    'rtmdet_tiny_8xb32-300e_coco': (128, 192),
    'PAN': (128, 192),
}  # else a level of theirs were empty

DETECTORS = {
    'Two-stage': """
        faster-rcnn_r50_fpn_1x_coco cascade-rcnn_r50_fpn_1x_coco libra-faster-rcnn_r50_fpn_1x_coco
        dh-faster-rcnn_r50_fpn_1x_coco dynamic-rcnn_r50_fpn_1x_coco sabl-faster-rcnn_r50_fpn_1x_coco
        grid-rcnn_r50_fpn_gn-head_1x_coco faster-rcnn_r50_pafpn_1x_coco
        faster-rcnn_r50-caffe-dc5_1x_coco faster-rcnn_r50_fpn_pisa_1x_coco
        sparse-rcnn_r50_fpn_1x_coco""",
    'Dense': """
        retinanet_r50_fpn_1x_coco atss_r50_fpn_1x_coco atss_r50_fpn_dyhead_1x_coco
        fcos_r50-caffe_fpn_gn-head_1x_coco gfl_r50_fpn_1x_coco paa_r50_fpn_1x_coco
        tood_r50_fpn_1x_coco vfnet_r50_fpn_1x_coco ddod_r50_fpn_1x_coco fsaf_r50_fpn_1x_coco
        fovea_r50_fpn_4xb4-1x_coco autoassign_r50-caffe_fpn_1x_coco freeanchor_r50_fpn_1x_coco
        retinanet_r50_fpn_ghm-1x_coco reppoints-moment_r50_fpn_1x_coco
        sabl-retinanet_r50_fpn_1x_coco yolov3_d53_8xb8-ms-608-273e_coco yolof_r50-c5_8xb8-1x_coco
        yolox_tiny_8xb8-300e_coco rtmdet_tiny_8xb32-300e_coco ssd300_coco
        centernet_r18_8xb16-crop512-140e_coco centernet-update_r50-caffe_fpn_ms-1x_coco
        retinanet_r50_nasfpn_crop640-50e_coco cornernet_hourglass104_8xb6-210e-mstest_coco""",
    'Transformer': """
        detr_r50_8xb2-150e_coco conditional-detr_r50_8xb2-50e_coco dab-detr_r50_8xb2-50e_coco
        deformable-detr_r50_16xb2-50e_coco dino-4scale_r50_8xb2-12e_coco
        ddq-detr-4scale_r50_8xb2-12e_coco""",
    'Instance': """
        mask-rcnn_r50_fpn_1x_coco cascade-mask-rcnn_r50_fpn_1x_coco ms-rcnn_r50-caffe_fpn_1x_coco
        point-rend_r50-caffe_fpn_ms-1x_coco htc-without-semantic_r50_fpn_1x_coco
        scnet_r50_fpn_1x_coco queryinst_r50_fpn_1x_coco solo_r50_fpn_1x_coco
        decoupled-solo_r50_fpn_1x_coco solov2_r50_fpn_1x_coco yolact_r50_1xb8-55e_coco
        condinst_r50_fpn_ms-poly-90k_coco_instance rtmdet-ins_tiny_8xb32-300e_coco
        mask2former_r50_8xb2-lsj-50e_coco""",
    'Panoptic': """
        panoptic-fpn_r50_fpn_1x_coco maskformer_r50_ms-16xb1-75e_coco
        mask2former_r50_8xb2-lsj-50e_coco-panoptic""",
    'Semi-supervised': 'soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco',
}
SEGMENTORS = """
    ann_r50-d8_4xb2-40k_cityscapes-512x1024 apcnet_r50-d8_4xb2-40k_cityscapes-512x1024
    ccnet_r50-d8_4xb2-40k_cityscapes-512x1024 danet_r50-d8_4xb2-40k_cityscapes-512x1024
    deeplabv3_r50-d8_4xb2-40k_cityscapes-512x1024 deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024
    dmnet_r50-d8_4xb2-40k_cityscapes-512x1024 dnl_r50-d8_4xb2-40k_cityscapes-512x1024
    emanet_r50-d8_4xb2-80k_cityscapes-512x1024 encnet_r50-d8_4xb2-40k_cityscapes-512x1024
    fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024 fcn_r50-d8_4xb2-40k_cityscapes-512x1024
    fpn_r50_4xb4-160k_ade20k-512x512 gcnet_r50-d8_4xb2-40k_cityscapes-512x1024
    isanet_r50-d8_4xb2-40k_cityscapes-512x1024 knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512
    nonlocal_r50-d8_4xb2-40k_cityscapes-512x1024 ocrnet_hr18_4xb2-40k_cityscapes-512x1024
    pointrend_r50_4xb2-80k_cityscapes-512x1024 psanet_r50-d8_4xb2-40k_cityscapes-512x1024
    pspnet_r50-d8_4xb2-40k_cityscapes-512x1024 segformer_mit-b0_8xb2-160k_ade20k-512x512
    segnext_mscan-t_1xb16-adamw-160k_ade20k-512x512 upernet_r50_4xb2-40k_cityscapes-512x1024
    maskformer_r50-d32_8xb2-160k_ade20k-512x512 mask2former_r50_8xb2-160k_ade20k-512x512
    bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024"""
CLASSIFIERS = {
    'Classifiers': """
        resnet50_8xb32_in1k resnet50_8xb16_cifar10 resnet50_8xb8_cub
        resnet101-csra_1xb16_voc07-448px resnet50-arcface_8xb32_inshop""",
    'Self-supervised': """
        mocov2_resnet50_8xb32-coslr-200e_in1k mocov3_resnet50_8xb512-amp-coslr-100e_in1k
        simclr_resnet50_8xb32-coslr-200e_in1k byol_resnet50_16xb256-coslr-200e_in1k
        simsiam_resnet50_8xb32-coslr-100e_in1k barlowtwins_resnet50_8xb256-coslr-300e_in1k
        swav_resnet50_8xb32-mcrop-coslr-200e_in1k-224px-96px densecl_resnet50_8xb32-coslr-200e_in1k
        mae_vit-base-p16_8xb512-amp-coslr-300e_in1k""",
}
SMALLER = dict(  # entries of a config that only cost time
    num_queries=20, num_proposals=20, nms_pre=50, max_per_img=20, num_points=64
)


def seed() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


class Head:
    """A model, how it is trained on a batch of one image, and asked."""

    model: torch.nn.Module
    size: tuple[int, int]
    scope: str

    @property
    def backbones(self) -> list[Network]:
        return [m for m in self.model.modules() if isinstance(m, Network)]

    def loss(self) -> torch.Tensor:
        """The loss of the next step; the same again if nothing was learned in between."""
        raise NotImplementedError

    def predict(self, size: tuple[int, int]):
        """What it finds in an image of this height and width."""
        raise NotImplementedError


class Configured(Head):
    """Of a toolbox's config, with ConvMLP under it; or as it is, its ``own``."""

    def __init__(self, scope: str, name: str, own: bool = False):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            self.cfg = read_config(f'{scope}::{name}')
            if own:
                self.cfg.model.pop('pretrained', None)
                for _, part in walk(self.cfg.model):
                    part.pop('init_cfg', None)
            else:
                replace_backbone(self.cfg, ARCH)
            smaller(self.cfg.model)
            fit_model_to_cpu(self.cfg.model)
            self.cfg.model.setdefault('data_preprocessor', self.cfg.get('data_preprocessor'))
            init_default_scope(scope)
            seed()
            self.model = MODELS.build(copy.deepcopy(self.cfg.model))
            self.model.init_weights()
        self.scope, self.size = scope, LARGER.get(name, SIZE)
        self.batch = dict(mmdet=detection, mmseg=segmentation, mmpretrain=classification)[scope]
        self.model.train()
        MessageHub.get_current_instance().update_info('max_iters', 100)  # for schedules of momentum
        MessageHub.get_current_instance().update_info('iter', 0)

    def loss(self):
        seed()
        self.model.train()
        data = self.model.data_preprocessor(self.batch(self, self.size), True)
        queue = getattr(self.model, 'queue', None)
        kept = None if queue is None else queue.clone()
        loss = self.model.parse_losses(self.model(**data, mode='loss'))[0]
        if queue is not None:
            queue.copy_(kept)  # else MoCo would tell an image from itself
        return loss

    def predict(self, size):
        seed()
        self.model.eval()
        with torch.no_grad():
            if self.views:
                return self.model.extract_feat(torch.zeros(1, 3, *size))
            data = self.model.data_preprocessor(self.batch(self, size, training=False), False)
            return self.model(**data, mode='predict')

    @property
    def views(self) -> bool:
        """Whether it learns by several views of an image, without labels."""
        return type(self.model.data_preprocessor).__name__.startswith('SelfSup')


class Elsewhere(Head):
    """The same, of another framework."""

    def __init__(self, package, name):
        from heads_elsewhere import ELSEWHERE

        seed()
        self.size, self.scope = LARGER.get(name, SIZE), package
        self.model, self._loss, self._predict = ELSEWHERE[package](name)
        self.model.train()

    def loss(self):
        seed()
        self.model.train()
        image, boxes = photo(self.size)
        return self._loss(self.model, torch.stack([image, image]) / 255, boxes)

    def predict(self, size):
        seed()
        self.model.eval()
        with torch.no_grad():
            return self._predict(self.model, photo(size)[0][None] / 255)


def smaller(model):
    """The same model with less of all that only costs time."""
    for path, part in walk(model):
        for key, value in SMALLER.items():
            if isinstance(part.get(key), int) and part[key] > value and 'loss' not in path:
                part[key] = value
        for key in ('in_channels', 'hid_channels', 'out_channels'):
            if part.get(key) == 8192:  # of Barlow Twins
                part[key] = 256
        if 'Sampler' in str(part.get('type')) and part.get('num', 0) > 32:
            part['num'] = 32
        if part.get('type') == 'SegDataPreProcessor':
            part['size'] = SIZE
        if part.get('type') == 'DetDataPreprocessor':
            part.setdefault('pad_size_divisor', 32)  # as the pipelines of YOLOX and RTMDet do
        if part.get('type') == 'BatchSyncRandomResize':
            part['interval'] = 1000
        if 'batch_augments' in part:
            part['batch_augments'] = None


def photo(size):
    """An image of two bright boxes on noise, (3, height, width), and the boxes (2, 4)."""
    height, width = size
    image = torch.randint(0, 60, (3, height, width), dtype=torch.uint8)
    boxes = torch.tensor([[0.1, 0.15, 0.45, 0.7], [0.5, 0.3, 0.95, 0.9]])
    boxes = (boxes * torch.tensor([width, height] * 2)).round()
    for n, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
        image[n, y1:y2, x1:x2] += 150
    return image, boxes


def detection(head, size, training=True):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    image, boxes = photo(size)
    sample = DetDataSample(
        metainfo=dict(
            img_shape=size,
            ori_shape=size,
            scale_factor=(1.0, 1.0),
            flip=False,
            flip_direction=None,
            img_id=0,
            homography_matrix=np.eye(3, dtype='f4'),
            border=np.array([0, size[0], 0, size[1]]),
        )
    )
    masks = np.zeros((2, *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = 1
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0, 1]))
    if any(
        part.get('with_mask') or part.get('type') == 'LoadPanopticAnnotations'
        for _, part in walk(dict(head.cfg.items()))
    ):
        sample.gt_instances.masks = BitmapMasks(masks, *size)
    sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0).long())
    sample.gt_sem_seg = PixelData(
        sem_seg=torch.from_numpy(masks[0] + 2 * masks[1]).long()[None].clamp(max=1)
    )
    if training and type(head.model).__name__ == 'SoftTeacher':
        names = ('sup', 'unsup_teacher', 'unsup_student')
        return dict(
            inputs={name: [image.clone(), image.clone()] for name in names},
            data_samples={name: [copy.deepcopy(sample) for _ in range(2)] for name in names},
        )
    number = 2 if training else 1
    return dict(
        inputs=[image.clone() for _ in range(number)],
        data_samples=[copy.deepcopy(sample) for _ in range(number)],
    )


def segmentation(head, size, training=True):
    from mmseg.structures import SegDataSample

    image, boxes = photo(size)
    labels = torch.zeros(1, *size, dtype=torch.long)
    for n, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
        labels[:, y1:y2, x1:x2] = n + 1
    sample = SegDataSample(
        metainfo=dict(img_shape=size, ori_shape=size, flip=False, img_path='', pad_shape=size),
        gt_sem_seg=PixelData(data=labels),
    )
    number = 2 if training else 1
    return dict(
        inputs=[image] * number, data_samples=[copy.deepcopy(sample) for _ in range(number)]
    )


def classification(head, size, training=True):
    from mmpretrain.structures import DataSample

    image, _ = photo(size)
    number = 2 if training else 1
    if head.views:
        views = 8 if type(head.model).__name__ == 'SwAV' else 2
        images = [(image + 40 * n).roll(20 * n, 2) for n in range(4)]  # what is contrasted differs
        return dict(
            inputs=[
                torch.stack([255 - x.flip(2) if v % 2 else x for x in images]) for v in range(views)
            ],
            data_samples=[DataSample() for _ in images],
        )
    sample = DataSample()
    if head.cfg.data_preprocessor.get('to_onehot'):
        sample.set_gt_score(torch.eye(head.cfg.data_preprocessor.num_classes)[3])
    else:
        sample.set_gt_label(3)
    return dict(inputs=torch.stack([image] * number), data_samples=[sample] * number)


# The columns: each returns whether it holds, None where it means nothing, or raises why not.


def steps(head, number, lr=1e-3):
    """The losses of that many steps on one image."""
    optimizer = torch.optim.AdamW(
        [p for p in head.model.parameters() if p.requires_grad], lr=lr, weight_decay=0
    )
    for _ in range(number):
        optimizer.zero_grad()
        loss = head.loss()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.model.parameters(), 10)
        optimizer.step()
        yield loss.item()


def loss_falls(head):
    """The loss falls over a few steps on one image, by 3 percent at least, with some rate."""
    state = copy.deepcopy(head.model.state_dict())
    for lr, number in ((1e-3, 10), (1e-4, 10), (1e-2, 40)):
        head.model.load_state_dict(state, strict=False)
        losses = []
        for loss in steps(head, number, lr):
            losses.append(loss)
            if loss < 0.97 * losses[0]:
                return True
    raise AssertionError('the loss does not fall')


def odd_size(head):
    """It predicts for an image whose sides no stride divides."""
    head.predict(tuple(n + 11 for n in head.size))
    return True


def with_cp(head):
    """The same loss and the same gradients."""
    found = []
    state = copy.deepcopy(head.model.state_dict())
    for on in (False, True):
        head.model.load_state_dict(state, strict=False)
        for backbone in head.backbones:
            recompute.apply(backbone, on)
        head.model.zero_grad()
        loss = head.loss()
        loss.backward()
        grads = [
            p.grad.norm() for b in head.backbones for p in b.parameters() if p.grad is not None
        ]
        found.append(torch.stack([loss.detach(), *grads]))
    for backbone in head.backbones:
        recompute.apply(backbone, False)
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-5)
    return True


def frozen(head):
    """What makes F1 and F2 stays as it is, statistics included, and the rest learns."""
    if not all(hasattr(backbone, 'frozen_stages') for backbone in head.backbones):
        return None  # timm's have no such argument
    for backbone in head.backbones:
        backbone.frozen_stages = 1
    head.model.train()
    parts = [
        part
        for b in head.backbones
        if any(p.requires_grad for p in b.parameters())  # no teacher, no momentum encoder
        for part in (b.tokenizer, b.conv_stages)
    ]
    before = [copy.deepcopy(part.state_dict()) for part in parts]
    for loss in steps(head, 2):
        assert np.isfinite(loss), loss
    for part, state in zip(parts, before, strict=True):
        assert all(torch.equal(v, state[k]) for k, v in part.state_dict().items()), 'it moved'
    assert any(p.grad is not None for b in head.backbones for p in b.stages.parameters())
    return True


def exports(head):
    """`convmlp export` writes it, and the file predicts the same."""
    if head.scope not in ('mmdet', 'mmseg', 'mmpretrain'):
        return None  # which is the framework's own matter
    model = MODELS.build(copy.deepcopy(head.cfg.model)).eval()  # which holds no training's tensors
    model.load_state_dict(head.model.state_dict(), strict=False)
    preprocessor = head.cfg.model.data_preprocessor
    if head.scope == 'mmseg':
        preprocessor = {**preprocessor, 'size': None}
    module = exportable(copy.deepcopy(model), preprocessor)
    image = photo((96, 128))[0].permute(1, 2, 0).numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, 'model.pt2')
        with unfinished(trace(module), path, facts_of(head.cfg, module, None)) as part:
            list(
                agreement(model, open_file(part), [image], sizes=[SIZE, (75, 107)], batches=[1, 2])
            )
    return True


CELLS: dict[str, Callable] = {
    'odd size': odd_size,
    '`with_cp`': with_cp,
    'loss falls': loss_falls,
    'frozen': frozen,
    'exports': exports,
}


def reason(error: Exception) -> str:
    """Why not, in a few words."""
    text = ' '.join(str(error).split())
    for pattern, words in (
        (r'torchvision has no (\w+)', r"needs MMCV's operator \1"),
        (r'pip install (\w+)', r'needs the package \1'),
        (r'(no model.backbone to replace)', r'\1'),
        (r'by itself: (.*?)\. By hand', r'\1'),
        (r'\w+ with .*cannot be exported|has no ConvMLP to export', NO_EXPORT),
        (r'^cannot be exported: (\w+): ([\w .()-]{0,60})', r'no export: \1: \2'),
        (r'not written: (.*?), at most', r'no export: \1'),
        (r'(\S+=\S+) cannot be exported', r'not with \1'),
    ):
        if found := re.search(pattern, text):
            return found.expand(words)
    text = re.sub(r'[^\w .,:;=()-]', '', text)  # which Markdown would read otherwise
    return f'{type(error).__name__}: {text[:80]}'


def try_cell(scope: str, name: str, head: Head, column: str) -> tuple[bool | None, str]:
    """Whether it holds, and why not."""
    try:
        return CELLS[column](head), ''
    except Exception as error:
        why = reason(error)
        if not isinstance(error, UserError) and isinstance(head, Configured):
            try:
                CELLS[column](Configured(scope, name, own=True))
            except Exception as theirs:
                if reason(theirs) == why:
                    why += ', with its own backbone too'
        return False, why


def try_head(scope: str, name: str, columns=tuple(CELLS)) -> dict[str, tuple[bool | None, str]]:
    """``{column: (whether it holds, why not)}`` of these columns, ``'builds'`` first."""
    try:
        head = (Configured if scope.startswith('mm') else Elsewhere)(scope, name)
    except Exception as error:
        return {'builds': (False, reason(error))}
    return {'builds': (True, ''), **{c: try_cell(scope, name, head, c) for c in columns}}


def row(name: str, cells: dict[str, tuple[bool | None, str]]) -> str:
    """The line of the table."""
    signs = {True: 'yes', False: 'no', None: '–'}
    found = [signs[cells.get(column, (None, ''))[0]] for column in ('builds', *CELLS)]
    whys = dict.fromkeys(why for _, why in cells.values() if why)
    whys.pop(NO_EXPORT, None)  # which the introduction tells
    return f'| `{name}` | {" | ".join(found)} | {"; ".join(whys)} |'


def rows_of(page: str) -> dict[tuple[str, str], str]:
    """``{(group, name): line}`` of the page's tables."""
    group, found = '', {}
    for line in page.splitlines():
        if line.startswith('## '):
            group = line[3:]
        elif match := re.match(r'\| `(.+?)` \|', line):
            found[group, match[1]] = line
    return found


def with_rows(page: str, rows: dict[tuple[str, str], str]) -> str:
    """The page with these rows, in the order of ``HEADS``, behind its introduction."""
    first = next(iter(HEADS))[1]
    text = [page.partition(f'\n## {first}\n')[0].rstrip()]
    for (_, group), names in HEADS.items():
        text.append(f'\n## {group}\n')
        text.append(f'| config | builds | {" | ".join(CELLS)} | why not |')
        text.append('|---' * (len(CELLS) + 3) + '|')
        text += [rows[group, name] for name in names if (group, name) in rows]
    return '\n'.join(text) + '\n'


HEADS = {
    **{('mmdet', group): names.split() for group, names in DETECTORS.items()},
    ('mmseg', 'Semantic segmentation'): SEGMENTORS.split(),
    **{('mmpretrain', group): names.split() for group, names in CLASSIFIERS.items()},
    ('transformers', 'transformers, `TimmBackbone`'): ['RTDetr', 'Detr'],
    ('segmentation_models_pytorch', 'segmentation_models.pytorch'): [
        'Unet', 'UnetPlusPlus', 'FPN', 'PSPNet', 'DeepLabV3Plus', 'PAN', 'UPerNet',
    ],
    ('torchvision', 'torchvision'): ['RetinaNet', 'FCOS', 'FasterRCNN', 'MaskRCNN'],
    ('lightning', 'Lightning'): ['Trainer'],
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('words', nargs='*')
    words = parser.parse_args().words
    torch.set_num_threads(1)
    MMLogger.get_current_instance().setLevel('ERROR')
    for (scope, group), names in HEADS.items():
        for name in names:
            if words and not any(word in f'{scope}::{name}' for word in words):
                continue
            if find_spec(scope) is None:
                print(f'{scope}::{name}: left out, {scope} is not here')
                continue
            start = time.time()
            line = row(name, try_head(scope, name))
            print(f'{time.time() - start:5.1f} s {line}', flush=True)
            page = PAGE.read_text()
            PAGE.write_text(with_rows(page, {**rows_of(page), (group, name): line}))


if __name__ == '__main__':
    main()
