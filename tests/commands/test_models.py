"""How the commands read a config and what they say where something is missing."""

import pytest
import torch
from conftest import ROOT
from mmcv.ops import RoIAlign, batched_nms
from mmengine.config import Config

from convmlp_backbone import fit_model_to_cpu
from convmlp_backbone.commands import models
from convmlp_backbone.commands.models import load_config
from convmlp_backbone.commands.options import job
from convmlp_backbone.config import find_config, set_data_root
from convmlp_backbone.errors import UserError

RETINANET = str(ROOT / 'configs/retinanet_convmlp_s_fpn_1x_coco.py')
MASK_RCNN = str(ROOT / 'configs/maskrcnn_convmlp_s_fpn_1x_coco.py')
SEMANTIC_FPN = str(ROOT / 'configs/fpn_convmlp_s_512x512_40k_ade20k.py')


def test_finds_shipped_configs_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ('retinanet_convmlp_s_fpn_1x_coco', 'configs/retinanet_convmlp_s_fpn_1x_coco.py'):
        assert find_config(name) == RETINANET
    (tmp_path / 'fpn_convmlp_s_coins.py').write_text('')
    assert find_config('fpn_convmlp_s_coins.py') == 'fpn_convmlp_s_coins.py'


def test_wrong_config_names_similar_ones():
    with pytest.raises(UserError, match='retinanet_convmlp_s_fpn_1x_coco') as error:
        find_config('configs/retinanet_convmlp_s_1x_coco.py')
    assert 'configs/retinanet_convmlp_s_1x_coco.py' in str(error.value)


@pytest.mark.parametrize(
    'config, source', [(RETINANET, 'cocodataset.org'), (SEMANTIC_FPN, 'sceneparsing.csail.mit.edu')]
)
def test_missing_data_set(config, source, tmp_path):
    with pytest.raises(UserError, match='--data-root') as error:
        load_config(job(config, data_root=str(tmp_path / 'no')), ['train'])
    assert str(tmp_path / 'no') in str(error.value) and source in str(error.value)


def test_incomplete_data_set_names_the_file(tmp_path):
    (tmp_path / 'annotations').mkdir()
    with pytest.raises(UserError, match='instances_train2017.json'):
        load_config(job(RETINANET, data_root=str(tmp_path)), ['train'])


@pytest.mark.parametrize('config', [RETINANET, SEMANTIC_FPN])
def test_data_root_reaches_every_data_set_and_evaluator(config, tmp_path):
    cfg = Config.fromfile(config)
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset
    )
    set_data_root(cfg, str(tmp_path))
    assert cfg.train_dataloader.dataset.dataset.data_root == str(tmp_path)
    for split in ('val', 'test'):
        assert cfg[f'{split}_dataloader'].dataset.data_root == str(tmp_path)
        if 'ann_file' in cfg[f'{split}_evaluator']:
            assert cfg[f'{split}_evaluator'].ann_file == str(
                tmp_path / 'annotations/instances_val2017.json'
            )


