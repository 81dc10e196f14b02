import pickle
import re
from contextlib import contextmanager

import checkpoint_files as files
import golden_outputs as golden
import pytest
import torch
from checkpoint_files import BACKBONE, Code, prefixed, saved
from mmengine.config import Config
from mmengine.logging import HistoryBuffer
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import CheckpointLoader

from convmlp_backbone import ConvMLP, checkpoints
from convmlp_backbone.checkpoints import CheckpointError, plain_meta, read, write

CONFIGS = [
    (model, size, pattern.format(size), classes)
    for model, pattern, classes in (
        ('retinanet', 'retinanet_convmlp_{}_fpn_1x_coco', 80),
        ('maskrcnn', 'maskrcnn_convmlp_{}_fpn_1x_coco', 80),
        ('sem_fpn', 'fpn_convmlp_{}_512x512_40k_ade20k', 150),
    )
    for size in 'sml'
]


def backbone(source, **kwargs):
    """A ConvMLP-S with the weights of ``source``, in the way of a config."""
    model = ConvMLP(init_cfg=dict(type='Pretrained', checkpoint=str(source)), **kwargs)
    model.init_weights()
    return model


def assert_loaded(model):
    loaded = model.state_dict()
    for name, v in BACKBONE.items():
        assert torch.equal(loaded[name], v), name


# What a backbone loads

FORMS = {
    'ImageNet': files.imagenet,
    'timm': files.timm_training,
    'model': lambda: dict(model=BACKBONE, model_ema=None),
    'model_ema': lambda: dict(model=prefixed('', {}), model_ema=BACKBONE),
    'mmdet 2.x': lambda: files.downstream(
        'retinanet', state_dict=prefixed('backbone.', BACKBONE) | {'neck.x': torch.zeros(1)}
    ),
    'DDP': lambda: dict(state_dict=prefixed('module.backbone.', BACKBONE)),
    'timm features': lambda: prefixed('model.', BACKBONE),
}


@pytest.mark.parametrize('form', FORMS)
def test_backbone_loads(form, tmp_path):
    assert_loaded(backbone(saved(tmp_path / 'x.pth', FORMS[form]())))


def test_backbone_loads_safetensors(tmp_path):
    write(tmp_path / 'x.safetensors', files.imagenet(), {})
    assert_loaded(backbone(tmp_path / 'x.safetensors'))


def test_one_line_says_what_was_loaded(tmp_path, monkeypatch):
    path, lines = saved(tmp_path / 'x.pth', files.imagenet()), []
    monkeypatch.setattr(checkpoints.loading, 'print_log', lambda text, logger: lines.append(text))
    backbone(path, out_indices=(0, 1, 2))
    (line,) = lines
    loaded = sum(not n.startswith(('stages.1', 'stages.2')) for n in BACKBONE)
    assert f'Loaded {loaded} tensors from {path} (ConvMLP-S, ' in line
    assert 'with head, norm' in line
    assert 'left out: head.bias, head.weight, norm.bias, norm.weight and ' in line
    assert 'missing: tokenizer.block.1.num_batches_tracked' in line


@pytest.mark.parametrize(
    'content, arch, words',
    [
        (files.imagenet, 'm', [r'conv_stages\.conv_blocks\.2\.\S+ missing', 'ConvMLP-S', 'more']),
        (lambda: files.imagenet('m'), 's', ['unknown to the model', 'ConvMLP-M']),
        (lambda: {'conv1.weight': torch.zeros(64, 3, 7, 7)}, 's', ['no ConvMLP', r'conv1\.weight']),
        (lambda: {}, 's', ['no ConvMLP: 0 tensors']),
        (lambda: {1: 'x', 'state_dict': None}, 's', ['no ConvMLP: 0 tensors']),
        (
            lambda: BACKBONE | {'tokenizer.block.0.weight': torch.zeros(32, 4, 3, 3)},
            's',
            [r'tokenizer\.block\.0\.weight \(32, 4, 3, 3\) instead of \(32, 3, 3, 3\)'],
        ),
        (
            lambda: {n: v for n, v in BACKBONE.items() if 'stages.2.blocks.1.norm2.bias' != n},
            's',
            [r'stages\.2\.blocks\.1\.norm2\.bias missing'],
        ),
    ],
)
def test_what_does_not_fit_changes_nothing(content, arch, words, tmp_path):
    path = saved(tmp_path / 'x.pth', content())
    model = ConvMLP(arch)
    before = {name: v.clone() for name, v in model.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        checkpoints.load_backbone(model, path)
    for word in [re.escape(str(path)), *words]:
        assert re.search(word, str(error.value))
    assert '\n' not in str(error.value)
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())


