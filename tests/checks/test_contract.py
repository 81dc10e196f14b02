"""One numbering from the file to the prediction: what disagrees is made right or refused."""

import json

import numpy as np
import pytest
import shapes
from conftest import ROOT
from mmengine.config import Config
from mmengine.registry import DATASETS
from PIL import Image

from convmlp_backbone.checks.contract import check, numbering
from convmlp_backbone.checks.datasets import scope_of
from convmlp_backbone.checks.loaders import unwrap
from convmlp_backbone.checks.selftest import self_test
from convmlp_backbone.checks.whole import Whole
from convmlp_backbone.config import set_data_root

DET, MASK, SEG = (
    ROOT / f'configs/{name}.py'
    for name in (
        'retinanet_convmlp_s_fpn_coins',
        'maskrcnn_convmlp_s_fpn_coins',
        'fpn_convmlp_s_coins',
    )
)
SPLITS = ('train', 'val')


@pytest.fixture(scope='module', autouse=True)
def toolboxes():
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')


@pytest.fixture
def data(tmp_path):
    return shapes.make(tmp_path / 'data')


def run(cfg, tmp_path, splits=SPLITS, meta=None):
    return check(cfg, splits, meta, tmp_path / 'mended')


def truth(cfg, split='val'):
    """What the truth scores, and the names that the labels have in the data set."""
    with scope_of(cfg):
        dataset = DATASETS.build(cfg[f'{split}_dataloader'].dataset)
    scores, problems = self_test(cfg, split, dataset)
    file = json.loads(open(dataset.ann_file).read())
    names = {c['id']: c['name'] for c in file['categories']}
    labels = {label: names[number] for number, label in dataset.cat2label.items()}
    return scores, problems, [labels[i] for i in sorted(labels)], dataset.metainfo['classes']


def renumber(coco):
    for part, key in ((coco['categories'], 'id'), (coco['annotations'], 'category_id')):
        for item in part:
            item[key] += 10


def rename(old, new):
    return lambda coco: [c.update(name=new) for c in coco['categories'] if c['name'] == old]


# Files, and names of the config, that disagree and can be read in one way only: all is right then.
RIGHT = dict(
    as_it_should_be=({}, shapes.NAMES),
    config_in_another_order=({}, ('disc', 'square')),
    val_in_another_order=(dict(val=lambda c: c['categories'].reverse()), shapes.NAMES),
    train_in_another_order=(dict(train=lambda c: c['categories'].reverse()), shapes.NAMES),
    both_in_another_order=(
        dict(train=lambda c: c['categories'].reverse(), val=lambda c: c['categories'].reverse()),
        shapes.NAMES,
    ),
    other_ids=(dict(val=renumber), shapes.NAMES),
    other_ids_and_order=(
        dict(val=lambda c: (renumber(c), c['categories'].reverse())),
        ('disc', 'square'),
    ),
    val_lacks_a_class=(
        dict(
            val=lambda c: c.update(
                categories=[k for k in c['categories'] if k['name'] == 'disc'],
                annotations=[a for a in c['annotations'] if a['category_id'] == 2],
            )
        ),
        shapes.NAMES,
    ),
    ids_from_zero=(
        {
            split: lambda c: [a.update(id=i) for i, a in enumerate(c['annotations'])]
            for split in SPLITS
        },
        shapes.NAMES,
    ),
    super_category=(
        {
            split: lambda c: c['categories'].insert(
                0, dict(id=0, name='disc', supercategory='none')
            )
            for split in SPLITS
        },
        shapes.NAMES,
    ),
)


@pytest.mark.parametrize('name', RIGHT)
def test_numbering_is_one(name, data, tmp_path):
    changes, names = RIGHT[name]
    for split, change in changes.items():
        shapes.change_coco(data, split, change)
    cfg = shapes.config(DET, data, names=names)
    problems = run(cfg, tmp_path)
    assert not [p for p in problems if p.severity == 'error'], problems
    learned = cfg.train_dataloader.dataset.metainfo
    assert {*learned['classes']} == {*shapes.NAMES} and len(learned['category_ids']) == 2
    scores, problems, labels, classes = truth(cfg)
    assert scores['coco/bbox_mAP'] == 1 and problems[0].severity == 'note'
    assert labels == list(classes) == list(learned['classes'])


def test_without_the_contract_it_would_be_wrong(data, tmp_path):
    """The self-test sees by itself what the contract mends."""
    shapes.change_coco(data, 'val', RIGHT['ids_from_zero'][0]['val'])
    scores, problems, *_ = truth(shapes.config(DET, data))
    assert scores['coco/bbox_mAP'] < 0.99 and problems[0].severity == 'error'
    *_, labels, classes = truth(shapes.config(DET, data, names=('disc', 'square')))
    assert labels != list(classes)


