"""ConvMLP under a toolbox's own config: what changes, what stays, and what cannot be."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from tiny_models import ARCH

from convmlp_backbone.checks.model import check_model
from convmlp_backbone.commands.models import checked_config, fail
from convmlp_backbone.config import find_config, read_config
from convmlp_backbone.errors import UserError
from convmlp_backbone.replace_backbone import arch_of, replace_backbone

F = [64, 128, 256, 512]
# Config: out_indices, and what is read of entries of the model.
CHANGED = {
    'mmdet::retinanet_r50_fpn_1x_coco': ((0, 1, 2, 3), {'neck.in_channels': F}),
    'mmdet::yolov3_d53_8xb8-ms-608-273e_coco': ((1, 2, 3), {'neck.in_channels': [512, 256, 128]}),
    'mmdet::yolof_r50-c5_8xb8-1x_coco': ((3,), {'neck.in_channels': 512}),
    'mmdet::yolox_tiny_8xb8-300e_coco': ((1, 2, 3), {'neck.in_channels': F[1:]}),
    'mmdet::ssd300_coco': (
        (1, 2),
        {'neck.in_channels': [128, 256], 'neck.out_channels': [128, 256, 512, 256, 256, 256],
         'bbox_head.in_channels': [128, 256, 512, 256, 256, 256]},
    ),
    'mmdet::centernet_r18_8xb16-crop512-140e_coco': ((0, 1, 2, 3), {'neck.in_channels': 512}),
    'mmdet::faster-rcnn_r50-caffe-dc5_1x_coco': (
        (2,),
        {'rpn_head.in_channels': 256, 'roi_head.bbox_roi_extractor.out_channels': 256,
         'roi_head.bbox_head.in_channels': 256},
    ),
    'mmdet::mask2former_r50_8xb2-lsj-50e_coco': ((0, 1, 2, 3), {'panoptic_head.in_channels': F}),
    'mmdet::atss_r50_fpn_dyhead_1x_coco': ((0, 1, 2, 3), {'neck.0.in_channels': F}),
    'mmdet::soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco': (
        (0, 1, 2, 3), {'detector.neck.in_channels': F},
    ),
    'mmseg::deeplabv3plus_r50-d8_4xb2-40k_cityscapes-512x1024': (
        (0, 1, 2, 3),
        {'decode_head.in_channels': 512, 'decode_head.c1_in_channels': 64,
         'auxiliary_head.in_channels': 256, 'pretrained': None},
    ),
    'mmseg::ocrnet_hr18_4xb2-40k_cityscapes-512x1024': (
        (0, 1, 2, 3), {'decode_head.0.in_channels': F, 'decode_head.1.in_channels': F},
    ),
    'mmseg::fastfcn_r50-d32_jpu_psp_4xb2-80k_cityscapes-512x1024': (
        (1, 2, 3), {'neck.in_channels': (128, 256, 512), 'auxiliary_head.in_channels': 256},
    ),
    'mmseg::knet-s3_r50-d8_fcn_8xb2-adamw-80k_ade20k-512x512': (
        (0, 1, 2, 3),
        {'decode_head.kernel_generate_head.in_channels': 512,
         'decode_head.kernel_update_head.0.in_channels': 512,  # of the heads between
         'decode_head.kernel_update_head.0.kernel_updator_cfg.in_channels': 256},
    ),
    'mmpretrain::resnet50_8xb32_in1k': ((3,), {'head.in_channels': 512}),
    'mmpretrain::resnet50_8xb16_cifar10': ((3,), {'head.in_channels': 512}),
    'mmpretrain::mocov2_resnet50_8xb32-coslr-200e_in1k': (
        (3,), {'neck.in_channels': 512, 'neck.hid_channels': 2048},
    ),
}  # fmt: skip
REFUSED = {
    'mmdet::faster-rcnn_r50-caffe_c4-1x_coco': 'roi_head.shared_head is a stage of that backbone',
    'mmdet::cornernet_hourglass104_8xb6-210e-mstest_coco': r'strides \[4, 4\], are no pyramid',
    'mmseg::bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024': r'\[8, 8, 16\], are no pyramid',
    'mmpretrain::mae_vit-base-p16_8xb512-amp-coslr-300e_in1k': 'by itself: RuntimeError',
    'mmpretrain::resnet50-arcface_8xb32_inshop': 'no model.backbone to replace',
}


def toolbox_config(name):
    pytest.importorskip(name.partition('::')[0])
    return read_config(name)


def entry(model, path):
    for key in path.split('.'):
        model = model[int(key) if key.isdigit() else key]
    return model


@pytest.mark.parametrize('name', CHANGED)
def test_channels_follow(name):
    cfg = toolbox_config(name)
    out_indices, wanted = CHANGED[name]
    lines = replace_backbone(cfg, 'convmlp_s')
    backbone = (cfg.model.get('detector') or cfg.model).backbone
    assert backbone == dict(
        type='ConvMLP',
        arch='s',
        out_indices=out_indices,
        init_cfg=dict(type='Pretrained', checkpoint='convmlp://convmlp_s_imagenet.pth'),
    )
    found = {path: entry(cfg.model, path) for path in wanted}
    if 'neck.out_channels' in found:
        found = {path: list(value) for path, value in found.items()}
    assert found == wanted
    assert all('in_channels' in ' '.join(lines) for path in wanted if wanted[path] == F)
    check_model(cfg, fail)


@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_is_one_line(name):
    cfg = toolbox_config(name)
    with pytest.raises(UserError, match=REFUSED[name]):
        replace_backbone(cfg, 's')


def test_by_hand_is_told():
    with pytest.raises(UserError, match="By hand: model.backbone=dict.*arch='l'.*192, 384, 768"):
        replace_backbone(toolbox_config('mmdet::faster-rcnn_r50-caffe_c4-1x_coco'), 'convmlp_l')


@pytest.mark.parametrize(
    'name, arch, gives',
    [('convmlp_l', 'l', [96, 192, 384, 768]), (ARCH, None, [8, 8, 16, 24]),
     (json.dumps(ARCH), None, [8, 8, 16, 24]), ('s-pure-mlp', None, F)],
    ids=['l', 'dict', 'json', 'ablation'],
)  # fmt: skip
def test_archs(name, arch, gives):
    cfg = toolbox_config('mmdet::retinanet_r50_fpn_1x_coco')
    replace_backbone(cfg, name)
    assert cfg.model.neck.in_channels == gives
    assert cfg.model.backbone.get('init_cfg', {}).get('checkpoint') == (
        arch and f'convmlp://convmlp_{arch}_imagenet.pth'
    )
    assert MODELS.build(cfg.model.backbone | dict(init_cfg=None)).out_channels == tuple(gives)


@pytest.mark.parametrize(
    'name, words',
    [('convmlp_x', 'convmlp_x: expected convmlp_s'), ('{"channels": 8}', 'expected one of'),
     ('{channels', 'not JSON'), ('', 'expected convmlp_s')],
)  # fmt: skip
def test_wrong_archs_are_one_line(name, words):
    with pytest.raises(UserError, match=words):
        arch_of(name)


@pytest.mark.parametrize(
    'name, where, rgb',
    [('mmdet::yolox_tiny_8xb8-300e_coco', 'model.data_preprocessor', 'bgr_to_rgb'),
     ('mmdet::yolof_r50-c5_8xb8-1x_coco', 'model.data_preprocessor', 'bgr_to_rgb'),
     ('mmdet::soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco',
      'model.data_preprocessor.data_preprocessor', 'bgr_to_rgb'),
     ('mmpretrain::resnet50_8xb16_cifar10', 'data_preprocessor', 'to_rgb')],
)  # fmt: skip
def test_images_are_normalised_as_the_weights_expect(name, where, rgb):
    cfg = toolbox_config(name)
    lines = replace_backbone(cfg, 's')
    settings = entry(cfg, where)
    assert settings.mean == [123.675, 116.28, 103.53] and settings.std == [58.395, 57.12, 57.375]
    assert settings[rgb] is True and any(line.startswith(f'{where}: mean') for line in lines)


def test_no_other_weights_are_loaded():
    cfg = toolbox_config('mmdet::retinanet_r50_fpn_1x_coco')
    cfg.load_from = 'https://example.com/r50.pth'
    lines = replace_backbone(cfg, 's')
    assert cfg.load_from is None and any(line.startswith('load_from: https') for line in lines)
    assert any('optimizer SGD' in line for line in lines)


def test_a_config_that_reads_the_channels_nowhere_is_refused():
    cfg = Config(
        dict(
            default_scope='mmdet',
            model=dict(
                backbone=dict(type='ResNet', depth=18, out_indices=(0, 1)),
                bbox_head=dict(type='RetinaHead', channels_in=[64, 128]),
            ),
        )
    )
    pytest.importorskip('mmdet')
    replace_backbone(cfg, 's')  # as it gives the same
    cfg.model.backbone = dict(type='ResNet', depth=50, out_indices=(0, 1))
    with pytest.raises(UserError, match='nothing in this config says'):
        replace_backbone(cfg, 's')


def test_random_numbers_go_on_as_before():
    cfg = toolbox_config('mmdet::retinanet_r50_fpn_1x_coco')
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    replace_backbone(cfg, 's')
    assert torch.equal(torch.rand(3), expected)


# From the command line


@pytest.mark.parametrize(
    'name, words',
    [('mmdet::retinanet_r50_fpn_1x', 'did you mean retinanet/retinanet_r50_fpn_1x_coco'),
     ('mmnothing::x', 'no mmnothing with configs is installed'),
     ('os.path::x', 'no os.path with configs')],
)  # fmt: skip
def test_unknown_configs_of_toolboxes(name, words):
    pytest.importorskip('mmdet')
    with pytest.raises(UserError, match=words):
        find_config(name)


def test_the_same_config_by_all_its_names():
    pytest.importorskip('mmdet')
    names = ('retinanet_r50_fpn_1x_coco', 'retinanet/retinanet_r50_fpn_1x_coco.py')
    first, second = (find_config(f'mmdet::{name}') for name in names)
    assert first == second and first.endswith('.mim/configs/retinanet/retinanet_r50_fpn_1x_coco.py')


def test_options_come_last_and_a_dumped_config_needs_no_option(tmp_path, capsys):
    pytest.importorskip('mmdet')
    cfg = checked_config(
        'mmdet::retinanet_r50_fpn_1x_coco', {'model.backbone.drop_path_rate': 0.2}, json.dumps(ARCH)
    )
    assert cfg.model.backbone.drop_path_rate == 0.2
    assert '--backbone: model.neck.in_channels' in capsys.readouterr().out
    cfg.dump(tmp_path / 'own.py')
    again = checked_config(str(tmp_path / 'own.py'))
    assert again.model == cfg.model and 'convmlp_backbone' in again.custom_imports.imports


@pytest.mark.parametrize('command', ['get_flops', 'train'])
def test_commands(command, call_tool, coins, tmp_path):
    pytest.importorskip('mmdet')
    if command == 'get_flops':
        out = call_tool(
            command, 'mmdet::retinanet_r50_fpn_1x_coco', '--backbone', 'convmlp_s',
            '--shape', '64', '96', '--json',
        )  # fmt: skip
        (whole, *_) = json.loads(out)['rows']
        assert whole['parameters'] == 18_742_484  # as of our own config
        assert call_tool(command, 's', '--backbone', 'm').startswith('error: --backbone m: s is no')
        return
    call_tool(
        command, 'mmdet::retinanet_r18_fpn_1x_coco', '--backbone', json.dumps(ARCH),
        '--data-root', coins, '--cfg-options', 'train_cfg.max_epochs=1', 'param_scheduler=None',
        'train_dataloader.dataset.ann_file=annotations/instances_train.json',
        'train_dataloader.dataset.data_prefix.img=train/', 'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False', 'train_dataloader.dataset.indices=4',
        'train_dataloader.dataset.metainfo.classes=("coin",)', 'model.bbox_head.num_classes=1',
        'train_dataloader.dataset.pipeline.2.scale=(96,64)', 'val_dataloader=None',
        'val_cfg=None', 'val_evaluator=None', 'test_dataloader=None', 'test_cfg=None',
        'test_evaluator=None', 'optim_wrapper.optimizer.lr=1e-4', 'model.neck.out_channels=16',
        'model.bbox_head.in_channels=16', 'model.bbox_head.feat_channels=16',
    )  # fmt: skip
    assert (tmp_path / 'work_dirs/retinanet_r18_fpn_1x_coco/epoch_1.pth').exists()


def test_whatever_names_a_config_takes_it(call_tool):
    for style in ('--csv', '--json'):  # and the table alone is on the standard output
        text = call_tool('get_flops', 'fpn_convmlp_s_coins', '--backbone', 'm', style)
        assert text.startswith('module,parameters,MACs' if style == '--csv' else '{')
    answer = call_tool('get_flops', 'resnet18', '--backbone', 'm')
    assert answer.startswith('error: no config resnet18')
    empty = call_tool('get_flops', 'fpn_convmlp_s_coins', '--backbone', '')
    assert empty.startswith('error: --backbone : expected')
