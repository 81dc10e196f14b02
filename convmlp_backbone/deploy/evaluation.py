"""An exported file in place of a model, in a toolbox's own evaluation."""

from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS
from mmengine.structures import BaseDataElement, InstanceData, PixelData

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
        file (str): See :class:`convmlp_backbone.runtime.Runtime`.
        data_preprocessor: The config's, which MMEngine hands on; a file has its own inside.
        **options: Further arguments of the runtime.
    """

    def __init__(self, file: str, data_preprocessor: dict | None = None, **options: Any):
        super().__init__()
        self.runtime = load(file, **options)

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