TRAIN = 'train_dataloader.dataset'
# Config, change of the files, options, words of the error.
WRONG = dict(
    names_forgotten=(
        DET,
        {},
        {f'{split}_dataloader.dataset.metainfo': {'_delete_': True} for split in SPLITS},
        ['its categories are square, disc', "classes=('square', 'disc')"],
    ),
    some_names_of_coco=(
        DET,
        {
            split: lambda c: (rename('square', 'person')(c), rename('disc', 'car')(c))
            for split in SPLITS
        },
        {f'{split}_dataloader.dataset.metainfo': {'_delete_': True} for split in SPLITS},
        ["classes=('person', 'car')"],
    ),
    misspelt=(DET, {}, {f'{TRAIN}.metainfo.classes': ('square', 'dicc')}, ['disc for dicc']),
    capitals=(DET, dict(train=rename('disc', 'Disc')), {}, ['did you mean Disc for disc']),
    val_with_capitals=(DET, dict(val=rename('disc', 'Disc')), {}, ['name them alike']),
    classes_of_mmdet_2=(
        DET,
        {},
        {f'{TRAIN}.metainfo': dict(CLASSES=('square', 'disc'))},
        ['metainfo.CLASSES', "metainfo=dict(classes=('square', 'disc'))"],
    ),
    classes_a_string=(DET, {}, {f'{TRAIN}.metainfo.classes': 'coin'}, ["classes=('coin', )"]),
    twice_a_class=(
        DET,
        {},
        {f'{TRAIN}.metainfo.classes': ('disc', 'disc')},
        ['names disc 2 times'],
    ),
    val_with_other_names=(
        DET,
        {},
        {'val_dataloader.dataset.metainfo.classes': ('a', 'b')},
        ["write classes=('square', 'disc') in both"],
    ),
    other_number_of_classes=(
        DET,
        {},
        {'model.bbox_head.num_classes': 80},
        ['num_classes', 'is 80', 'model.bbox_head.num_classes=2'],
    ),
    evaluator_of_another_set=(
        DET,
        {},
        dict(val_evaluator=dict(ann_file='of train')),
        ['val_evaluator.ann_file', 'of them the same'],
    ),
    evaluator_file_not_there=(
        DET,
        {},
        dict(val_evaluator=dict(ann_file='nowhere.json')),
        ['val_evaluator.ann_file', 'No such file'],
    ),
    all_too_small=(DET, {}, {f'{TRAIN}.filter_cfg': dict(min_size=200)}, ['min_size=0']),
    no_outlines=(
        MASK,
        {split: lambda c: [a.pop('segmentation') for a in c['annotations']] for split in SPLITS},
        {},
        ['annotation 1 of 0.png: has no outline'],
    ),
    segm_without_masks=(
        DET,
        {},
        {'val_evaluator.metric': ['bbox', 'segm']},
        ["write metric='bbox'"],
    ),
    corners=(
        DET,
        dict(
            train=lambda c: [
                a.update(
                    bbox=[
                        a['bbox'][0],
                        a['bbox'][1],
                        a['bbox'][0] + a['bbox'][2],
                        a['bbox'][1] + a['bbox'][3],
                    ]
                )
                for a in c['annotations']
            ]
        ),
        {},
        ['x1, y1, x2, y2'],
    ),
    no_validation_data=(DET, {}, dict(val_dataloader=None), ['val_cfg', 'val_evaluator=None']),
    reduced_in_one_place=(
        SEG,
        {},
        {f'{TRAIN}.reduce_zero_label': True},
        ['write the one that is true in both'],
    ),
    reduced=(
        SEG,
        {},
        {
            **{f'{split}_dataloader.dataset.reduce_zero_label': True for split in SPLITS},
            **{
                f'{split}_dataloader.dataset.pipeline.1.reduce_zero_label': True
                for split in ('train',)
            },
            'val_dataloader.dataset.pipeline.2.reduce_zero_label': True,
        },
        ['never occurs', 'reduce_zero_label=False'],
    ),
    too_few_classes=(
        SEG,
        {},
        {
            **{f'{split}_dataloader.dataset.metainfo.classes': ('a', 'b') for split in SPLITS},
            'model.decode_head.num_classes': 2,
        },
        ['the masks hold 2'],
    ),
    val_classes_in_another_order=(
        SEG,
        {},
        {'val_dataloader.dataset.metainfo.classes': ('background', 'disc', 'square')},
        ["write classes=('background', 'square', 'disc')"],
    ),
    suffix=(SEG, {}, {f'{TRAIN}.img_suffix': '.jpg'}, ["write img_suffix='.png'"]),
    channels=(
        DET,
        {},
        {'model.backbone.in_channels': 1},
        ['has 3 channels', 'the network takes 1'],
    ),
    one_of_the_classes=(
        SEG,
        {},
        {
            **{f'{split}_dataloader.dataset.metainfo.classes': ('disc',) for split in SPLITS},
            'model.decode_head.num_classes': 1,
        },
        ['the masks hold 1, 2'],
    ),
)


