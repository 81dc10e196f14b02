"""RGB images to a toolbox's data samples and pictures, by a checkpoint or by an exported file."""

import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.registry import DATASETS, MODELS, init_default_scope
from mmengine.structures import BaseDataElement

from .amp import predict_in_bf16
from .checkpoints import load_model
from .checks.contract import numbering, require_names
from .checks.loaders import input_channels, model_classes
from .checks.names import full_palette
from .deploy.evaluation import as_sample, load
from .deploy.files import ENDINGS
from .deploy.models import swapped
from .errors import UserError
from .fused import fuse_model
from .pictures import pixels_of
from .runtime import read_image

# Data sample and visualizer of each toolbox.
CLASSES = dict(
    mmdet=('DetDataSample', 'DetLocalVisualizer'),
    mmseg=('SegDataSample', 'SegLocalVisualizer'),
    mmpretrain=('DataSample', 'UniversalVisualizer'),
)
SCOPES = dict(
    detection='mmdet', instances='mmdet', segmentation='mmseg', classification='mmpretrain'
)


def is_exported(name: str | Path) -> bool:
    """Whether ``name`` is that of an exported file rather than of a checkpoint."""
    return Path(name).suffix in ENDINGS


class Predictor:
    """What both have: class names, and pictures of what was predicted.

    Attributes:
        own_files (bool): Files are loaded by the config's own steps, and need not be images.
        channels (int): Of what the network is fed.
    """

    own_files = False
    channels: int

    def __init__(self, scope: str, meta: dict):
        self.scope, self.meta, self.classes = scope, meta, meta['classes']
        try:
            self.sample = getattr(import_module(f'{scope}.structures'), CLASSES[scope][0])
            kind = getattr(import_module(f'{scope}.visualization'), CLASSES[scope][1])
        except ImportError as error:
            raise UserError(f'pictures are drawn by {scope}: {error}') from None
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # that it saves nothing
            self.visualizer = kind()
        self.visualizer.dataset_meta = meta

    def read(self, source: Any) -> np.ndarray:
        """A file, an open one or a PIL image as the network is fed: RGB (height, width, 3)."""
        return read_image(source)

    def __call__(self, images: Sequence[np.ndarray]) -> list:
        """A data sample for each of what :meth:`read` gives."""
        raise NotImplementedError

    def shown(self, image: np.ndarray) -> np.ndarray:
        """What :meth:`read` gives as an RGB picture."""
        return (
            image
            if image.dtype == np.uint8 and image.shape[2:] == (3,)
            else pixels_of(np.atleast_3d(image).transpose(2, 0, 1), bgr=False)
        )

    def picture(self, image: np.ndarray, sample: Any, score_thr: float) -> np.ndarray:
        """An RGB picture of an image with the prediction drawn in."""
        image = np.ascontiguousarray(self.shown(image))
        if self.scope == 'mmpretrain':
            return self.visualizer.visualize_cls(image, sample, classes=self.classes, draw_gt=False)
        options = dict(pred_score_thr=score_thr) if self.scope == 'mmdet' else {}
        if self.scope == 'mmseg':
            self.visualizer.alpha = 0.8
        with warnings.catch_warnings():
            # Boxes end at the border, rounded up.
            warnings.filterwarnings('ignore', message='.*out of bounds')
            self.visualizer.add_datasample('', image, sample, draw_gt=False, **options)
        return self.visualizer.get_image()


class CheckpointPredictor(Predictor):
    """The model of a config with the weights and class names of a file.

    Where the file has no class names, they are those of the config's data set, or numbers.

    Args:
        cfg: The config, checked and fitted to the device.
        source: See :func:`convmlp_backbone.checkpoints.fetch`.
        fuse: Fold what folds.
        check: Raise where the names are not as many as the classes.
        precision: ``'bf16'`` or ``'f32'``.
    """

    def __init__(
        self,
        cfg: Any,
        source: str | Path,
        device: str,
        trust: bool = False,
        fuse: bool = False,
        check: bool = True,
        precision: str = 'f32',
    ):
        scope = cfg.get('default_scope', 'mmdet')
        init_default_scope(scope)
        cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
        self.model = MODELS.build(cfg.model).to(device).eval()
        known = known_classes(cfg, self.model)
        told = load_model(self.model, source, trust).get('dataset_meta') or {}
        meta = in_order(cfg, {**known, **told}, told)
        if check:
            require_names(cfg, meta['classes'])
        meta['classes'] += tuple(
            map(str, range(len(meta['classes']), model_classes(cfg.model) or 0))
        )
        super().__init__(scope, meta)
        self.model.dataset_meta = meta
        if fuse:
            fuse_model(self.model)
        self.precision = precision
        if precision == 'bf16':
            predict_in_bf16(self.model)
        self.channels, loaders = input_channels(cfg) or 3, own_loaders(cfg)
        self.loaders, self.own_files = Compose(loaders), bool(loaders)
        self.steps = [
            step
            for step in cfg.test_dataloader.dataset.pipeline
            if not step['type'].rpartition('.')[2].startswith('Load')
        ]
        self.pipeline, self.model_cfg = Compose(self.steps), cfg.model

    def read(self, source: Any) -> np.ndarray:
        """As :meth:`Predictor.read`; what the config's own steps load, in their own order of
        channels and of their own type."""
        if not self.own_files:
            return read_image(source, self.channels)
        if not isinstance(source, (str, Path)):
            raise UserError('only files can be loaded by the steps of the config')
        image = np.atleast_3d(self.loaders(dict(img_path=str(source)))['img'])
        if image.shape[2] != self.channels:
            raise UserError(f'has {image.shape[2]} channels, the network takes {self.channels}')
        return image

    def shown(self, image: np.ndarray) -> np.ndarray:
        return super().shown(image[..., swapped(self.channels)] if self.own_files else image)

    def __call__(self, images: Sequence[np.ndarray]) -> list[BaseDataElement]:
        packed = []
        for image in images:
            shape = image.shape[:2]
            packed.append(
                self.pipeline(
                    dict(
                        img=np.ascontiguousarray(
                            image if self.own_files else image[..., swapped(self.channels)]
                        ),
                        img_shape=shape,
                        ori_shape=shape,
                        img_id=0,
                        img_path='',
                        sample_idx=0,
                    )
                )
            )
        samples = []
        if self.scope == 'mmdet':  # which pads a batch to its largest image
            groups = [packed]
        else:
            groups = [[part] for part in packed]
        for group in groups:
            with torch.no_grad():
                samples += self.model.test_step(
                    {key: [part[key] for part in group] for key in ('inputs', 'data_samples')}
                )
        return [sample.cpu() for sample in samples]


