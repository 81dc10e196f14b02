"""Toolboxes tell of every step; a check tells what is wrong."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from mmengine.logging import MMLogger


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, nothing is printed and nothing logged below errors."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logger.setLevel(level)


def one_line(problem: Exception) -> str:
    """An exception as a line: its kind and what it says."""
    return ' '.join(f'{type(problem).__name__}: {problem or "no message"}'.split())[:400]