@pytest.mark.parametrize('name', WRONG)
def test_what_disagrees_is_refused(name, data, tmp_path):
    base, changes, settings, words = WRONG[name]
    for split, change in changes.items():
        shapes.change_coco(data, split, change)
    cfg = shapes.config(base, data, settings)
    if cfg.val_evaluator and cfg.val_evaluator.get('ann_file') == 'of train':
        cfg.val_evaluator.ann_file = f'{data}/annotations/instances_train.json'
    errors = [p for p in run(cfg, tmp_path) if p.severity == 'error']
    assert errors and all('\n' not in str(p) for p in errors)
    assert all(word in str(errors[0]) for word in words), errors[0]


WRAPPERS = dict(
    repeat=lambda leaf: dict(type='RepeatDataset', times=2, dataset=leaf),
    concat=lambda leaf: dict(type='ConcatDataset', datasets=[leaf, leaf]),
    balanced=lambda leaf: dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=leaf),
    mosaic=lambda leaf: dict(
        type='MultiImageMixDataset',
        dataset=dict(
            leaf,
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True)],
        ),
        pipeline=[dict(type='Mosaic', img_scale=(96, 96)), dict(type='PackDetInputs')],
    ),
    twice=lambda leaf: dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[leaf, leaf])
    ),
)


