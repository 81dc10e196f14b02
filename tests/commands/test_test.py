"""convmlp test on classifiers; detectors and segmentors are tested in test_train.py."""

import json
import pickle

import pytest
import torch
from conftest import ROOT
from mmengine.visualization import Visualizer
from PIL import Image

from convmlp_backbone.commands.models import build_model


def test_classifier(call_tool, tmp_path, restore_loaders):
    pytest.importorskip('mmpretrain')
    for split in ('train', 'val'):
        for name, grey in (('dark', 20), ('bright', 220)):
            folder = tmp_path / 'photos' / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                Image.new('RGB', (64, 48), (grey + i,) * 3).save(folder / f'{i}.png')
    (tmp_path / 'two.py').write_text(f"""
_base_ = ['{ROOT}/configs/convmlp_s_clothing.py']
model = dict(head=dict(num_classes=2))
data_preprocessor = dict(num_classes=2)
test_dataloader = dict(num_workers=0, persistent_workers=False)""")
    Visualizer._instance_dict.clear()  # MMPretrain's hook would take another test's
    model, _ = build_model('two.py')
    model.head.fc.weight.data.zero_()
    model.head.fc.bias.data = torch.tensor([0.0, 1.0])  # always "dark", the second by name
    torch.save(model.state_dict(), 'x.pth')
    found = json.loads(
        call_tool(
            'test',
            'two.py',
            'x.pth',
            '--data-root',
            'photos',
            '--json',
            '--show-dir',
            'drawn',
            '--out',
            'x.pkl',
            '--fuse',
        )
    )
    assert found['accuracy/top1'] == 50
    assert len(list((tmp_path / 'drawn').rglob('*.png'))) == 4  # two of each name, in their folders
    assert 'expected a name that ends in .pkl' in call_tool(
        'test', 'two.py', 'x.pth', '--data-root', 'photos', '--out', 'x.json'
    )
    assert not (tmp_path / 'x.json').exists()
    samples = pickle.loads((tmp_path / 'x.pkl').read_bytes())
    assert [int(sample['pred_label']) for sample in samples] == [1] * 4
