"""convmlp report from work dirs of detectors, segmentors and classifiers, as a user runs it."""

import json
import re

import pytest
import torch
from conftest import ROOT
from PIL import Image
from tiny_models import tiny_config, tiny_model

pytest.importorskip('hotcoco')


def left_by_training(folder, cfg, root, seed=0):
    """A work dir as a training leaves it, the log's last line cut off."""
    cfg.work_dir = str(folder)
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'].update(num_workers=0, persistent_workers=False)
        cfg[f'{split}_dataloader'].dataset.data_root = f'{root}/'
        if 'ann_file' in (evaluator := cfg.get(f'{split}_evaluator') or {}):
            evaluator.ann_file = f'{root}/annotations/instances_val.json'
    inside = folder / '20260101_000000/vis_data'
    inside.mkdir(parents=True)
    cfg.dump(inside / 'config.py')
    records = [dict(lr=0.1, loss=1 / step, epoch=1, iter=step, step=step) for step in range(1, 9)]
    (inside / 'scalars.json').write_text('\n'.join(map(json.dumps, records)) + '\n{"lr')
    torch.save(tiny_model(cfg, seed).state_dict(), folder / 'best_x.pth')
    return folder


@pytest.fixture(params=['retinanet', 'maskrcnn', 'segmentor'])
def work_dir(request, coins, tmp_path):
    kind = request.param
    pytest.importorskip('mmseg' if kind == 'segmentor' else 'mmdet')
    part = dict(
        retinanet=dict(bbox_head=dict(num_classes=1)),
        maskrcnn=dict(
            roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)),
            test_cfg=dict(rcnn=dict(score_thr=0.3)),
        ),
        segmentor=dict(decode_head=dict(num_classes=2)),
    )[kind]
    classes = ('background', 'coin') if kind == 'segmentor' else ('coin',)
    return left_by_training(tmp_path / 'x', tiny_config(kind, ROOT, classes, **part), coins)


def test_the_scores_are_those_of_test(work_dir, call_tool, tmp_path, coins):
    """By the model, and by what convmlp predict writes of the same images."""
    answer = json.loads(call_tool('report', work_dir, '--json'))
    config, checkpoint = next(work_dir.glob('*/vis_data/config.py')), work_dir / 'best_x.pth'
    scores = json.loads(call_tool('test', config, checkpoint, '--json'))
    ours = {
        name: answer['metrics'][other]
        for name, other in {
            'coco/bbox_mAP': 'box AP',
            'coco/bbox_mAP_50': 'box AP50',
            'coco/segm_mAP': 'mask AP',
            'mIoU': 'mIoU',
            'aAcc': 'pixel accuracy',
        }.items()
        if other in answer['metrics']
    }
    theirs = {name: scores[name] / (1 if '/' in name else 100) for name in ours}
    assert len(ours) >= 2 and ours == pytest.approx(theirs, abs=6e-4)
    content = (work_dir / 'report.html').read_text()
    assert content.count('<section') >= 5 and 'Logged up to iteration 8.' in content
    assert content.count('<image id=') == 1  # all of the validation set
    call_tool('predict', config, checkpoint, coins / 'val', '--out-dir', 'p')
    again = json.loads(
        call_tool(
            'report', work_dir, '--predictions', 'p/predictions.json', '--json', '--out', 'r.html'
        )
    )
    assert again['metrics'] == pytest.approx(answer['metrics'], abs=1e-6)
    assert (tmp_path / 'r.html').is_file()


@pytest.fixture
def for_masks(coins, tmp_path):
    pytest.importorskip('mmdet')
    cfg = tiny_config('maskrcnn', ROOT, ('coin',), roi_head=dict(bbox_head=dict(num_classes=1)))
    cfg.model.roi_head.mask_head.num_classes = 1
    return left_by_training(tmp_path / 'x', cfg, coins)


