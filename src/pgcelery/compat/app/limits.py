"""Concurrency keys: how many calls that share something may run at once, over all workers.

Celery has nothing like it. The engine keeps the count exact in the transactions that start and end
runs; a call that finds its key full waits in the database, first come, first served, and holds up
nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ("Concurrency", "slot")


@dataclass(frozen=True, slots=True)
class Concurrency:
    """Let at most `limit` calls with the same key run at once, over all workers.

    For ``@app.task(concurrency=Concurrency(key=..., limit=...))``.

    Args:
        key: A string, shared by every call of every task that names it, or a function that gets
            the call's arguments and returns the string, such as ``lambda order: order["tenant"]``.
            At most 255 characters.
        limit: At least 1. The newest call of a key decides, if calls differ.

    Raises:
        TypeError: The key is neither, or the limit is not a whole number.
        ValueError: The key is empty or the limit below 1.
    """

    key: str | Callable[..., str]
    limit: int = 1

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) and not callable(self.key):
            raise TypeError(f"a concurrency key is a string or a function, not {self.key!r}")
        if isinstance(self.limit, bool) or not isinstance(self.limit, int):
            raise TypeError(f"a concurrency limit is a whole number, not {self.limit!r}")
        if self.key == "" or self.limit < 1:
            raise ValueError("a concurrency key is not empty, and its limit is at least 1")


def slot(
    task: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Work out what a call shares slots with; takes ``concurrency_key`` out of `options`.

    Returns:
        The fields of a `NewJob`; empty for a call without a limit.

    Raises:
        TypeError: The key that came out is not a string; nothing has been sent.
    """
    named = options.pop("concurrency_key", None)
    rule: Concurrency | None = getattr(task, "concurrency", None)
    if rule is None:
        if named is not None:
            raise TypeError("concurrency_key needs a task with concurrency=Concurrency(...)")
        return {}
    key = named
    if key is None:
        key = rule.key(*(args or ()), **(kwargs or {})) if callable(rule.key) else rule.key
    if not isinstance(key, str) or not key:
        raise TypeError(f"the concurrency key of {task.name} is {key!r}, not a non-empty string")
    return {"key": key, "key_limit": rule.limit}
