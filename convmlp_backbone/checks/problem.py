"""What a check finds."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np


class Problem(NamedTuple):
    """One thing that is wrong, or seen otherwise than one might think.

    An ``'error'`` makes a training fail or learn something wrong; a ``'warning'`` tells what is
    left out. ``text`` ends with the way out, which can be pasted where there is one.
    """

    severity: str
    where: str
    text: str

    def __str__(self) -> str:
        return f'{self.where}: {self.text}'


def error(where: object, text: str) -> Problem:
    return Problem('error', str(where), text)


def warning(where: object, text: str) -> Problem:
    return Problem('warning', str(where), text)


def first_of(items: Iterable, most: int = 3) -> str:
    """``a, b, c and 7 more``."""
    items = list(map(str, items))
    return ', '.join(items[:most]) + (f' and {len(items) - most} more' if len(items) > most else '')


def each(
    severity: str, found: Sequence | np.ndarray, where: Callable, text: Callable, most: int = 5
) -> list[Problem]:
    """A problem for each of the first ``most`` of ``found``; the last tells how many there are."""
    problems = [Problem(severity, where(item), text(item)) for item in found[:most]]
    if len(found) > most:
        last = problems.pop()
        problems.append(last._replace(text=f'{last.text} (and so {len(found) - most} more)'))
    return problems


def alike(problems: Iterable[Problem], most: int = 5) -> list[Problem]:
    """The first ``most`` of those that say the same; the last of them tells how many there are."""
    by_text: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        by_text.setdefault((problem.severity, problem.text), []).append(problem)
    return [
        kept
        for (severity, text), found in by_text.items()
        for kept in each(severity, found, lambda p: p.where, lambda _, text=text: text, most)
    ]


def note(where: object, text: str) -> Problem:
    """What was done without being asked, so that nothing goes wrong."""
    return Problem('note', str(where), text)
