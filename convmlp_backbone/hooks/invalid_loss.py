"""A stop where the loss or the weights are not finite."""

import os
from contextlib import contextmanager

import torch
from mmengine.dist import all_gather_object, all_reduce, is_distributed, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from ..errors import TrainingStopped
from .lifetime import during_training

REGARDLESS = 'To train on regardless: --cfg-options default_hooks.invalid_loss.enabled=False'


@HOOKS.register_module()
class InvalidLossHook(Hook):
    """Stop where the loss is NaN or infinite, before the step that would spoil the weights.

    The weights before it are saved as ``last_good.pth``. Weights that are not finite all the same,
    by a gradient of a finite loss, are never saved, so that no checkpoint gives way to them.

    Args:
        enabled (bool): False: train on regardless.

    Raises:
        TrainingStopped: Tells the iteration, the terms of the loss and the images.
    """

    priority = 'LOWEST'  # of a checkpoint it reads what others have put in

    def __init__(self, enabled: bool = True):
        self.enabled = enabled

    def before_run(self, runner: Runner) -> None:
        if self.enabled:
            during_training(runner, self._guard(runner))

    @contextmanager
    def _guard(self, runner):
        """See the losses of this model.

        By the class, for an attribute of the model would be copied and saved with it.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        kind, parse_losses = type(model), type(model).parse_losses
        own = 'parse_losses' in vars(kind)

        def checked(self_, losses):
            found = parse_losses(self_, losses)
            if self_ is model:
                self._check(runner, *found)
            return found

        self.model, kind.parse_losses = model, checked
        try:
            yield
        finally:
            if own:
                kind.parse_losses = parse_losses
            else:
                del kind.parse_losses

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        if self.enabled:
            self.batch = data_batch
            # The forward pass may already carry a NaN into the running statistics, and go on with
            # what modules keep from one iteration to the next.
            self.buffers = [buffer.clone() for buffer in self.model.buffers()]
            self.attributes = [(module, dict(vars(module))) for module in self.model.modules()]

    def _check(self, runner, loss, terms):
        finite = loss.detach().isfinite().float()
        everywhere = finite.clone()
        if is_distributed():
            all_reduce(everywhere, 'min')
        if everywhere:
            return
        for buffer, kept in zip(self.model.buffers(), self.buffers, strict=True):
            buffer.copy_(kept)
        for module, kept in self.attributes:
            vars(module).update(kept)
        own = (
            ''
            if finite
            else '; '.join(
                (
                    ', '.join(f'{name}={value.item():.4g}' for name, value in terms.items()),
                    f'images: {", ".join(image_names(self.batch))}',
                )
            )
        )
        own = all_gather_object(own)
        runner.call_hook('before_save_everywhere')
        if not is_main_process():
            raise SystemExit(1)
        try:
            runner.save_checkpoint(
                runner.work_dir,
                'last_good.pth',
                by_epoch=False,
                meta=dict(epoch=runner.epoch, iter=runner.iter),
                backend_args=dict(backend='atomic'),
            )
            weights = f'The weights before it: {os.path.join(runner.work_dir, "last_good.pth")}'
        except TrainingStopped as error:
            weights = str(error).removesuffix(f'. {REGARDLESS}')
        raise TrainingStopped(
            f'the loss of iteration {runner.iter + 1} is not finite: '
            f'{"; ".join(filter(None, own))}. {weights}. {REGARDLESS}'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Refuse to save weights that are not finite."""
        if self.enabled and (spoilt := _spoilt(runner, checkpoint)):
            raise TrainingStopped(
                f'{spoilt[0]}{f" and {len(spoilt) - 1} more" if spoilt[1:] else ""} not finite '
                f'after {checkpoint["meta"]["iter"]} iterations, by the gradient of a finite loss: '
                'not saved; --resume goes on from the last checkpoint, which is whole. '
                f'{REGARDLESS}'
            )


def _spoilt(runner, checkpoint):
    """The names of the tensors that hold NaN or, other than buffers, infinity."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    buffers = {name for name, _ in model.named_buffers()}
    found = []
    for name, value in _tensors(checkpoint, ('state_dict', 'ema_state_dict', 'optimizer')):
        if value.is_floating_point() and value.numel():
            ends = torch.stack(value.detach().aminmax())  # both NaN if one value is
            buffer = name.removeprefix('state_dict.').removeprefix('ema_state_dict.module.')
            if ends.isnan().any() or buffer not in buffers and not ends.isfinite().all():
                found.append(name)
    return found


def _tensors(items, keys, prefix=''):
    for key in keys:
        value = items.get(key)
        if isinstance(value, dict):
            yield from _tensors(value, value, f'{prefix}{key}.')
        elif isinstance(value, torch.Tensor):
            yield f'{prefix}{key}', value


def image_names(batch: object) -> list[str]:
    """The paths, or else the numbers in the data set, of the images of a batch."""
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    return [
        str(sample.metainfo.get('img_path', sample.metainfo.get('sample_idx', '?')))
        for sample in samples or ()
    ]