# Detectors and segmentors of MMDetection 2.x and MMSegmentation 0.x


@pytest.mark.parametrize('model, size, config, classes', CONFIGS, ids=lambda x: str(x))
def test_old_checkpoint_is_the_new_models(model, size, config, classes, pytestconfig):
    cfg = Config.fromfile(pytestconfig.rootpath / f'configs/{config}.py')
    pytest.importorskip(cfg.default_scope)
    init_default_scope(cfg.default_scope)
    with torch.device('meta'):
        new = MODELS.build(cfg.model)
        old = {
            name: torch.empty(shape)
            for name, shape in files.downstream_shapes(model, size, classes).items()
        }
    assert checkpoints.mismatches(new, old) == []
    # Not even a buffer is new.
    assert set(new.state_dict()) == set(old)


# Where files come from


def test_published_names_and_addresses_resolve_to_a_local_copy(tmp_path, monkeypatch):
    monkeypatch.setenv('CONVMLP_CHECKPOINTS', str(tmp_path))
    (tmp_path / 'detection').mkdir()
    inside = tmp_path / 'detection/retinanet_convmlp_s_coco.pth'
    beside = tmp_path / 'maskrcnn_convmlp_l_coco.pth'
    for path in (inside, beside):
        saved(path, dict(state_dict=dict(x=torch.ones(1))))
    for base in (checkpoints.SCHEME, checkpoints.BASE_URL, checkpoints.OLD_BASE_URL):
        for path in (inside, beside):
            source = f'{base}detection/{path.name}'
            assert checkpoints.fetch(source) == path
            # So do Runner.load_from and the inferencers.
            assert CheckpointLoader.load_checkpoint(source)['state_dict']['x'] == 1


@pytest.mark.parametrize(
    'source, words',
    [
        (
            'convmlp://convmlp_s_imagnet.pth',
            ['not been published', 'convmlp://convmlp_s_imagenet.pth'],
        ),
        ('no/such.pth', ['no/such.pth', 'model.backbone.init_cfg=None']),
    ],
)
def test_no_such_source(source, words):
    with pytest.raises(CheckpointError) as error:
        backbone(source)
    assert all(word in str(error.value) for word in words)


def test_folder_with_a_typo(monkeypatch):
    monkeypatch.setenv('CONVMLP_CHECKPOINTS', '/no/such/folder')
    with pytest.raises(CheckpointError, match='CONVMLP_CHECKPOINTS=/no/such/folder'):
        checkpoints.fetch('convmlp://convmlp_s_imagenet.pth')


# Safety


def places(path):
    """Everything of ours that reads a checkpoint in this process."""
    return {
        'read': lambda: read(path),
        'load': lambda: checkpoints.load(path),
        'init_cfg': lambda: backbone(path),
        'load_model': lambda: checkpoints.load_model(torch.nn.Linear(1, 1), path),
        'runner': lambda: CheckpointLoader.load_checkpoint(str(path), 'cpu'),
    }


@pytest.mark.parametrize('place', places(None))
def test_code_is_not_run(place, tmp_path, restore_loaders):
    mark = tmp_path / 'was run'
    path = saved(tmp_path / 'x.pth', dict(state_dict=BACKBONE, meta=Code(mark)))
    checkpoints.enable_safe_loading()
    with pytest.raises(CheckpointError, match=r'holds code \(exec\).*--trust'):
        places(path)[place]()
    assert not mark.exists()


