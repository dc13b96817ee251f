"""Makes shapes smaller for as long as they show what they showed."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from tests.celery_compat.shapes.strategy import Shape, tagged, tasks_of

#: Shapes tried in one round.
BATCH = 60
LISTS = ("of", "link", "link_error", "items")
OPTIONAL = (
    "link", "link_error", "args", "kwargs", "options", "immutable", "pipe", "drawn", "inside",
    "json", "frozen",
)  # fmt: skip


def smaller(shape: Shape) -> Iterator[Shape]:
    """Iterate over shapes with one thing less, the biggest steps first."""
    found = [tagged(one) for one in _less(shape)]
    yield from sorted(found, key=weight)


def weight(shape: Shape) -> tuple[int, int]:
    """Give what makes a shape a bigger one: tasks, then words."""
    return sum(1 for _ in tasks_of(shape)), len(str(shape))


def _less(node: Any) -> Iterator[Any]:
    yield from ({k: v for k, v in node.items() if k != key} for key in OPTIONAL if key in node)
    if "kind" in node:
        yield from _simpler(node)
    for key, value in node.items():
        if key in LISTS:
            yield from ({**node, key: rest} for rest in _shorter(value))
        elif key in ("canvas", "body", "into"):
            yield from ({**node, key: one} for one in _less(value))


def _simpler(node: Shape) -> Iterator[Any]:
    """Iterate over what can stand for a canvas: its parts, and a task that succeeds."""
    for key in ("of", "body", "into"):
        yield from _list(node.get(key, []))
    if node.get("do", "do.").startswith("do.") and "of" not in node and node.get("do") != "do.ok":
        yield {k: v for k, v in node.items() if k in OPTIONAL} | {"kind": "task", "do": "do.ok"}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _shorter(items: list[Any]) -> Iterator[list[Any]]:
    for k in range(len(items)):
        if len(items) > 1:
            yield items[:k] + items[k + 1 :]
        if isinstance(items[k], dict):
            yield from ([*items[:k], one, *items[k + 1 :]] for one in _less(items[k]))


def shrink(shape: Shape, shows: Callable[[list[Shape]], list[bool]], rounds: int = 12) -> Shape:
    """Give a small shape that shows the same.

    Args:
        shape: One that does.
        shows: Says which of several shapes do.
        rounds: How often to ask.
    """
    shape = copy.deepcopy(shape)
    for _ in range(rounds):
        candidates = [one for one in smaller(shape) if weight(one) < weight(shape)][:BATCH]
        answers = shows(candidates)
        better = [one for one, yes in zip(candidates, answers, strict=True) if yes]
        if not better:
            break
        shape = better[0]
    return shape
