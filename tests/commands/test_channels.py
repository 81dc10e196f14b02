"""Networks of one, four and six channels: predict, get_flops, visualize_features, export."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image

sys.path.insert(0, str(ROOT / 'tests/checks'))
import shapes  # noqa: E402

from convmlp_backbone import ConvMLP  # noqa: E402
from convmlp_backbone.commands.models import build_model  # noqa: E402
from convmlp_backbone.deploy.agreement import agreement, open_file  # noqa: E402
from convmlp_backbone.deploy.facts import facts_of  # noqa: E402
from convmlp_backbone.deploy.files import trace, unfinished  # noqa: E402
from convmlp_backbone.deploy.models import exportable, swapped  # noqa: E402
from convmlp_backbone.many_channels import fit_channels  # noqa: E402
from convmlp_backbone.predictors import CheckpointPredictor  # noqa: E402
from convmlp_backbone.runtime import read_image, resize  # noqa: E402

NPY = """
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS


@TRANSFORMS.register_module(force=True)
class LoadSix(BaseTransform):
    def transform(self, results):
        img = np.load(results['img_path'])
        results.update(img=img, img_shape=img.shape[:2], ori_shape=img.shape[:2])
        return results
"""


def write_config(tmp_path, channels):
    """A tiny detector of so many channels: its config as a file, and a folder of its images."""
    mode = {1: 'L', 4: 'RGBA'}.get(channels, 'RGB')
    root = shapes.make(tmp_path / 'data', train=1, val=2, mode=mode)
    cfg = shapes.config(ROOT / 'configs/retinanet_convmlp_s_fpn_coins.py', root)
    cfg.model.backbone.in_channels = channels
    cfg.model.data_preprocessor.update(
        mean=[110.0] * channels, std=[40.0] * channels, bgr_to_rgb=False
    )
    cfg.model.test_cfg.score_thr = 0
    load = dict(type='LoadImageFromFile', color_type={1: 'grayscale'}.get(channels, 'unchanged'))
    if channels == 6:
        exec(NPY, {})
        load = dict(type='LoadSix')
        for path in root.glob('val/*.png'):
            with Image.open(path) as image:
                np.save(path.with_suffix('.npy'), np.tile(np.asarray(image), 2))
            path.unlink()
    cfg.test_dataloader.dataset.pipeline[0] = load
    (tmp_path / 'net.py').write_text(
        ''.join(  # call_tool leaves Config.dump nothing to write
            f'{key} = {value!r}\n' for key, value in cfg.to_dict().items()
        )
    )
    return cfg, root


@pytest.mark.parametrize('channels', [1, 4, 6])
def test_commands(channels, call_tool, tmp_path):
    pytest.importorskip('mmdet')
    cfg, root = write_config(tmp_path, channels)
    model, _ = build_model('net.py')
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=shapes.NAMES))),
        'x.pth',
    )
    out = call_tool('predict', 'net.py', 'x.pth', root / 'val', '--out-dir', 'out')
    assert '2 images' in out
    assert {r['file_name'] for r in json.loads((tmp_path / 'out/predictions.json').read_text())}
    assert len(list((tmp_path / 'out/vis').iterdir())) == 2
    assert json.loads(call_tool('get_flops', 'net.py', '--shape', 64, '--json'))['input'] == [
        channels,
        64,
        64,
    ]
    Image.new('RGB', (64, 64), (90, 10, 200)).save('photo.png')
    assert 'pictures' in call_tool('visualize_features', 'photo.png', 'net.py')
    # What predict feeds is what the test data set does.
    from mmengine.registry import DATASETS, DefaultScope

    fit_channels(cfg)
    predictor = CheckpointPredictor(cfg, 'x.pth', 'cpu')
    (path, *_) = sorted(root.glob('val/*.*'))
    image = predictor.read(path)
    ours = predictor.pipeline(
        dict(
            img=image if predictor.own_files else image[..., swapped(channels)],
            img_id=0,
            img_path='',
            img_shape=image.shape[:2],
            ori_shape=image.shape[:2],
        )
    )['inputs']
    cfg.test_dataloader.dataset.pipeline = [
        step for step in cfg.test_dataloader.dataset.pipeline if step['type'] != 'LoadAnnotations'
    ]
    if channels == 6:
        return
    with DefaultScope.overwrite_default_scope('mmdet'):
        theirs = DATASETS.build(cfg.test_dataloader.dataset)[0]['inputs']
    assert (ours.int() - theirs.int()).abs().max() <= 1  # roundings of grey


@pytest.mark.parametrize('channels', [4])
def test_export(channels, tmp_path):
    backbone = ConvMLP(shapes.ARCH, channels).eval()
    settings = dict(mean=[110.0] * channels, std=[40.0] * channels)
    module = exportable(backbone, settings, True)
    facts = facts_of({}, module)
    assert facts['in_channels'] == channels and len(facts['mean']) == channels
    photo = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    with unfinished(trace(module), tmp_path / 'x.pt2', facts) as part:
        rows = list(agreement(backbone, open_file(part), [photo], sizes=((64, 64),), batches=(2,)))
    assert len(rows) == 2 and max(max(row.differences.values()) for row in rows) < 1e-4


def test_channels_of_files(tmp_path):
    Image.new('RGBA', (5, 4), (1, 2, 3, 4)).save(tmp_path / 'x.png')
    for channels, pixel in ((1, [2]), (3, [1, 2, 3]), (4, [1, 2, 3, 4])):
        image = read_image(tmp_path / 'x.png', channels)
        assert image.shape == (4, 5, channels) and image[0, 0].tolist() == pixel
        for how in ('cv2-bilinear', 'pillow-bilinear'):
            assert resize(image, 8, 7, how).shape == (8, 7, channels)
    assert [swapped(n) for n in (1, 3, 4, 5)] == [[0], [2, 1, 0], [2, 1, 0, 3], [0, 1, 2, 3, 4]]
    with pytest.raises(ValueError, match='of 6 channels only arrays'):
        read_image(tmp_path / 'x.png', 6)