def test_the_truth_as_prediction_is_perfect(for_masks, coins, call_tool, tmp_path):
    truth = json.loads((coins / 'annotations/instances_val.json').read_text())
    results = [
        dict(
            file_name=truth['images'][0]['file_name'],
            category_name='coin',
            bbox=a['bbox'],
            segmentation=a['segmentation'],
            score=0.9,
        )
        for a in truth['annotations']
    ]
    (tmp_path / 'p.json').write_text(json.dumps(results))
    answer = json.loads(call_tool('report', for_masks, '--predictions', 'p.json', '--json'))
    scores = answer['metrics']
    assert scores['mask AP'] == scores['box AP'] == pytest.approx(1)
    content = (for_masks / 'report.html').read_text()
    assert content.count('<path class="shape"') == 2 * len(results)  # truth and prediction
    assert '0 wrong, 0 missed: F1 1.00' in content


@pytest.fixture
def classifiers(tmp_path):
    """Two work dirs and 24 images of two classes, one of them broken."""
    pytest.importorskip('mmpretrain')
    for split in ('train', 'val'):
        for name, grey in (('dark', 20), ('<bright>', 220)):
            folder = tmp_path / 'photos' / split / name
            folder.mkdir(parents=True)
            for i in range(12):
                Image.new('RGB', (64, 48), (grey + i,) * 3).save(folder / f'{i:02}.png')
    (tmp_path / 'photos/val/dark/05.png').write_text('no image')
    found = []
    for seed in range(2):
        cfg = tiny_config('classifier', ROOT, ('<bright>', 'dark'), head=dict(num_classes=2))
        cfg.data_preprocessor.num_classes = 2
        found.append(left_by_training(tmp_path / f'run{seed}', cfg, tmp_path / 'photos', seed))
    return found


def test_classifiers_and_an_image_that_cannot_be_read(classifiers, call_tool, tmp_path):
    answer = json.loads(call_tool('report', classifiers[0], '--json'))
    assert answer['left_out'] == 1 and 0 <= answer['metrics']['top-1'] <= 1
    content = (classifiers[0] / 'report.html').read_text()
    assert '1 images could not be read' in content and re.search('dark/05.png: ', content)
    assert '<bright>' not in content and '&lt;bright&gt;' in content
    answer = json.loads(call_tool('report', *classifiers, '--json', '--bootstrap', 50))
    (row,) = answer['differences']
    assert row['name'] == 'top-1' and row['lower'] <= row['second'] - row['first'] <= row['upper']
    assert 'run0 and run1' in (classifiers[0] / 'report.html').read_text()
    for path in (tmp_path / 'photos/val').rglob('*.png'):
        path.write_text('no image')
    error = call_tool('report', classifiers[0], '--no-check')
    assert 'no image of the validation set can be read' in error


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['a', 'b', 'c'], '3 work dirs: expected one, or two to compare'),
        (['none'], 'no folder none'),
        (['x', '--predictions', 'a.json', 'b.json'], '2 files for 1 work dirs'),
        (['x', 'x', '--checkpoint', 'a.pth'], '1 files for 2 work dirs'),
        (['x', '--bootstrap', '0'], 'expected 1 or more'),
        (['x', '--out', 'x/x.py/r.html'], 'x/x.py: Not a directory'),
        (['x'], 'x has no checkpoint: --checkpoint FILE, or --predictions FILE'),
        (['x', '--checkpoint', 'a.pth'], 'no checkpoint'),
        (['x', '--predictions', 'a.json'], 'no file --predictions a.json'),
    ],
)
def test_what_it_refuses(arguments, words, call_tool, tmp_path):
    (tmp_path / 'x').mkdir()
    (tmp_path / 'x/x.py').write_text(
        f"_base_ = ['{ROOT}/configs/retinanet_convmlp_s_fpn_coins.py']"
    )
    error = call_tool('report', *arguments)
    assert error.startswith('error: ') and words in error and '\n' not in error


def test_without_hotcoco(call_tool, tmp_path, monkeypatch):
    from convmlp_backbone.commands import report

    (tmp_path / 'x').mkdir()
    monkeypatch.setattr(report, 'find_spec', lambda name: None)
    assert 'pip install hotcoco' in call_tool('report', 'x')
