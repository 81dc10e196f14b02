"""From the folders of the Data Science Bowl 2018 to COCO's format."""

import json

import make_nuclei_dataset as tool
import numpy as np
import pytest
from pycocotools.coco import COCO
from skimage import io

from convmlp_backbone.errors import UserError


def write_image(folder, background, nuclei):
    """An image as in stage1_train.zip: RGBA, and a mask for every (top, left, height, width)."""
    (folder / 'images').mkdir(parents=True)
    (folder / 'masks').mkdir()
    image = np.full((256, 256, 4), background, np.uint8)
    for number, (top, left, height, width) in enumerate(nuclei):
        mask = np.zeros((256, 256), np.uint8)
        mask[top : top + height, left : left + width] = 255
        image[mask > 0] = 200
        io.imsave(folder / f'masks/{number}.png', mask, check_contrast=False)
    io.imsave(folder / 'images/x.png', image, check_contrast=False)


def test_boxes_and_masks(tmp_path, monkeypatch):
    monkeypatch.setattr(tool, 'NUM_TRAIN', 2)
    monkeypatch.setattr(tool, 'NUM_VAL', 1)
    for name in 'abc':
        # The second nucleus touches the first; the third is a slip.
        write_image(
            tmp_path / f'source/{name}', 10, [(20, 30, 8, 12), (28, 30, 9, 12), (100, 100, 1, 3)]
        )
    write_image(tmp_path / 'source/bright', 220, [(5, 5, 20, 20)])
    tool.make(tmp_path / 'source', tmp_path / 'nuclei')
    counts = {}
    for split in ('train', 'val'):
        coco = COCO(str(tmp_path / f'nuclei/annotations/instances_{split}.json'))
        counts[split] = len(coco.imgs)
        assert [category['name'] for category in coco.dataset['categories']] == ['nucleus']
        for image in coco.imgs.values():
            assert (tmp_path / 'nuclei' / split / image['file_name']).exists()
            boxes = [a['bbox'] for a in coco.imgToAnns[image['id']]]
            assert boxes == [[30, 20, 12, 8], [30, 28, 12, 9]]
    assert counts == dict(train=2, val=1)


def test_wrong_folders(tmp_path):
    with pytest.raises(UserError, match='stage1_train.zip'):
        tool.make(tmp_path, tmp_path / 'nuclei')
    with pytest.raises(UserError, match='already'):
        tool.make(tmp_path, tmp_path)


def test_config_trains_on_the_real_nuclei(shared_data, call_tool, tmp_path, restore_loaders):
    """Some steps of docs/own_dataset.md on small images; the whole run is told there."""
    call_tool(
        'train',
        'retinanet_convmlp_s_fpn_nuclei',
        '--data-root',
        shared_data / 'nuclei',
        '--cfg-options',
        'train_dataloader.dataset.indices=4',
        'train_cfg.max_epochs=1',
        'train_dataloader.dataset.pipeline.2.scale=(96,96)',
        'default_hooks.logger.interval=1',
        'default_hooks.checkpoint.save_best=None',
        'val_cfg=None',
        'val_dataloader=None',
        'val_evaluator=None',
    )
    log = next((tmp_path / 'work_dirs').glob('*/*/vis_data/scalars.json')).read_text()
    losses = [json.loads(line)['loss'] for line in log.splitlines()]
    assert len(losses) == 2 and all(0 < loss < 100 for loss in losses)
