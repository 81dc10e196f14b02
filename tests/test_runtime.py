"""The runtime's arithmetic, and the files it refuses; what it predicts: deploy/test_export.py."""

import io
import json
import os
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from convmlp_backbone import runtime
from convmlp_backbone.runtime import (
    FORMAT,
    ExportedFileError,
    Runtime,
    new_size,
    paste,
    prepare,
    read_image,
    resize_bilinear,
)

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')


def test_opencv_resizing_to_the_last_bit():
    cv2 = pytest.importorskip('cv2')
    random = np.random.default_rng(0)
    for i in range(60):
        height, width, new_height, new_width = map(int, random.integers(1, 200, 4))
        if i % 5 == 0:
            height, width = 2 * new_height, 2 * new_width  # a case of its own
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert (
            resize_bilinear(image, new_height, new_width)
            == cv2.resize(image, (new_width, new_height))
        ).all()


@pytest.mark.parametrize(
    'kind, arguments',
    [
        ('Resize', dict(scale=(1333, 800), keep_ratio=True)),
        ('Resize', dict(scale=(64, 48))),
        ('Resize', dict(scale_factor=256 / 250)),
        ('Resize', dict(scale_factor=(0.5, 0.7))),
        ('ResizeEdge', dict(scale=248, backend='pillow', interpolation='bicubic')),
        ('ResizeEdge', dict(scale=100, edge='long')),
        ('CenterCrop', dict(crop_size=(70, 51))),
        ('CenterCrop', dict(crop_size=500)),
    ],
)
@pytest.mark.parametrize('shape', [(97, 161), (160, 90), (50, 50)])
def test_steps_as_in_the_toolbox(kind, arguments, shape):
    pytest.importorskip('mmpretrain')
    from mmpretrain.registry import TRANSFORMS

    from convmlp_backbone.deploy.facts import resize_steps

    step = dict(type=kind, **arguments)
    cfg = dict(
        test_dataloader=dict(
            dataset=dict(
                type='CustomDataset',
                pipeline=[dict(type='LoadImageFromFile'), step, dict(type='PackInputs')],
            )
        )
    )
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    transform = TRANSFORMS.build(dict(step, _scope_='mmpretrain'))
    theirs = transform(dict(img=image, img_shape=shape))['img']
    ours = prepare(image, resize_steps(cfg))
    assert ours.shape == theirs.shape and (ours == theirs).all()


def test_masks_as_in_mmdetection():
    pytest.importorskip('mmdet')
    import torch
    from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask

    random = np.random.default_rng(0)
    for box in [
        (3.2, 4.1, 30.7, 20.2),
        (-5, -3, 12, 9),
        (50, 30, 70.5, 44.4),
        (8, 8, 8.3, 30),
        (0, 0, 60, 40),
        (59.5, 39.5, 60, 40),
        (5, 5, 5, 9),
    ]:
        mask, box = random.random((28, 28), np.float32), np.float32(box)
        part, place = _do_paste_mask(
            torch.from_numpy(mask)[None, None], torch.from_numpy(box)[None], 40, 60
        )
        theirs, canvas = np.zeros((40, 60), np.float32), np.zeros((40, 60), bool)
        theirs[place] = part[0]
        paste(mask, box, canvas, 0.5)
        clear = abs(theirs - 0.5) > 1e-5
        assert (canvas == (theirs >= 0.5))[clear].all() and clear.mean() > 0.99


def test_images_of_every_mode():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    for image in (
        Image.fromarray(grey),
        Image.fromarray(grey.astype(np.uint16) * 256),
        Image.fromarray(grey).convert('P'),
        Image.fromarray(grey).convert('LA'),
    ):
        content = io.BytesIO()
        image.save(content, 'png')
        assert (read_image(content) == grey[..., None]).all(), image.mode
    turned, content = Image.fromarray(grey[:8]), io.BytesIO()
    exif = turned.getexif()
    exif[274] = 6
    turned.save(content, 'png', exif=exif)
    assert read_image(content).shape == (16, 8, 3)
    assert new_size(480, 640, dict(scale=[1333, 800], keep_ratio=True)) == (800, 1067)


def model(path, nodes=None, external=None, domain='', **facts):
    """An ONNX file: the mean of every image, as if it were a classifier."""
    helper = onnx.helper
    nodes = nodes or [
        helper.make_node('Cast', ['images'], ['x'], to=1, domain=domain),
        helper.make_node('ReduceMean', ['x', 'axes'], ['scores'], keepdims=0),
    ]
    axes = helper.make_tensor('axes', onnx.TensorProto.INT64, [2], [1, 2])
    if external:
        axes.ClearField('int64_data')
        axes.data_location = onnx.TensorProto.EXTERNAL
        axes.external_data.add(key='location', value=external)
    graph = helper.make_graph(
        nodes,
        'x',
        [helper.make_tensor_value_info('images', 2, ['n', 'h', 'w', 3])],
        [helper.make_tensor_value_info('scores', 1, ['n', 3])],
        [axes],
    )
    made = helper.make_model(
        graph, ir_version=8, opset_imports=[helper.make_opsetid(name, 18) for name in {'', domain}]
    )
    facts = {
        **dict(
            format=FORMAT,
            version='1.2.3',
            task='classification',
            outputs=['scores'],
            input='rgb',
            resize=[],
        ),
        **facts,
    }
    helper.set_model_props(
        made, {f'convmlp.{k}': json.dumps(v) for k, v in facts.items() if v is not None}
    )
    path.write_bytes(made.SerializeToString())
    return path


