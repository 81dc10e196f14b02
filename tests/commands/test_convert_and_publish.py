"""convmlp convert, convmlp publish, and what train.py and test.py load."""

import errno
import hashlib
import os
import re

import checkpoint_files as files
import pytest
import torch
from checkpoint_files import BACKBONE, Code, prefixed, saved
from test_checkpoints import assert_loaded, backbone

from convmlp_backbone.checkpoints import read

SMALL = [
    'train_dataloader.dataset.indices=2',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'train_dataloader.dataset.pipeline.2.scale=(64,64)',
    'val_dataloader.dataset.pipeline.1.scale_factor=0.3',
    'test_dataloader.dataset.pipeline.1.scale_factor=0.3',
]


@pytest.fixture
def training(coins, call_tool, restore_loaders):
    """A folder with a training checkpoint, epoch_1.pth, and the arguments that wrote it."""
    pytest.importorskip('mmdet')
    args = [
        'retinanet_convmlp_s_fpn_coins',
        '--data-root',
        coins,
        '--work-dir',
        'work',
        '--cfg-options',
        *SMALL,
        'default_hooks.logger.interval=1',
    ]
    call_tool('train', *args, 'train_cfg.max_epochs=1')
    return args


def test_training_resumes_without_trust_and_refuses_code(training, coins, call_tool, tmp_path):
    path = tmp_path / 'work/epoch_1.pth'
    content = read(path)  # history buffers, NumPy numbers, the optimizer
    assert content['message_hub']['log_scalars']['train/loss'].mean() > 0
    assert content['optimizer']['state']
    call_tool('train', *training, 'train_cfg.max_epochs=2', '--resume')
    resumed = read(tmp_path / 'work/epoch_2.pth')
    assert (resumed['meta']['epoch'], resumed['meta']['iter']) == (2, 2)
    steps = {int(state['step']) for state in resumed['optimizer']['state'].values()}
    assert steps == {2}

    mark = tmp_path / 'was run'
    content = dict(meta=content['meta'], message_hub=content['message_hub'], state_dict={})
    evil = saved(tmp_path / 'evil.pth', dict(content, extra=Code(mark)))
    init = saved(tmp_path / 'init.pth', dict(BACKBONE, extra=Code(mark)))
    text = saved(
        tmp_path / 'text.pth',
        dict(content, meta=dict(content['meta'], config=f'open({str(mark)!r}, "w")')),
    )
    options = training[: training.index('--cfg-options')]
    for error in (
        call_tool('train', *training, '--resume', evil),
        call_tool('train', *training, f'load_from={evil}'),
        call_tool(
            'train',
            *training,
            'model.backbone.init_cfg.type=Pretrained',
            f'model.backbone.init_cfg.checkpoint={init}',
        ),
        call_tool('test', options[0], evil, *options[1:]),
        call_tool('predict', options[0], evil, coins / 'val', '--out-dir', 'out'),
        call_tool('convert', evil, 'new.pth'),
        call_tool('publish', evil, 'new.pth'),
    ):
        assert re.match(r'error: \S+(evil|init)\.pth holds code \(exec\).*--trust', error), error
    # MMEngine would run the text of meta['config'] here.
    call_tool('train', *training, 'train_cfg.max_epochs=1', '--resume', text)
    assert not mark.exists()
    old = saved(tmp_path / 'old.pth', files.downstream('retinanet', state_dict={}))
    assert 'load_from=' in call_tool('train', *training, '--resume', old)
    call_tool('train', *training, 'train_cfg.max_epochs=1', '--resume', evil, '--trust')
    assert mark.exists()


def test_test_evaluates_only_what_fits(coins, call_tool, restore_loaders):
    pytest.importorskip('mmdet')
    args = ['--data-root', coins, '--cfg-options', *SMALL]
    old = saved('retinanet.pth', files.downstream('retinanet', classes=('coin',)))
    assert 'Loaded 216 tensors' in call_tool('test', 'retinanet_convmlp_s_fpn_coins', old, *args)
    half = files.downstream('retinanet', classes=('coin',))
    del half['state_dict']['bbox_head.retina_cls.bias']
    error = call_tool('test', 'retinanet_convmlp_s_fpn_coins', saved('half.pth', half), *args)
    assert 'half.pth does not fit: bbox_head.retina_cls.bias missing' in error
    other = saved('other.pth', files.downstream('retinanet'))
    error = call_tool('test', 'retinanet_convmlp_s_fpn_coins', other, *args)
    assert 'bbox_head.retina_cls.weight (27, 256, 3, 3) instead of (9, 256, 3, 3)' in error


