"""Checkpoints: where they lie, how they are read safely, and what of them goes into a model."""

from ..errors import CheckpointError
from .download import shown
from .loading import enable_safe_loading, load, load_backbone, load_model, mismatches, require_fit
from .names import describe, rename_published, split_backbone, unwrap
from .published import (
    BASE_URL,
    NORMALISATION,
    OLD_BASE_URL,
    PUBLISHED,
    SCHEME,
    fetch,
    imagenet_weights,
)
from .reading import plain_meta, read
from .writing import write

__all__ = [
    'BASE_URL',
    'NORMALISATION',
    'OLD_BASE_URL',
    'PUBLISHED',
    'SCHEME',
    'CheckpointError',
    'describe',
    'enable_safe_loading',
    'fetch',
    'imagenet_weights',
    'load',
    'load_backbone',
    'load_model',
    'mismatches',
    'plain_meta',
    'read',
    'rename_published',
    'require_fit',
    'shown',
    'split_backbone',
    'unwrap',
    'write',
]