class FactsPredictor(Predictor):
    """What an exported file's facts are enough for: pictures of what its model found.

    Args:
        facts: See :func:`convmlp_backbone.deploy.facts.facts_of`; of a task in :data:`SCOPES`.
    """

    def __init__(self, facts: dict):
        self.task, self.channels = facts['task'], facts.get('in_channels', 3)
        classes = facts['classes'] or []
        palette = full_palette(facts['palette'] or None, len(classes))
        super().__init__(SCOPES[self.task], dict(classes=classes, palette=palette))

    def as_sample(self, result: Any, image: np.ndarray) -> BaseDataElement:
        """What a :class:`~convmlp_backbone.runtime.Runtime` found, as a toolbox's data sample."""
        return as_sample(result, self.sample(metainfo=dict(ori_shape=image.shape[:2])), self.task)


class FilePredictor(FactsPredictor):
    """An exported file, in its runtime."""

    def __init__(self, file: str | Path, **options: Any):
        self.runtime = load(file, **options)
        facts = self.runtime.facts
        if facts['task'] not in SCOPES:
            raise UserError(f'{file} is a {facts["task"]}, which predicts nothing to draw')
        if facts['input'] != 'rgb':
            raise UserError(f'{file} takes normalised floats: export it without --normalised')
        super().__init__(facts)

    def read(self, source: Any) -> np.ndarray:
        return read_image(source, self.channels)

    def __call__(self, images: Sequence[np.ndarray]) -> list[BaseDataElement]:
        return [
            self.as_sample(result, image)
            for image, result in zip(images, self.runtime.predict(images), strict=True)
        ]


def own_loaders(cfg: Any) -> list[dict]:
    """The steps that load an image, [] where they do no more than read a photo or grey values."""
    loader = cfg.get('test_dataloader') or {}
    steps = [
        step
        for step in (loader.get('dataset') or {}).get('pipeline') or ()
        if (name := step['type'].rpartition('.')[2]).startswith('Load') and 'Annotation' not in name
    ]
    plain = {3: 'color', 1: 'grayscale'}.get(input_channels(cfg) or 3)
    return (
        []
        if all(
            step['type'].endswith('LoadImageFromFile') and step.get('color_type', 'color') == plain
            for step in steps
        )
        else steps
    )


def in_order(cfg: Any, known: dict, told: dict) -> dict:
    """Classes in the order of the numbers that were learned, with a colour for each.

    Args:
        known: Classes and colours of the checkpoint, or else of the config.
        told: Those of the checkpoint.

    Returns:
        dict: Besides, ``category_ids`` of the training file, None where they are not known.
    """
    names, ids = numbering(cfg, told)
    classes = list(names or known['classes'])
    palette = known.get('palette')
    if palette is None or isinstance(palette, str):
        palette = ()
    colours = dict(zip(known['classes'], palette, strict=False))
    return dict(
        classes=tuple(classes),
        category_ids=ids,
        palette=full_palette([colours[name] for name in classes if name in colours], len(classes)),
    )


def known_classes(cfg: Any, model: Any) -> dict:
    """Class names and palette that the config's data set gives."""
    dataset = cfg.test_dataloader.dataset
    if cfg.get('default_scope') == 'mmpretrain':  # whose data sets cannot be had without the data
        with DATASETS.switch_scope_and_registry(None) as registry:
            known = {
                'classes': list(map(str, range(model.head.num_classes))),
                **getattr(registry.get(dataset.type), 'METAINFO', {}),
            }
    else:
        known = DATASETS.build(dict(dataset, lazy_init=True)).metainfo
    return {key: known[key] for key in ('classes', 'palette') if key in known}