@pytest.mark.parametrize(
    'what',
    [
        lambda mark: Code(mark),
        # MMEngine allows getattr: with it any function is in reach.
        lambda mark: Getattr(torch.Tensor, 'backward'),
        lambda mark: Getattr(HistoryBuffer, 'register_statistics'),
    ],
    ids=['code', 'getattr', 'getattr of a history'],
)
def test_code_is_run_with_trust_only(what, tmp_path, restore_loaders):
    mark = tmp_path / 'was run'
    path = saved(tmp_path / 'x.pth', dict(state_dict=BACKBONE, x=what(mark)))
    with pytest.raises(CheckpointError, match='holds code'):
        read(path)
    assert not mark.exists()
    checkpoints.enable_safe_loading(trust=True)
    assert_loaded(backbone(path))
    assert mark.exists() == isinstance(what(mark), Code)


class Getattr:
    def __init__(self, *args):
        self.args = args

    def __reduce__(self):
        return getattr, self.args


def test_config_text_of_an_old_checkpoint_is_not_executed_on_resume(tmp_path, restore_loaders):
    checkpoints.enable_safe_loading()
    path = saved(tmp_path / 'x.pth', files.downstream('sem_fpn', state_dict=BACKBONE))
    meta = CheckpointLoader.load_checkpoint(str(path), 'cpu')['meta']
    assert 'config' not in meta and meta['CLASSES'] == files.COCO_START


def evil_config(mark):
    return f'open({str(mark)!r}, "w").close()\nmodel = dict(type="RetinaNet")\n'


@pytest.mark.parametrize('place', ['meta.config', 'meta.cfg', 'runtime_info.cfg'])
def test_config_text_is_not_executed_by_inferencers(place, tmp_path, restore_loaders):
    apis = pytest.importorskip('mmdet.apis')
    checkpoints.enable_safe_loading()
    mark = tmp_path / 'was run'
    info, meta = {}, dict(epoch=1)
    dict(meta=meta, runtime_info=info)[place.split('.')[0]][place.split('.')[1]] = evil_config(mark)
    path = saved(
        tmp_path / 'x.pth',
        dict(
            state_dict=BACKBONE,
            meta=meta,
            message_hub=dict(log_scalars={}, runtime_info=info, resumed_keys={}),
        ),
    )
    with pytest.raises(ValueError, match='Cannot find the config'):
        apis.DetInferencer(weights=str(path))
    checkpoint = CheckpointLoader.load_checkpoint(str(path), 'cpu')
    assert not mark.exists() and checkpoint['meta'] == dict(epoch=1)
    assert checkpoint['message_hub']['runtime_info'] == {}


@pytest.mark.parametrize(
    'name',
    [
        's3://bucket/x.pth',
        'petrel://bucket/x.pth',
        'open-mmlab:s3://bucket/x.pth',
        'pavi://x.pth',
        'open-mmlab://local',
        'openmmlab://local',
        'torchvision://resnet18',
        'modelzoo://resnet18',
        'mmcls://vgg11',
        'http://host/x.pth',
        'https://host/x.pth',
        'other://x.pth',
        'x.pth',
        'C:\\x.pth',
        '\U0010ffff',
        '',
    ],
)
def test_no_scheme_reaches_an_unsafe_loader(name, tmp_path, monkeypatch, restore_loaders):
    from mmengine.runner import checkpoint as module

    mark = tmp_path / 'was run'
    evil = saved(tmp_path / 'evil.pth', dict(state_dict={}, x=Code(mark)))

    class Backend:
        @contextmanager
        def get_local_path(self, name):
            yield str(evil)

        def get(self, name):
            return evil.read_bytes()

    for place in (checkpoints.loading, module):
        monkeypatch.setattr(place, 'get_file_backend', lambda *args, **kwargs: Backend())
    (tmp_path / 'open_mmlab.json').write_text('{"local": "evil.pth"}')
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path))
    monkeypatch.setattr(
        checkpoints.published,
        'download',
        lambda url, path, check: (
            path.parent.mkdir(parents=True),
            path.write_bytes(evil.read_bytes()),
        ),
    )
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.chdir(tmp_path)
    evil.rename('x.pth') if name == 'x.pth' else None
    checkpoints.enable_safe_loading()
    with pytest.raises(CheckpointError, match='holds code|no such checkpoint file'):
        CheckpointLoader.load_checkpoint(name, 'cpu')
    assert not mark.exists()


