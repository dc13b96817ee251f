"""How a chain is put together: the rules of ``|``, applied to a list of steps in place.

Source: Celery 5.7, `celery.canvas._chain.__or__` and `chain.__new__`: a group followed by something
is a chord, a chord followed by something takes it into its body, empty groups vanish, chains are
spliced.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from functools import reduce
from typing import Any

from pgcelery.compat.canvas import kinds
from pgcelery.compat.canvas.signature import Signature


class _NoChainError(Exception):
    """What came is no chain any more, or nothing a chain can hold."""

    def __init__(self, instead: Any, rest: Iterable[Any]) -> None:
        self.instead = instead
        self.rest = rest


def append(steps: list[Any], other: Any, clone: bool = True) -> None:
    """Add one thing after `steps`.

    Args:
        steps: Changed in place.
        other: A signature.
        clone: Whether what is added is a copy.

    Raises:
        _NoChainError: It is not a chain then.
    """
    if kinds.is_empty_group(other):
        return
    if kinds.is_group(other):
        other = kinds.unroll(other)
        if kinds.is_group(other):
            _append_group(steps, other, clone)
            return
    if kinds.is_chain(other):
        _append_steps(steps, other.unchain_tasks(), clone)
        return
    if not isinstance(other, Signature):
        raise _NoChainError(NotImplemented, ())
    last: Any = steps[-1] if steps else None
    if kinds.is_chord(last) and not kinds.is_chord(other):
        last.body = last.body | other
        return
    if clone:
        other = other.clone()
    if kinds.is_group(last):
        steps[-1] = kinds.make_chord(last, other)
    else:
        steps.append(other)


def _append_steps(steps: list[Any], inner: list[Any], clone: bool) -> None:
    rest = iter(inner)
    for place, step in enumerate(rest, 1):
        try:
            append(steps, step, clone or place < len(inner))
        except _NoChainError as exc:
            exc.instead = reduce(operator.or_, rest, exc.instead)
            raise


def _append_group(steps: list[Any], group: Any, clone: bool) -> None:
    if not steps:
        raise _NoChainError(group, ())
    if kinds.is_chord(steps[-1]):
        steps[-1].body = steps[-1].body | group
    else:
        steps.append(group.clone() if clone else group)


def fold(tasks: Iterable[Any]) -> Any:
    """Give what ``reduce(or, tasks, empty chain)`` gives, in linear time."""
    given = list(tasks)
    steps: list[Any] = []
    rest = iter(given)
    for place, task in enumerate(rest, 1):
        try:
            append(steps, task, clone=place < len(given))
        except _NoChainError as exc:
            if exc.instead is NotImplemented:
                return reduce(operator.or_, given, kinds.make_chain())
            return reduce(operator.or_, rest, exc.instead)
    # A plain step is a copy already; `|` copies what is made of several once more.
    copies = (step if type(step) is Signature else step.clone() for step in steps[:-1])
    return kinds.make_chain([*copies, *steps[-1:]])
