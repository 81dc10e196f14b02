"""An exported file, or a model in any form, in a toolbox's own evaluation."""

import io
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData, PixelData

from .. import training_log
from ..errors import UserError
from ..runtime import ExportedFileError, Runtime
from .agreement import given
from .models import swapped


def load(file: str | Path, **options: Any) -> Runtime:
    """The runtime of an exported file, its errors among the package's own."""
    try:
        return Runtime(file, **options)
    except ExportedFileError as error:
        raise UserError(str(error)) from None


@MODELS.register_module()
class ExportedModel(BaseModel):
    """Predicts what a file does, from and to the data samples of the file's toolbox.

    Args:
        file (str | Runtime): See :class:`convmlp_backbone.runtime.Runtime`.
        data_preprocessor: The config's, which MMEngine hands on; a file has its own inside.
        **options: Further arguments of the runtime.
    """

    def __init__(self, file: str | Runtime, data_preprocessor: dict | None = None, **options: Any):
        super().__init__()
        self.runtime = file if isinstance(file, Runtime) else load(file, **options)

    def test_step(self, data: dict) -> list[BaseDataElement]:
        """Data of a toolbox's loader: images BGR (C, height, width) of type uint8."""
        return [
            self.fill(sample, image.numpy()[swapped(len(image))].transpose(1, 2, 0))
            for image, sample in zip(data['inputs'], data['data_samples'], strict=True)
        ]

    val_step = test_step

    def forward(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise NotImplementedError('an exported model can only be evaluated')

    def fill(self, sample: BaseDataElement, image: np.ndarray) -> BaseDataElement:
        """Put what is found in an RGB ``image`` into its data sample."""
        size = tuple(sample.ori_shape[:2])
        outputs = self.runtime.run(
            given(self.runtime.facts, np.ascontiguousarray(image)[None]), size
        )
        result = self.runtime.result(
            {name: value[0] for name, value in outputs.items()}, image.shape[:2], size
        )
        return as_sample(result, sample, self.runtime.facts['task'])


def as_sample(result: Any, sample: BaseDataElement, task: str) -> BaseDataElement:
    """Put what a :class:`~convmlp_backbone.runtime.Runtime` found into a toolbox's data sample."""
    if task == 'classification':
        scores = torch.from_numpy(result)
        return sample.set_pred_score(scores).set_pred_label(scores.argmax())
    if task == 'segmentation':
        sample.pred_sem_seg = PixelData(data=torch.from_numpy(result)[None].long())
        return sample
    sample.pred_instances = InstanceData(
        **{
            name: torch.from_numpy(value)
            for name, value in zip(('bboxes', 'scores', 'labels', 'masks'), result, strict=True)
            if value is not None
        }
    )
    return sample


# What a model is judged by, and its largest value.
METRICS = {name.rpartition('/')[2]: most for name, (_, most) in training_log.METRICS.items()}
METRICS['multi-label/mAP'] = 100


def evaluator(cfg: Config) -> Callable[[BaseModel], dict[str, float]]:
    """A function from a model to its metrics, from 0 to 1, on the config's test data.

    Raises:
        UserError: The config's evaluation gives none of :data:`METRICS`.
    """
    loader = dict(cfg.test_dataloader, persistent_workers=False, num_workers=0)

    def evaluate(model: BaseModel) -> dict[str, float]:
        quiet = dict.fromkeys(
            ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')
        )
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
            found = Runner(
                model=model,
                work_dir=folder,
                test_dataloader=loader,
                test_evaluator=cfg.test_evaluator,
                test_cfg=cfg.get('test_cfg') or {},
                default_hooks=quiet,
                default_scope=cfg.get('default_scope'),
                log_level='ERROR',
            ).test()
        known = {
            name: float(value) / largest
            for name, value in found.items()
            for end, largest in METRICS.items()
            if f'/{name}'.endswith(f'/{end}')
        }
        if not known:
            raise UserError(
                f'{cfg.filename} is evaluated by {", ".join(found)}; what is compared: '
                f'{", ".join(METRICS)}'
            )
        return known

    return evaluate


def require_as_good(metrics: dict[str, dict[str, float]], max_drop: float) -> None:
    """Raise where the last of several forms' metrics are worse than the first's by more."""
    first, *_, last = metrics.values()
    for name, value in first.items():
        if not value - last[name] <= max_drop:
            figures = ', '.join(f'{form} {found[name]:.4f}' for form, found in metrics.items())
            raise UserError(
                f'not written: {name} drops by {value - last[name]:.4f}, more than --max-drop '
                f'{max_drop} allows: {figures}'
            )
