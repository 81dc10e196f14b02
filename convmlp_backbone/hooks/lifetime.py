"""What a training is at: whether it lasts, whether gradients wait for a step."""

from contextlib import AbstractContextManager

from mmengine.runner import BaseLoop, Runner


def during_training(runner: Runner, context: AbstractContextManager) -> None:
    """Enter ``context`` when the training of ``runner`` begins, and leave it when it ends.

    MMEngine calls no hook after an error; so hooks call this in ``before_run``, which MMEngine
    also calls before a validation or test alone, where nothing is entered.
    """
    loop = getattr(runner, '_train_loop', None)
    if not isinstance(loop, BaseLoop):
        return
    run = loop.run

    def guarded():
        loop.run = run
        with context:
            return run()

    loop.run = guarded


def steps_due(runner: Runner) -> bool:
    """Whether gradients are accumulated that no step has used yet."""
    wrappers = getattr(runner.optim_wrapper, 'optim_wrappers', {'': runner.optim_wrapper})
    return not all(wrapper.should_update() for wrapper in wrappers.values())
