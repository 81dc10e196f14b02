import pickle
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

pytest.importorskip('torchvision')

from convmlp_backbone.torchvision_dataset import TorchvisionDataset  # noqa: E402

CONFIGS = Path(__file__).resolve().parents[1] / 'configs'


def test_fake_data():
    dataset = DATASETS.build(
        dict(
            type='TorchvisionDataset',
            name='FakeData',
            size=3,
            image_size=(3, 20, 10),
            num_classes=7,
        )
    )
    assert len(dataset) == 3 and len(dataset.metainfo['classes']) == 7
    image, label = dataset.dataset[1]
    item = dataset[1]
    assert item['gt_label'] == label and item['img_shape'] == (20, 10)
    np.testing.assert_array_equal(item['img'][..., ::-1], np.asarray(image))


@pytest.mark.parametrize(
    'name, entry, num_classes', [('CIFAR10', 'labels', 10), ('CIFAR100', 'fine_labels', 100)]
)
def test_local_cifar_with_the_shipped_config(name, entry, num_classes, tmp_path, monkeypatch):
    """Files as the archive has them, two images each; only their checksums are not compared."""
    pytest.importorskip('mmpretrain')
    from torchvision.datasets import cifar

    monkeypatch.setattr(cifar, 'check_integrity', lambda path, md5=None: Path(path).exists())
    cls = getattr(cifar, name)
    folder = tmp_path / cls.base_folder
    folder.mkdir()
    pixels = np.random.RandomState(0).randint(0, 256, (2, 3 * 32 * 32), dtype=np.uint8)
    for file, _ in cls.train_list + cls.test_list:
        (folder / file).write_bytes(pickle.dumps({'data': pixels, entry: [3, num_classes - 1]}))
    (folder / cls.meta['filename']).write_bytes(
        pickle.dumps({cls.meta['key']: [f'class {i}' for i in range(num_classes)]})
    )

    cfg = Config.fromfile(CONFIGS / f'convmlp_s_{name.lower()}.py')
    init_default_scope('mmpretrain')
    for loader, length in (('train_dataloader', 2 * len(cls.train_list)), ('val_dataloader', 2)):
        dataset = DATASETS.build(dict(cfg[loader].dataset, data_root=str(tmp_path)))
        assert len(dataset) == length
        assert len(dataset.metainfo['classes']) == num_classes == cfg.model.head.num_classes
        item = dataset[1]
        assert item['inputs'].shape == (3, 224, 224) and item['inputs'].dtype == torch.uint8
        assert item['data_samples'].gt_label.item() == num_classes - 1


@pytest.mark.parametrize('name', ['CIFAR10', 'CIFAR100', 'Flowers102', 'MNIST', 'SVHN'])
def test_absent_files(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=rf'{name}.*download=True'):
        TorchvisionDataset(name, str(tmp_path), split='train')


def test_wrong_names():
    with pytest.raises(ValueError, match="'Cifar10'.*CIFAR10"):
        TorchvisionDataset('Cifar10')
    with pytest.raises(ValueError, match='train and test'):
        TorchvisionDataset('CIFAR10', split='val')


def test_example_of_the_documentation(tmp_path):
    pytest.importorskip('mmpretrain')
    text = (CONFIGS.parent / 'docs/classification.md').read_text()
    example = text[text.index("    _base_ = ['configs/") :].split('\n\n')[0]
    (tmp_path / 'food.py').write_text(
        textwrap.dedent(example).replace('configs/', f'{CONFIGS.as_posix()}/')
    )
    cfg = Config.fromfile(tmp_path / 'food.py')
    for loader, split in (('train', 'train'), ('val', 'test'), ('test', 'test')):
        dataset = cfg[f'{loader}_dataloader'].dataset
        assert (dataset.name, dataset.data_root, dataset.split) == (
            'Food101',
            'data/food101',
            split,
        )
    assert cfg.model.head.num_classes == cfg.data_preprocessor.num_classes == 101


def test_training_without_the_files_ends_in_one_line(call_tool, tmp_path):
    pytest.importorskip('mmpretrain')
    error = call_tool(
        'train',
        'convmlp_s_cifar10',
        '--data-root',
        tmp_path,
        '--cfg-options',
        'model.backbone.init_cfg=None',
    )
    assert error.startswith('error: ') and '\n' not in error and 'download=True' in error
