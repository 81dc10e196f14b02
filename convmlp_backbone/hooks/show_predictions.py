"""Draw the predictions of a test."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from mmengine.visualization import Visualizer
from torch import Tensor

from ..pictures import distinct_names, picture_name, pixels_of, read_picture


@HOOKS.register_module()
class ShowPredictionsHook(Hook):
    """Draws every prediction of a test into a folder, whatever the toolbox.

    The toolboxes' own hooks give images of the same name in different folders one file, stop at an
    image that cannot be drawn, and MMPretrain's draws into its visualizer only. Here images keep
    their folders where two have the same name, and what cannot be drawn is named at the end.

    Args:
        folder (str | Path): For the pictures.
    """

    priority = 'LOW'

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.names: dict[str, str] = {}
        self.lost: list[str] = []
        self.count = 0

    def before_test(self, runner: Runner) -> None:
        dataset = runner.test_dataloader.dataset
        if hasattr(dataset, 'get_data_info'):
            paths = [dataset.get_data_info(i).get('img_path') for i in range(len(dataset))]
            paths = [path for path in paths if path]
            self.names = dict(zip(paths, distinct_names(paths), strict=True))
        runner.visualizer.dataset_meta = dataset.metainfo

    def after_test_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        for sample, inputs in zip(outputs, data_batch['inputs'], strict=True):
            path = sample.get('img_path') or f'{self.count}'
            self.count += 1
            target = self.folder / picture_name(self.names.get(path, os.path.basename(path)))
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                self.draw(runner.visualizer, sample, picture(path, inputs, sample), str(target))
            except Exception as error:  # the evaluation goes on
                self.lost.append(f'{path} ({type(error).__name__}: {error})')

    def draw(
        self, visualizer: Visualizer, sample: BaseDataElement, pixels: np.ndarray, target: str
    ) -> None:
        if hasattr(visualizer, 'visualize_cls'):  # MMPretrain
            visualizer.visualize_cls(
                pixels,
                sample,
                draw_gt='gt_label' in sample,
                out_file=target,
                classes=visualizer.dataset_meta.get('classes'),
            )
        else:
            visualizer.add_datasample(
                os.path.basename(target), pixels, sample, draw_gt=False, out_file=target
            )

    def after_test(self, runner: Runner) -> None:
        drawn = self.count - len(self.lost)
        print_log(f'{drawn} pictures in {self.folder}', logger='current')
        if self.lost:
            print_log(
                f'{len(self.lost)} images could not be drawn, such as {self.lost[0]}',
                logger='current',
                level=30,
            )


def picture(path: str, inputs: Tensor, sample: BaseDataElement) -> np.ndarray:
    """What is drawn on: the image file, or what the model got where that is no picture."""
    try:
        return read_picture(path)
    except Exception:  # an array of six channels, a data set without files
        import cv2

        height, width = sample.ori_shape[:2]
        return cv2.resize(pixels_of(inputs.numpy()), (width, height))