def test_names_that_mmengine_looks_up(tmp_path, monkeypatch, restore_loaders):
    from mmengine.runner.checkpoint import get_torchvision_models

    fetched = []
    path = saved(tmp_path / 'x.pth', {'backbone.a': torch.ones(1), 'head.b': torch.ones(1)})
    monkeypatch.setattr(checkpoints.loading, 'fetch', lambda name: fetched.append(name) or path)
    checkpoints.enable_safe_loading()
    weights = CheckpointLoader.load_checkpoint('torchvision://resnet18')['state_dict']
    assert fetched == [get_torchvision_models()['resnet18']] and len(weights) == 2
    assert CheckpointLoader.load_checkpoint('mmcls://vgg11')['state_dict'].keys() == {'a'}
    with pytest.raises(CheckpointError, match='torchvision://resnet81 is unknown.*resnet18'):
        CheckpointLoader.load_checkpoint('torchvision://resnet81')


# Files that are whole, and odd


def changed(name, change):
    return lambda: BACKBONE | {name: change(BACKBONE[name])}


FIRST, COUNT = 'tokenizer.block.0.weight', 'tokenizer.block.1.num_batches_tracked'


@pytest.mark.parametrize(
    'content, words',
    [
        (
            changed(FIRST, lambda v: v.to(torch.complex64)),
            f'{FIRST} is complex64 instead of float32',
        ),
        (changed(FIRST, lambda v: v.to(torch.int8)), 'int8 instead of float32'),
        (changed(FIRST, lambda v: v > 0), 'bool instead of float32'),
        (changed(FIRST, lambda v: v.to(torch.float8_e4m3fn)), 'float8_e4m3fn instead of float32'),
        (changed(FIRST, lambda v: v.double() * 1e300), 'not finite'),
        (changed(FIRST, lambda v: v.to_sparse()), 'sparse tensor'),
        (changed(FIRST, lambda v: v.to('meta')), 'expected dense tensors'),
        (
            changed(FIRST, lambda v: torch.quantize_per_tensor(v, 1.0, 0, torch.qint8)),
            'expected dense',
        ),
        (lambda: BACKBONE | {COUNT: torch.tensor(3.0)}, f'{COUNT} is float32 instead of int64'),
    ],
    ids=lambda x: x if isinstance(x, str) else '',
)
def test_weights_of_another_kind_change_nothing(content, words, tmp_path):
    path, model = saved(tmp_path / 'x.pth', content()), ConvMLP()
    before = {name: v.clone() for name, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=re.escape(words)):
        checkpoints.load_backbone(model, path)
    assert all(torch.equal(v, before[name]) for name, v in model.state_dict().items())


