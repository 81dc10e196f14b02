"""The classification data sets of torchvision, by their names, as a data set of MMEngine."""

import difflib
import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.dataset import Compose
from mmengine.registry import DATASETS


@DATASETS.register_module()
class TorchvisionDataset:
    """A torchvision data set for MMPretrain: ``dict(type='TorchvisionDataset', name='CIFAR10')``.

    The pipeline starts with the image, in BGR as MMCV's loaders give it: it needs no
    ``LoadImageFromFile``.

    Args:
        name (str): Class in ``torchvision.datasets``, such as ``'CIFAR10'`` or ``'Flowers102'``.
        data_root (str): Folder of its files.
        split (str): The part of the data set; where the torchvision class has ``train`` instead,
            it is True for ``'train'`` and False for ``'test'``.
        pipeline (Sequence[dict | Callable]): Transforms.
        **kwargs: More arguments of the torchvision class.

    Raises:
        ValueError: If torchvision has no such data set.
        FileNotFoundError: If its files are not in ``data_root``; the message says how to get them.
    """

    def __init__(
        self,
        name: str,
        data_root: str = '',
        split: str | None = None,
        pipeline: Sequence = (),
        **kwargs: Any,
    ):
        from torchvision import datasets

        if name not in datasets.__all__:
            near = difflib.get_close_matches(name, datasets.__all__) or datasets.__all__
            raise ValueError(f'torchvision has no data set {name!r}; did you mean {near}?')
        cls = getattr(datasets, name)
        accepted = inspect.signature(cls).parameters
        if 'root' in accepted:
            kwargs['root'] = data_root
        if split is not None:
            if 'train' in accepted and split not in ('train', 'test'):
                raise ValueError(f'{name} has the splits train and test, not {split!r}')
            kwargs.update({'train': split == 'train'} if 'train' in accepted else {'split': split})
        try:
            self.dataset = cls(**kwargs)
        except (RuntimeError, FileNotFoundError) as error:
            raise FileNotFoundError(
                f'{name} is not in {data_root!r} ({error}). To get it: python -c "from '
                f'torchvision.datasets import {name}; {name}({data_root!r}, download=True)"'
            ) from None
        classes = getattr(self.dataset, 'classes', None)
        if classes is None:
            classes = range(self.dataset.num_classes)
        self.metainfo = dict(classes=tuple(map(str, classes)))
        self.pipeline = Compose(pipeline)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index):
        image, label = self.dataset[index]
        image = np.ascontiguousarray(np.asarray(image.convert('RGB'))[..., ::-1])
        return self.pipeline(
            dict(
                img=image,
                img_shape=image.shape[:2],
                ori_shape=image.shape[:2],
                gt_label=int(label),
                sample_idx=index,
            )
        )
