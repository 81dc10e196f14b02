"""Hooks for long trainings: whole checkpoints, exact resume, a stop where the loss is not finite.

They stand on MMEngine's root registry, so that any toolbox's config can name them; the shipped
configs do, in ``_base_/runtime.py``.
"""

from .checkpoint import AtomicBackend, AtomicCheckpointHook
from .invalid_loss import InvalidLossHook
from .resume import ReproducibleResumeHook
from .show_predictions import ShowPredictionsHook
from .work_dir import best_checkpoint, latest_checkpoint, prepare_training

__all__ = [
    'AtomicBackend',
    'AtomicCheckpointHook',
    'InvalidLossHook',
    'ReproducibleResumeHook',
    'ShowPredictionsHook',
    'best_checkpoint',
    'latest_checkpoint',
    'prepare_training',
]