@pytest.mark.parametrize(
    'source',
    [
        files.imagenet,
        files.timm_training,
        lambda: files.downstream('retinanet', state_dict=prefixed('backbone.', BACKBONE)),
    ],
)
@pytest.mark.parametrize(
    'names, prefix, suffix',
    [('backbone', '', '.pth'), ('mm', 'backbone.', '.safetensors'), ('timm', '', '.safetensors')],
)
def test_convert(source, names, prefix, suffix, call_tool, tmp_path):
    path, new = saved(tmp_path / 'x.pth', source()), tmp_path / f'new{suffix}'
    output = call_tool('convert', path, new, '--names', names)
    if names == 'timm' and 'meta' in source():
        assert 'error: no classifier in the file' in output and not new.exists()
        return
    assert f'read    {path}: ConvMLP-S' in output and f'wrote   {new}: ConvMLP-S' in output
    weights = read(new)['state_dict']
    expected = prefixed(prefix, files.imagenet() if names == 'timm' else BACKBONE)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(v, expected[name]) for name, v in weights.items())
    assert_loaded(backbone(new))
    assert 'exists: not overwritten' in call_tool('convert', path, new)


def test_convert_strips_and_halves(call_tool, tmp_path):
    content = files.downstream('sem_fpn')
    path = saved(tmp_path / 'x.pth', content)
    output = call_tool('convert', path, 'new.safetensors', '--half')
    assert 'left    0 tensors, optimizer' in output
    new = read('new.safetensors')
    assert new['meta']['dataset_meta']['classes'] == content['meta']['CLASSES']
    for name, v in content['state_dict'].items():
        assert torch.equal(new['state_dict'][name], v.half() if v.is_floating_point() else v), name


def test_convert_needs_a_convmlp(call_tool, tmp_path):
    path = saved(tmp_path / 'x.pth', {'fc.weight': torch.zeros(1)})
    error = call_tool('convert', path, 'new.pth', '--names', 'mm')
    assert error.startswith('error: ') and 'no ConvMLP' in error


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_publish(suffix, call_tool, tmp_path):
    path = saved(tmp_path / 'x.pth', files.downstream('sem_fpn'))
    call_tool('publish', path, f'fpn{suffix}')
    (new,) = tmp_path.glob(f'fpn-????????{suffix}')
    assert hashlib.sha256(new.read_bytes()).hexdigest()[:8] == new.stem[-8:]
    content = read(new)
    assert content.keys() == {'meta', 'state_dict'}
    assert content['meta'].keys() == {'epoch', 'iter', 'dataset_meta'}
    assert content['meta']['dataset_meta'] == dict(
        classes=files.COCO_START, palette=[(0, 1, 2), (3, 4, 5), (6, 7, 8)]
    )
    before = new.read_bytes()
    error = call_tool('publish', path, f'fpn{suffix}')
    assert f'{new.name} exists: not overwritten' in error
    assert new.read_bytes() == before


@pytest.mark.parametrize('command', [['publish'], ['convert'], ['convert', '--half']])
@pytest.mark.parametrize(
    'content, target, words',
    [
        (lambda: BACKBONE, 'file/x.pth', 'Not a directory'),
        (lambda: BACKBONE, 'x.onnx', 'ends in .pth or .safetensors'),
        (lambda: dict(state_dict={}), 'x.pth', 'no weights'),
        (lambda: {'__metadata__': torch.ones(1)}, 'x.safetensors', 'cannot be written'),
        (lambda: dict(BACKBONE, **{'x.y': torch.ones(1).to_sparse()}), 'x.pth', 'sparse tensor'),
    ],
)
def test_what_cannot_be_written_leaves_nothing(
    command, content, target, words, call_tool, tmp_path
):
    path, file = saved(tmp_path / 'in.pth', content()), tmp_path / 'file'
    file.write_text('')
    name, *options = command
    error = call_tool(name, path, target, *options)
    assert error.startswith('error: ') and words in error and '\n' not in error
    assert sorted(tmp_path.rglob('*')) == [file, path]


def test_half_of_what_is_too_large(call_tool, tmp_path):
    path = saved(tmp_path / 'in.pth', BACKBONE | {'large': torch.tensor([1e5])})
    assert 'large would not be finite' in call_tool('convert', path, 'x.pth', '--half')
    assert not (tmp_path / 'x.pth').exists()


@pytest.mark.parametrize('code', [errno.EROFS, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize('name', ['publish', 'convert'])
def test_disk_that_takes_nothing(name, code, call_tool, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(code, os.strerror(code))

    path = saved(tmp_path / 'in.pth', BACKBONE)
    monkeypatch.setattr(os, 'fsync', fail)
    error = call_tool(name, path, tmp_path / 'x.pth')
    assert os.strerror(code) in error and 'x' in error and '\n' not in error
    assert list(tmp_path.iterdir()) == [path]
