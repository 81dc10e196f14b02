"""Every shipped config, each in a fresh process in a folder of its own."""

import json
import subprocess
import sys

import pytest
from conftest import ROOT
from make_model_tables import read_models
from mmengine.config import Config

PARAMETERS = {
    model['Name']: model['Metadata']['Parameters']
    for model in read_models()
    if model['Results'][0]['Task'] != 'Image Classification'
}

PROGRAM = """
import json
import sys
import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

torch.manual_seed(0)
cfg = Config.fromfile(sys.argv[1])
init_default_scope(cfg.default_scope)
cfg.model.backbone.init_cfg = None
model = revert_sync_batchnorm(MODELS.build(cfg.model))
model.init_weights()
size = 64, 96
meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size,
            scale_factor=(1.0, 1.0), img_path='')
if cfg.default_scope == 'mmdet':
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    sample = DetDataSample(metainfo=meta)
    mask = np.zeros((1, *size), np.uint8)
    mask[:, 10:50, 20:70] = 1
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[20., 10., 70., 50.]]), labels=torch.tensor([0]),
        masks=BitmapMasks(mask, *size))
else:
    from mmseg.structures import SegDataSample
    model.data_preprocessor.size = size
    sample = SegDataSample(metainfo=meta)
    sample.gt_sem_seg = PixelData(data=torch.randint(0, 2, (1, *size)))
images = [torch.randint(0, 256, (3, *size), dtype=torch.uint8) for _ in range(2)]
data = dict(inputs=images, data_samples=[sample, sample.clone()])
model.train()
losses = model(**model.data_preprocessor(data, True), mode='loss')
loss, _ = model.parse_losses(losses)
loss.backward()
without = [name for name, p in model.named_parameters() if p.grad is None]
model.eval()
with torch.no_grad():
    results = model(**model.data_preprocessor(data, False), mode='predict')
print(json.dumps(dict(
    parameters=sum(p.numel() for p in model.parameters()), loss=loss.item(),
    losses=sorted(losses), without_gradient=without,
    neck=list(cfg.model.neck.in_channels), backbone=list(model.backbone.out_channels),
    results=['pred_instances' in r or tuple(r.pred_sem_seg.shape) == size for r in results])))
"""


@pytest.mark.parametrize(
    'name',
    [
        *PARAMETERS,
        'retinanet_convmlp_s_fpn_coins',
        'maskrcnn_convmlp_s_fpn_coins',
        'fpn_convmlp_s_coins',
        'retinanet_convmlp_s_fpn_nuclei',
    ],
)
def test_builds_trains_and_predicts(name, tmp_path):
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, ROOT / f'configs/{name}.py'],
        cwd=tmp_path,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen['parameters'] == PARAMETERS.get(name, seen['parameters'])
    assert seen['neck'] == seen['backbone']
    assert 0 < seen['loss'] < float('inf')
    # The mask head gets none where no region of the tiny image is taken for an object.
    assert [n for n in seen['without_gradient'] if 'mask_head' not in n] == []
    assert seen['results'] == [True, True]


def test_the_list_above_is_complete():
    shipped = {
        path.stem
        for task in ('retinanet', 'maskrcnn', 'fpn')
        for path in ROOT.glob(f'configs/{task}_*.py')
    }
    assert shipped - set(PARAMETERS) == {
        path for path in shipped if path.endswith(('coins', 'nuclei'))
    }


@pytest.mark.parametrize('name', PARAMETERS)
def test_recipe_of_the_paper(name):
    cfg = Config.fromfile(ROOT / f'configs/{name}.py')
    size = name.split('_')[2] if 'convmlp' == name.split('_')[1] else None
    backbone, optimizer = cfg.model.backbone, cfg.optim_wrapper.optimizer
    assert backbone.type == 'ConvMLP' and backbone.arch == size
    assert backbone.init_cfg.checkpoint.endswith(f'convmlp_{size}_imagenet.pth')
    assert backbone.get('frozen_stages', -1) == -1 and not backbone.get('norm_eval', False)
    assert optimizer.type == 'AdamW' and optimizer.weight_decay == 1e-4
    if name.startswith('fpn'):
        assert (optimizer.lr, cfg.train_dataloader.batch_size) == (2e-4, 4)
        assert cfg.train_cfg.max_iters == cfg.param_scheduler[-1].end == 40000
        assert (cfg.param_scheduler[-1].type, cfg.param_scheduler[-1].power) == ('PolyLR', 0.9)
    else:
        warm_up, steps = cfg.param_scheduler
        assert (optimizer.lr, cfg.train_dataloader.batch_size) == (1e-4, 2)
        assert (cfg.train_cfg.max_epochs, steps.milestones) == (12, [8, 11])
        assert (warm_up.start_factor, warm_up.end, warm_up.by_epoch) == (0.001, 500, False)
