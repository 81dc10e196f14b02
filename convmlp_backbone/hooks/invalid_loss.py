"""A stop where the loss is not finite."""
import os
from functools import partial

from mmengine.dist import all_gather_object, all_reduce, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from ..errors import TrainingStopped


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Stop where the loss is NaN or infinite, before the step that would spoil the weights.

    The weights before it are saved as ``last_good.pth``.

    Args:
        enabled (bool): False: train on regardless.

    Raises:
        TrainingStopped: Tells the iteration, the terms of the loss and the images.
    """

    def __init__(self, enabled=True):
        self.enabled = enabled

    def before_train(self, runner):
        self.model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if self.enabled:
            self.model.parse_losses = partial(self._parse_losses, runner, self.model.parse_losses)

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.batch = data_batch
        # The forward pass may already carry a NaN into the running statistics.
        self.buffers = [buffer.clone() for buffer in self.model.buffers()]

    def _parse_losses(self, runner, parse_losses, losses):
        loss, terms = parse_losses(losses)
        finite = loss.detach().isfinite().float()
        everywhere = finite.clone()
        if is_distributed():
            all_reduce(everywhere, 'min')
        if everywhere:
            return loss, terms
        for buffer, kept in zip(self.model.buffers(), self.buffers, strict=True):
            buffer.copy_(kept)
        path = os.path.join(runner.work_dir, 'last_good.pth')
        runner.save_checkpoint(runner.work_dir, 'last_good.pth', by_epoch=False,
                               meta=dict(epoch=runner.epoch, iter=runner.iter),
                               backend_args=dict(backend='atomic'))
        own = '' if finite else '; '.join((
            ', '.join(f'{name}={value.item():.4g}' for name, value in terms.items()),
            f'images: {", ".join(image_names(self.batch))}'))
        if not is_main_process():
            all_gather_object(own)
            raise SystemExit(1)
        raise TrainingStopped(
            f'the loss of iteration {runner.iter + 1} is not finite: '
            f'{"; ".join(filter(None, all_gather_object(own)))}. The weights before it: {path}. To '
            'train on regardless: --cfg-options default_hooks.invalid_loss.enabled=False')


def image_names(batch):
    """The paths, or else the numbers in the data set, of the images of a batch."""
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    return [str(sample.metainfo.get('img_path', sample.metainfo.get('sample_idx', '?')))
            for sample in samples or ()]