def test_without_gpu_sync_bn_becomes_bn(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(models, 'get_device', lambda: 'cpu')
    cfg = load_config(job(SEMANTIC_FPN), [])
    assert cfg.model.decode_head.norm_cfg.type == 'BN'
    assert 'BN instead of SyncBN' in capsys.readouterr().out
    assert cfg.work_dir == 'work_dirs/fpn_convmlp_s_512x512_40k_ade20k'


def test_without_gpu_roi_align_is_torchvisions(monkeypatch, capsys):
    monkeypatch.setattr(models, 'get_device', lambda: 'cpu')
    roi_head = load_config(job(MASK_RCNN), []).model.roi_head
    layers = [roi_head[f'{part}_roi_extractor'].roi_layer for part in ('bbox', 'mask')]
    assert [layer.pop('use_torchvision') for layer in layers] == [True, True]
    assert layers[0].pop('type') == 'RoIAlign'
    assert "torchvision's RoIAlign" in capsys.readouterr().out
    x, rois = torch.randn(2, 3, 20, 30), torch.tensor([[0, 5, 7, 90, 50], [1, -9, 30.5, 31, 99]])
    results = []
    for extra in ({}, dict(use_torchvision=True)):
        x = x.detach().requires_grad_()
        output = RoIAlign(**layers[0], spatial_scale=0.25, **extra)(x, rois)
        output.square().sum().backward()
        results.append((output.detach(), x.grad))
    torch.testing.assert_close(*results)


def test_without_gpu_nms_goes_class_by_class(monkeypatch, capsys):
    monkeypatch.setattr(models, 'get_device', lambda: 'cpu')
    changed = load_config(job(MASK_RCNN), []).model.test_cfg.rpn.nms
    assert 'NMS level by level' in capsys.readouterr().out
    boxes = torch.rand(200, 4).mul(50).cumsum(1)
    scores, classes = torch.randperm(200) / 200, torch.arange(200) % 3
    usual = {key: changed[key] for key in ('type', 'iou_threshold')}
    torch.testing.assert_close(
        batched_nms(boxes, scores, classes, changed), batched_nms(boxes, scores, classes, usual)
    )


def test_without_gpu_class_agnostic_nms_stays():
    nms = dict(type='nms', iou_threshold=0.5, class_agnostic=True)
    assert fit_model_to_cpu(dict(test_cfg=dict(nms=nms))) == []
    assert nms == dict(type='nms', iou_threshold=0.5, class_agnostic=True)


def test_with_gpu_the_config_stays(monkeypatch, capsys):
    monkeypatch.setattr(models, 'get_device', lambda: 'cuda')
    text = load_config(job(MASK_RCNN), []).dump()
    assert 'use_torchvision' not in text and 'split_thr' not in text
    cfg = load_config(job(SEMANTIC_FPN), [])
    assert cfg.model.decode_head.norm_cfg.type == 'SyncBN'
    assert 'model_wrapper_cfg' not in cfg
    # The forks say so of themselves, when they are imported first.
    said = [s for s in capsys.readouterr().out.splitlines() if 'import OneDL' not in s]
    assert said == []


# One road: whatever the command, a config with a mistake is one line

BROKEN = dict(
    syntax=('model = dict(', 'SyntaxError'),
    base=('_base_ = ["nowhere.py"]', 'nowhere.py'),
    program=('x = 1 / 0', 'ZeroDivisionError'),
    model=('model = 3', 'model=3: expected a dict'),
    argument=(
        "_base_ = ['{configs}/retinanet_convmlp_s_fpn_coins.py']\n"
        'model = dict(backbone=dict(frozen_stage=1))',
        'did you mean frozen_stages',
    ),
    head=(
        "_base_ = ['{configs}/retinanet_convmlp_s_fpn_coins.py']\n"
        "model = dict(bbox_head=dict(type='RetinaHeadd'))",
        'RetinaHeadd',
    ),
    dataset=(
        "_base_ = ['{configs}/convmlp_s_clothing.py']\n"
        "train_dataloader = test_dataloader = dict(dataset=dict(type='CustomDataste'))",
        'CustomDataste',
    ),
    unknown=(
        "_base_ = ['{configs}/convmlp_s_cifar10.py']\nmodel = dict(head=dict(num_clases=10))",
        'num_clases',
    ),
)
COMMANDS = dict(
    # The data is another matter.
    train=['{config}', '--data-root', '{coins}', '--no-check'],
    test=['{config}', 'x.pth', '--data-root', '{coins}', '--no-check'],
    predict=['{config}', 'x.pth', '{photo}', '--out-dir', 'out'],
    get_flops=['{config}'],
    export=['{config}', 'x.onnx'],
    visualize_features=['{photo}', '{config}'],
    grad_cam=['{photo}', '{config}'],
)


@pytest.mark.parametrize('mistake', BROKEN)
@pytest.mark.parametrize('command', [*COMMANDS, 'check_dataset'])
def test_mistake_in_a_config(command, mistake, call_tool, coins, tmp_path, restore_loaders):
    text, words = BROKEN[mistake]
    if mistake in dict(train=(), test=(), check_dataset=('head', 'unknown', 'dataset')).get(
        command, ('dataset',)
    ):
        pytest.skip('looks at other parts of the config, or says more than a line')
    (tmp_path / 'x.py').write_text(text.replace('{configs}', str(ROOT / 'configs')))
    torch.save(dict(state_dict={}), tmp_path / 'x.pth')
    error = call_tool(
        command,
        *(
            arg.format(config='x.py', photo=ROOT / 'docs/demo.png', coins=coins)
            for arg in COMMANDS.get(command, COMMANDS['train'])
        ),
    )
    assert error.startswith('error: ') and words in error and '\n' not in error
    assert 'x.py' in error or 'model.' in error