@pytest.mark.parametrize('dtype', [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_numbers_are_converted(dtype, tmp_path):
    content = {name: v.to(dtype) for name, v in BACKBONE.items()}
    loaded = backbone(saved(tmp_path / 'x.pth', content)).state_dict()
    assert all(torch.equal(loaded[name], v.float()) for name, v in content.items())


@pytest.mark.parametrize(
    'content',
    [
        lambda: dict(state_dict_ema={}, state_dict=BACKBONE),
        lambda: dict(state_dict_ema=dict(x=1), model_ema=None, model=BACKBONE),
        lambda: dict(BACKBONE, model={}),
    ],
    ids=['ema', 'all', 'model'],
)
def test_an_empty_average_is_passed_over(content, tmp_path):
    assert_loaded(backbone(saved(tmp_path / 'x.pth', content())))


@pytest.mark.parametrize('name', ['a\nb', '\x1b[2J', '\ud800', 'a\r\nerror: ' + 'b' * 5])
def test_messages_are_one_line_whatever_the_names(name, tmp_path, capsys):
    content = prefixed('', BACKBONE) | {name: torch.ones(1), f'tokenizer.{name}': torch.ones(1)}
    with pytest.raises(CheckpointError) as error:
        checkpoints.load_backbone(ConvMLP(), saved(tmp_path / 'x.pth', content))
    for text in (
        str(error.value),
        checkpoints.describe(content),
        str(CheckpointError(f'{name} is no file')),
    ):
        assert text.isprintable()
    assert 'more' in str(error.value) or 'unknown to the model' in str(error.value)


@pytest.mark.parametrize(
    'classes',
    [5, float('nan'), 'coin', [1, 2], (None,), {'a': 1}, [['a']], torch.ones(2), []],
    ids=repr,
)
def test_odd_metadata_is_left_out(classes, tmp_path, restore_loaders):
    checkpoints.enable_safe_loading()
    for meta in (
        dict(CLASSES=classes, PALETTE=classes),
        dict(dataset_meta=classes, epoch='x'),
        dict(dataset_meta=dict(classes=classes, palette=classes)),
        classes,
    ):
        path = saved(tmp_path / 'x.pth', dict(state_dict={}, meta=meta, message_hub=classes))
        assert checkpoints.plain_meta(read(path)) == {}
        for_runner = CheckpointLoader.load_checkpoint(str(path), 'cpu')
        assert 'message_hub' not in for_runner
        assert not {'CLASSES', 'PALETTE'} & for_runner['meta'].keys()
        assert 'classes' not in for_runner['meta'].get('dataset_meta', {})


@pytest.mark.parametrize(
    'palette',
    [
        [(1, 2, 3)],
        [(1, 2), (3, 4)],
        [(0, 0, 256)] * 2,
        [(0, -1, 0)] * 2,
        [(0.5, 0, 0)] * 2,
        'ab',
        [(1, 2, 3), (4, 5)],
        float('nan'),
    ],
    ids=repr,
)
def test_odd_palette_is_left_out(palette):
    meta = dict(dataset_meta=dict(classes=('a', 'b'), palette=palette))
    assert plain_meta(dict(meta=meta)) == dict(dataset_meta=dict(classes=('a', 'b')))


@pytest.mark.parametrize(
    'content', [b'', b'<html>not found</html>', b'PK\x03\x04', pickle.dumps([1, 2]), None], ids=repr
)
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_damaged_file(content, suffix, tmp_path):
    path = tmp_path / f'x{suffix}'
    if content is None:
        path = path.with_suffix('.whole' + suffix)
        write(path, BACKBONE, {})
        content, path = path.read_bytes()[:-1000], tmp_path / f'x{suffix}'
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match='damaged or no|holds a list') as error:
        read(path)
    assert str(path) in str(error.value) and '\n' not in str(error.value)


# Writing


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_write_and_read(suffix, tmp_path):
    path = tmp_path / f'x{suffix}'
    meta = dict(dataset_meta=dict(classes=('a', 'b'), palette=[(1, 2, 3), (4, 5, 6)]), epoch=3)
    shared = torch.arange(6.0)
    weights = dict(a=shared[:2], b=shared, c=torch.tensor(3), d=torch.ones(2, 3).t())
    write(path, weights, meta)
    content = read(path)
    assert content['meta'] == meta
    assert {n: v.tolist() for n, v in content['state_dict'].items()} == {
        n: v.tolist() for n, v in weights.items()
    }
    assert path.stat().st_size < 3000
    with pytest.raises(CheckpointError, match='exists'):
        write(path, weights, meta)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_every_published_name_is_that_of_a_config(pytestconfig):
    configs = ' '.join(p.read_text() for p in (pytestconfig.rootpath / 'configs').glob('*.py'))
    used = set(re.findall(r'convmlp://([^\'"]+)', configs))
    assert used and used <= set(checkpoints.PUBLISHED)
    assert len(checkpoints.PUBLISHED) == 21
    assert sorted(golden.shapes('s'))[0] in files.imagenet()


@pytest.mark.parametrize(
    'target, error',
    [
        ('file/x.pth', 'Not a directory'),
        ('folder.pth', 'exists: not overwritten'),
        ('file/x.safetensors', 'Not a directory'),
        ('x' * 300 + '.pth', 'File name too long'),
    ],
)
def test_write_where_it_cannot(target, error, tmp_path):
    (tmp_path / 'file').write_text('')
    (tmp_path / 'folder.pth').mkdir()
    before = sorted(tmp_path.rglob('*'))
    with pytest.raises(CheckpointError, match=error):
        write(tmp_path / target, BACKBONE, {})
    assert sorted(tmp_path.rglob('*')) == before
