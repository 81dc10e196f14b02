import pickle
import re

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
from convmlp_backbone.checkpoints import CheckpointError, read, write

CONFIGS = [(model, size, pattern.format(size), classes)
           for model, pattern, classes in (
               ('retinanet', 'retinanet_convmlp_{}_fpn_1x_coco', 80),
               ('maskrcnn', 'maskrcnn_convmlp_{}_fpn_1x_coco', 80),
               ('sem_fpn', 'fpn_convmlp_{}_512x512_40k_ade20k', 150))
           for size in 'sml']


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
        'retinanet', state_dict=prefixed('backbone.', BACKBONE) | {'neck.x': torch.zeros(1)}),
    'DDP': lambda: dict(state_dict=prefixed('module.backbone.', BACKBONE)),
    'timm features': lambda: prefixed('model.', BACKBONE)}


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
    line, = lines
    loaded = sum(not n.startswith(('stages.1', 'stages.2')) for n in BACKBONE)
    assert f'Loaded {loaded} tensors from {path} (ConvMLP-S, ' in line
    assert 'with head, norm' in line
    assert 'left out: head.bias, head.weight, norm.bias, norm.weight and ' in line
    assert 'missing: tokenizer.block.1.num_batches_tracked' in line


@pytest.mark.parametrize('content, arch, words', [
    (files.imagenet, 'm', [r'conv_stages\.conv_blocks\.2\.\S+ missing', 'ConvMLP-S', 'more']),
    (lambda: files.imagenet('m'), 's', ['unknown to the model', 'ConvMLP-M']),
    (lambda: {'conv1.weight': torch.zeros(64, 3, 7, 7)}, 's', ['no ConvMLP', r'conv1\.weight']),
    (lambda: {}, 's', ['no ConvMLP: 0 tensors']),
    (lambda: {1: 'x', 'state_dict': None}, 's', ['no ConvMLP: 0 tensors']),
    (lambda: BACKBONE | {'tokenizer.block.0.weight': torch.zeros(32, 4, 3, 3)}, 's',
     [r'tokenizer\.block\.0\.weight \(32, 4, 3, 3\) instead of \(32, 3, 3, 3\)']),
    (lambda: {n: v for n, v in BACKBONE.items() if 'stages.2.blocks.1.norm2.bias' != n}, 's',
     [r'stages\.2\.blocks\.1\.norm2\.bias missing'])])
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
        old = {name: torch.empty(shape) for name, shape in
               files.downstream_shapes(model, size, classes).items()}
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


@pytest.mark.parametrize('source, words', [
    ('convmlp://convmlp_s_imagnet.pth', ['not been published', 'convmlp://convmlp_s_imagenet.pth']),
    ('no/such.pth', ['no/such.pth', 'model.backbone.init_cfg=None'])])
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
        'runner': lambda: CheckpointLoader.load_checkpoint(str(path), 'cpu')}


@pytest.mark.parametrize('place', places(None))
def test_code_is_not_run(place, tmp_path, restore_loaders):
    mark = tmp_path / 'was run'
    path = saved(tmp_path / 'x.pth', dict(state_dict=BACKBONE, meta=Code(mark)))
    checkpoints.enable_safe_loading()
    with pytest.raises(CheckpointError, match=r'holds code \(exec\).*--trust'):
        places(path)[place]()
    assert not mark.exists()


@pytest.mark.parametrize('what', [
    lambda mark: Code(mark),
    # MMEngine allows getattr: with it any function is in reach.
    lambda mark: Getattr(torch.Tensor, 'backward'),
    lambda mark: Getattr(HistoryBuffer, 'register_statistics')],
    ids=['code', 'getattr', 'getattr of a history'])
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


@pytest.mark.parametrize('content', [
    b'', b'<html>not found</html>', b'PK\x03\x04', pickle.dumps([1, 2]), None], ids=repr)
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
    shared = torch.arange(6.)
    weights = dict(a=shared[:2], b=shared, c=torch.tensor(3), d=torch.ones(2, 3).t())
    write(path, weights, meta)
    content = read(path)
    assert content['meta'] == meta
    assert {n: v.tolist() for n, v in content['state_dict'].items()} == {
        n: v.tolist() for n, v in weights.items()}
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