@pytest.mark.parametrize('name', WRAPPERS)
def test_wrappers(name, data, tmp_path):
    shapes.change_coco(data, 'train', RIGHT['ids_from_zero'][0]['train'])
    cfg = shapes.config(DET, data)
    leaf = cfg.train_dataloader.dataset.to_dict()
    cfg.train_dataloader.dataset = WRAPPERS[name](leaf)
    problems = run(cfg, tmp_path)
    assert problems and all(p.severity == 'note' for p in problems), problems
    with scope_of(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    assert dataset.metainfo['category_ids'] == [1, 2]
    for part in unwrap(dataset):
        assert set(part[0]) == {'inputs', 'data_samples'}


@pytest.mark.parametrize(
    'base, settings',
    [
        (DET, {}),
        (MASK, {}),
        (SEG, {}),
        (DET, dict(val_dataloader=None, val_cfg=None, val_evaluator=None)),
        (DET, {'train_dataloader.num_workers': 0}),
    ],
)
def test_what_agrees_passes(base, settings, data, tmp_path):
    assert run(shapes.config(base, data, settings), tmp_path) == []


@pytest.mark.parametrize(
    'classes, palette, base', [(3, 1, DET), (100, None, DET), (3, 1, SEG), (3, 5, SEG), (2, 2, DET)]
)
def test_a_palette_is_made(classes, palette, base, data, tmp_path):
    from convmlp_backbone.checks.datasets import class_of
    from convmlp_backbone.checks.names import fill_palette

    cfg = shapes.config(base, data)
    leaf = cfg.train_dataloader.dataset
    leaf.metainfo = dict(classes=tuple(map(str, range(classes))))
    if palette:
        leaf.metainfo.palette = [(1, 2, i) for i in range(palette)]
    with scope_of(cfg):
        fill_palette(leaf, class_of(leaf))
        colours = DATASETS.build(dict(leaf, lazy_init=True)).metainfo['palette']
    assert len(colours) == classes and len(set(map(tuple, colours))) == classes
    assert not palette or tuple(colours[0]) == (1, 2, 0)


@pytest.mark.parametrize(
    'meta, wanted',
    [
        (None, (['disc', 'square'], [2, 1])),  # MMDetection's numbering: the training file's
        (dict(classes=('square', 'disc')), (['disc', 'square'], [2, 1])),
        (dict(classes=('square', 'disc'), category_ids=[1, 2]), (['square', 'disc'], [1, 2])),
        (dict(classes=('cat', 'dog')), (['cat', 'dog'], None)),
    ],
)
def test_numbering_of_a_checkpoint(meta, wanted, data):
    shapes.change_coco(data, 'train', lambda c: c['categories'].reverse())
    assert numbering(shapes.config(DET, data), meta) == wanted


def test_the_numbering_of_the_checkpoint_goes_first(data, tmp_path):
    cfg = shapes.config(DET, data)
    meta = dict(classes=('disc', 'square'), category_ids=[2, 1])
    assert not [p for p in run(cfg, tmp_path, ['test'], meta) if p.severity == 'error']
    scores, _, labels, classes = truth(cfg, 'test')
    assert labels == list(classes) == ['disc', 'square'] and scores['coco/bbox_mAP'] == 1


def test_one_class_alone_is_refused(data, tmp_path):
    for path in data.glob('masks/*/*.png'):
        Image.new('L', (96, 96)).save(path)
    cfg = shapes.config(SEG, data, {'model.decode_head.num_classes': 1})
    for split in SPLITS:
        cfg[f'{split}_dataloader'].dataset.metainfo.classes = ('disc',)
    (problem,) = run(cfg, tmp_path)
    assert "num_classes=2, classes=('background', ...)" in problem.text


def test_masks_of_one_class_are_read_to_the_end(data, tmp_path):
    """Objects may be rare: that the first masks have none is no error."""
    Image.new('L', (96, 96)).save(data / 'masks/train/0.png')
    for i in range(6, 60):
        Image.new('RGB', (96, 96)).save(data / f'train/{i}.png')
        Image.new('L', (96, 96)).save(data / f'masks/train/{i}.png')
    assert run(shapes.config(SEG, data), tmp_path) == []


@pytest.mark.parametrize('batch, words', [(1, None), (2, 'val_dataloader.batch_size=1')])
def test_batches_of_different_sizes(batch, words, data, tmp_path):
    for folder, mode in (('val', 'RGB'), ('masks/val', 'L')):
        Image.open(data / folder / '0.png').resize((80, 96), 0).convert(mode).save(
            data / folder / '0.png'
        )
    found = run(shapes.config(SEG, data, {'val_dataloader.batch_size': batch}), tmp_path)
    assert words is None and not found or words in found[0].text


def test_a_class_without_objects_is_named(data, tmp_path):
    """Training would go through, and the mean of the scores leave it out."""

    def relabel(coco):
        for annotation in coco['annotations']:
            annotation['category_id'] = coco['categories'][0]['id']

    shapes.change_coco(data, 'train', relabel)
    cfg = shapes.config(DET, data)
    [problem] = run(cfg, tmp_path)
    assert problem.severity == 'warning' and f'no object of {shapes.NAMES[1]}:' in problem.text
    both = dict(type='ConcatDataset', datasets=[cfg.train_dataloader.dataset] * 2)
    other = shapes.make(tmp_path / 'other')
    both['datasets'][1] = dict(both['datasets'][0], data_root=str(other))
    cfg.train_dataloader.dataset = both
    assert run(cfg, tmp_path) == []


SHIPPED = dict(
    coins='coins',
    nuclei='nuclei',
    coco='coco_sample',
    ade20k='ade_sample/ADEChallengeData2016',
    clothing='clothing',
)


@pytest.mark.parametrize(
    'path',
    sorted(
        path
        for path in ROOT.glob('configs/*.py')
        if path.stem.split('_')[-1] in SHIPPED and ('_s_' in path.stem or 'nuclei' in path.stem)
    ),
    ids=lambda path: path.stem,
)
def test_no_false_alarm(path, request, tmp_path):
    if path.stem.startswith('convmlp'):
        pytest.importorskip('mmpretrain')
    name = path.stem.split('_')[-1]
    root = (
        request.getfixturevalue('coins')
        if name == 'coins'
        else request.getfixturevalue('shared_data') / SHIPPED[name]
    )
    cfg = Config.fromfile(path)
    set_data_root(cfg, str(root))
    assert check(cfg, ['train', 'val', 'test'], folder=tmp_path) == []


def test_six_channels(data):
    from convmlp_backbone.pictures import pixels_of

    assert pixels_of(np.zeros((6, 4, 5), np.float32)).shape == (4, 5, 3)
    for channels in (1, 2, 3, 4):
        assert pixels_of(np.ones((channels, 4, 5), np.uint8)).shape == (4, 5, 3)


def test_a_resumed_training_keeps_the_numbering(data, tmp_path):
    """Also where the file has been written anew since, with its categories in another order."""
    cfg = shapes.config(DET, data)
    meta = dict(classes=('disc', 'square'), category_ids=[2, 1])
    assert not [p for p in run(cfg, tmp_path, SPLITS, meta) if p.severity == 'error']
    for split in SPLITS:
        scores, _, labels, classes = truth(cfg, split) if split == 'val' else ({}, 0, *learned(cfg))
        assert labels == list(classes) == ['disc', 'square']
    assert scores['coco/bbox_mAP'] == 1


def learned(cfg):
    """The names that the labels have in the training set, by its file and by its metainfo."""
    with scope_of(cfg):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    names = {c['id']: c['name'] for c in json.loads(open(dataset.ann_file).read())['categories']}
    labels = {label: names[number] for number, label in dataset.cat2label.items()}
    return [labels[i] for i in sorted(labels)], dataset.metainfo['classes']


def test_the_checkpoint_to_resume_is_asked(tmp_path):
    import torch

    from convmlp_backbone.commands.models import dataset_meta

    meta = dict(classes=('disc', 'square'), category_ids=[2, 1])
    torch.save(
        dict(state_dict={}, message_hub={}, meta=dict(iter=1, dataset_meta=meta)),
        tmp_path / 'iter_1.pth',
    )
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_1.pth'))
    for source in ('auto', str(tmp_path), str(tmp_path / 'iter_1.pth')):
        assert dataset_meta(source, str(tmp_path), False)['category_ids'] == [2, 1]
    assert dataset_meta('auto', str(tmp_path / 'none'), False) is None


def test_names_of_predictions():
    from convmlp_backbone.checks.contract import require_names
    from convmlp_backbone.errors import UserError

    cfg = Config.fromfile(DET)
    require_names(cfg, ['coin'])
    with pytest.raises(UserError, match='is 1, and there are names of 2 classes, a, b'):
        require_names(cfg, ['a', 'b'])
    cfg.test_dataloader.dataset.metainfo = dict(classes='coin')
    with pytest.raises(UserError, match=r"write classes=\('coin', \)"):
        require_names(cfg, ['coin'])


def test_the_config_of_the_page_about_own_masks(data, tmp_path, monkeypatch):
    page = (ROOT / 'docs/own_masks.md').read_text()
    (code,) = [part for part in page.split('```') if part.startswith('python\n_base_')]
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    (tmp_path / 'my_shapes.py').write_text(code.removeprefix('python\n'))
    for path in [*data.glob('train/*.png'), *data.glob('val/*.png')]:
        with Image.open(path) as image:
            image.save(path.with_suffix('.jpg'))
        path.unlink()
    cfg = Config.fromfile('my_shapes.py')
    assert cfg.data_root == 'data/shapes'
    set_data_root(cfg, str(data))
    assert run(cfg, tmp_path) == []


def test_voc(tmp_path):
    """MMDetection's VOCDataset, which names its own classes; one of them suffices."""
    root = tmp_path / 'VOC2007'
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (root / folder).mkdir(parents=True)
    for i in range(4):
        Image.new('RGB', (96, 80), (40 * i, 90, 120)).save(root / f'JPEGImages/{i}.jpg')
        (root / f'Annotations/{i}.xml').write_text(
            f'<annotation><filename>{i}.jpg</filename><size><width>96</width><height>80</height>'
            '<depth>3</depth></size><object><name>dog</name><difficult>0</difficult><bndbox>'
            f'<xmin>{10 + i}</xmin><ymin>5</ymin><xmax>70</xmax><ymax>60</ymax></bndbox></object>'
            '</annotation>'
        )
    (root / 'ImageSets/Main/train.txt').write_text('0\n1\n')
    (root / 'ImageSets/Main/val.txt').write_text('2\n3\n')
    cfg = shapes.config(DET, tmp_path, {'model.bbox_head.num_classes': 20})
    for split in ('train', 'val'):
        loader = cfg[f'{split}_dataloader']
        loader.batch_size, loader.dataset = (
            1,
            dict(
                type='VOCDataset',
                data_root=str(tmp_path),
                data_prefix=dict(sub_data_root='VOC2007/'),
                ann_file=f'VOC2007/ImageSets/Main/{split}.txt',
                test_mode=split == 'val',
                pipeline=[
                    dict(type='LoadImageFromFile'),
                    dict(type='LoadAnnotations', with_bbox=True),
                    dict(type='PackDetInputs'),
                ],
            ),
        )
    cfg.val_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='11points')
    assert [p for p in run(cfg, tmp_path) if p.severity == 'error'] == []
    lines = []
    problems = Whole(cfg, tmp_path, 1, lambda items, *_: items, lines.append).run()
    assert [p for p in problems if p.severity == 'error'] == []
    assert 'train: objects: dog 2; 19 classes have none' in lines
    assert any(
        line.startswith('val: the truth as prediction scores') and 'mAP 1' in line for line in lines
    )
    cfg.model.bbox_head.num_classes = 2
    assert any('20 classes' in p.text or 'class index' in p.text for p in run(cfg, tmp_path))
