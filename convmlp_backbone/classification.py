"""Old configs, and those in checkpoints, import this name of :mod:`.mmpretrain_models`."""

from .mmpretrain_models import *  # noqa: F403
