"""What an exported file says of itself, so that nothing else is needed to use it."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS

from ..checkpoints import NORMALISATION
from ..config import datasets
from ..errors import UserError
from ..runtime import FORMAT
from ..version import __version__
from .models import Exportable

IGNORED = ('LoadImageFromFile', 'LoadAnnotations')  # and Pack...
IMAGENET = dict(NORMALISATION, to_rgb=True)  # the preprocessing of a bare backbone
STEPS = ('Resize', 'ResizeEdge', 'CenterCrop')


def facts_of(cfg: Config, module: Exportable, dataset_meta: dict | None = None) -> dict:
    """The facts of an exported model, each of which JSON can hold.

    Args:
        cfg: The model's config; ``{}`` for a bare backbone.
        module: What is exported.
        dataset_meta: Class names and palette of the checkpoint, where it has them.

    Raises:
        UserError: The config's test pipeline does what the runtime cannot.
    """
    meta = {**dataset_metainfo(cfg), **(dataset_meta or {})}
    backbone = module.backbone
    facts = dict(
        format=FORMAT,
        version=__version__,
        task=module.task,
        outputs=list(module.outputs),
        model=(cfg.get('model') or {}).get('type', type(backbone).__name__),
        parameters=sum(p.numel() for p in module.parameters()),
        input='normalised' if module.normalised else 'rgb',
        mean=module.mean,
        std=module.std,
        channels='rgb' if module.rgb else 'bgr',
        stride=max(module.divisor, *backbone.out_strides),
        resize=resize_steps(cfg, module.normalised),
        classes=plain(meta.get('classes')),
        palette=plain(meta.get('palette')),
    )
    if module.channels != 3:
        facts['in_channels'] = module.channels
    if module.task == 'instances':
        facts['mask_threshold'] = module.cfg['rcnn']['mask_thr_binary']
    return facts


def plain(values: Any) -> list | None:
    """A palette or class names as lists, whatever they were; None stays."""
    return (
        torch.as_tensor(values).tolist()
        if hasattr(values, 'dtype')
        else [v if isinstance(v, str) else list(v) for v in values]
        if values
        else None
    )


def test_dataset(cfg: Config) -> dict:
    """The config of the test data set that lies on a disk, {} where there is none."""
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    return next(iter(datasets(loader)), None) or (loader or {}).get('dataset') or {}


def dataset_metainfo(cfg: Config) -> dict:
    """Class names and palette that the config or the class of its data set gives."""
    dataset = test_dataset(cfg)
    kind = DATASETS.get(dataset['type']) if 'type' in dataset else None
    own = {key.lower(): v for key, v in (getattr(kind, 'METAINFO', None) or {}).items()}
    return {
        **own,
        **{k: v for k, v in (dataset.get('metainfo') or {}).items() if not isinstance(v, str)},
    }


def resize_steps(cfg: Config, normalised: bool = False) -> list[dict]:
    """The steps of the test pipeline that change an image's size, as the runtime does them.

    Args:
        normalised (bool): Images are loaded outside, by whatever step.
    """
    steps = []
    for step in test_dataset(cfg).get('pipeline') or []:
        kind = step['type'].rpartition('.')[2]
        if kind in IGNORED or kind.startswith(('Pack', *['Load'] * normalised)):
            continue
        if kind.startswith('Load'):
            raise UserError(
                f'the test pipeline has {kind}, which an exported file cannot carry: '
                'load the images yourself, --normalised'
            )
        if kind not in STEPS:
            raise UserError(
                f'the test pipeline has {kind}, which an exported file cannot carry; '
                f'what it can: {", ".join(STEPS)}'
            )
        steps.append(crop(step) if kind == 'CenterCrop' else resize(kind, step))
    return steps


def crop(step: dict) -> dict:
    size = step['crop_size']
    width, height = (size, size) if isinstance(size, int) else size
    if step.get('auto_pad'):
        raise UserError('CenterCrop.auto_pad=True: an exported file cannot carry it')
    return dict(step='crop', size=[height, width])


def resize(kind: str, step: dict) -> dict:
    library, name = step.get('backend', 'cv2'), step.get('interpolation', 'bilinear')
    valid = dict(
        cv2=['bilinear'], pillow=['nearest', 'bilinear', 'bicubic', 'lanczos', 'box', 'hamming']
    )
    if name not in valid.get(library, ()):
        raise UserError(
            f'{kind} with backend={library!r}, interpolation={name!r}: an exported '
            'file can carry bilinear of cv2, and those of pillow'
        )
    found = dict(step='resize', interpolation=f'{library}-{name}')
    if kind == 'ResizeEdge':
        return dict(found, edge=step.get('edge', 'short'), scale=step['scale'])
    if step.get('scale') is None:
        factor = step['scale_factor']
        return dict(
            found, factor=[factor] * 2 if isinstance(factor, (int, float)) else list(factor)
        )
    scale = step['scale']
    return dict(
        found,
        scale=[scale] * 2 if isinstance(scale, int) else list(scale),
        keep_ratio=step.get('keep_ratio', False),
    )