def test_a_file(tmp_path):
    opened = Runtime(model(tmp_path / 'x.onnx'))
    image = np.full((5, 7, 3), (10, 20, 30), np.uint8)
    assert opened(image).tolist() == [10, 20, 30]
    assert [r.tolist() for r in opened.predict([image, image[:2], image])] == [[10, 20, 30]] * 3
    for wrong in (image[None].astype(np.float32), image, image[None, ..., :2], image[None, :0]):
        with pytest.raises(ExportedFileError, match='takes'):
            opened.run(wrong)


def test_signals_after_openvino(tmp_path):
    """Whatever the order in which runtimes are deleted, a handler has a stack to run on."""
    pytest.importorskip('openvino')
    opened = [Runtime(model(tmp_path / f'{i}.onnx'), 'openvino') for i in range(3)]
    while opened:
        del opened[0]
    child = os.fork()  # which may be killed
    if not child:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        os.kill(os.getpid(), signal.SIGUSR1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize(
    'make, words',
    [
        (lambda path: path.write_bytes(b''), ['damaged or no onnx file']),
        (lambda path: path.write_bytes(b'\x89PNG' + bytes(range(256)) * 9), ['damaged or no onnx']),
        (lambda path: path.write_bytes(model(path).read_bytes()[:-40]), ['damaged']),
        (lambda path: model(path, format=None), ['not written by `convmlp export`']),
        (lambda path: model(path, format=9), ['format 9', '1.2.3', f'reads format {FORMAT}']),
        (lambda path: model(path, domain='evil.ops'), ['"evil.ops"', 'refused']),
        (lambda path: model(path, external='../../etc/passwd'), ['../../etc/passwd', 'outside']),
        (lambda path: model(path, external='/etc/passwd'), ['/etc/passwd', 'outside']),
        (lambda path: model(path, external='weights.bin'), ['cannot be loaded by onnxruntime']),
        (
            lambda path: model(
                path, nodes=[onnx.helper.make_node('Nonsense', ['images'], ['scores'])]
            ),
            ['cannot be loaded'],
        ),
        (lambda path: None, ['no exported file']),
    ],
)
def test_refused_files(make, words, tmp_path):
    make(tmp_path / 'x.onnx')
    with pytest.raises(ExportedFileError) as error:
        Runtime(tmp_path / 'x.onnx')
    text = str(error.value)
    assert all(word in text for word in words) and '\n' not in text and len(text) < 700


def test_an_attribute_with_a_graph_is_looked_into(tmp_path):
    inner = onnx.load(model(tmp_path / 'x.onnx', external='../x'), load_external_data=False).graph
    node = onnx.helper.make_node('If', ['images'], ['scores'], then_branch=inner, else_branch=inner)
    with pytest.raises(ExportedFileError, match='outside its folder'):
        Runtime(model(tmp_path / 'y.onnx', nodes=[node]))


@pytest.mark.parametrize(
    'text, words',
    [
        ('<net><layers/></net>', 'not written by'),
        ('<net', 'damaged'),
        ('<net><layers><layer version="extension"/></layers></net>', '"extension"'),
    ],
)
def test_refused_openvino_files(text, words, tmp_path):
    (tmp_path / 'x.xml').write_text(text)
    (tmp_path / 'x.bin').write_bytes(b'')
    with pytest.raises(ExportedFileError, match=words):
        Runtime(tmp_path / 'x.xml')
    (tmp_path / 'x.bin').unlink()
    (tmp_path / 'x.xml').write_text('<net><layers/></net>')
    with pytest.raises(ExportedFileError, match='needs x.bin beside it'):
        Runtime(tmp_path / 'x.xml')


@pytest.mark.parametrize(
    'own, unit, asked, expected, words',
    [
        (None, 'AMX', None, 'f32', 'f32'),
        (None, 'AMX', 'auto', 'bf16', 'by AMX'),
        (None, None, 'auto', 'f32', 'no units'),
        ('bf16', None, None, 'bf16', 'bf16'),
        ('auto', 'AMX', None, 'bf16', 'by AMX'),
        ('auto', 'AMX', 'f32', 'f32', 'f32'),
        ('int8', 'AMX', 'auto', 'int8', 'int8'),
        ('int8', 'AMX', 'bf16', None, 'in int8 or auto, not in bf16'),
        (None, None, 'int8', None, 'in f32 or bf16 or auto, not in int8'),
        (None, None, 'f16', None, 'not in f16'),
    ],
)
def test_precision(own, unit, asked, expected, words, tmp_path, monkeypatch):
    pytest.importorskip('openvino')
    monkeypatch.setattr(runtime, 'bf16_unit', lambda: unit)
    file = model(tmp_path / 'x.onnx', precision=own)
    if expected is None:
        with pytest.raises(ExportedFileError, match=words):
            Runtime(file, precision=asked)
        return
    found = Runtime(file, precision=asked)
    assert found.precision == expected and words in found.reason
    assert found(np.full((5, 7, 3), 10, np.uint8)).tolist() == [10, 10, 10]
    if expected == 'bf16':
        with pytest.raises(ExportedFileError, match='cannot be run by onnxruntime'):
            Runtime(file, 'onnxruntime', precision='bf16')


def test_missing_packages(tmp_path, monkeypatch):
    path = model(tmp_path / 'x.onnx')
    monkeypatch.setitem(sys.modules, 'openvino', None)
    assert Runtime(path)
    with pytest.raises(ExportedFileError, match='pip install openvino'):
        Runtime(path, 'openvino')
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    with pytest.raises(ExportedFileError, match='pip install onnxruntime'):
        Runtime(path)
    with pytest.raises(ExportedFileError, match='runs in PyTorch'):
        (tmp_path / 'x.pt2').write_bytes(b'')
        Runtime(tmp_path / 'x.pt2')
