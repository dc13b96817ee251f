"""Which signature class is a chain, a group, a chord.

Looked up here so that their modules, which need each other's operators, need not import each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=type)

_classes: dict[str, Any] = {}


def define(kind: str) -> Callable[[T], T]:
    """Make the decorated class the one that `kind` names."""

    def decorator(cls: T) -> T:
        _classes[kind] = cls
        return cls

    return decorator


def is_chain(sig: Any) -> bool:
    """Whether `sig` runs steps one after the other."""
    return isinstance(sig, _classes["chain"])


def is_group(sig: Any) -> bool:
    """Whether `sig` runs members side by side."""
    return isinstance(sig, _classes["group"])


def is_chord(sig: Any) -> bool:
    """Whether `sig` is a header and a body."""
    return isinstance(sig, _classes["chord"])


def make_chain(*args: Any, **options: Any) -> Any:
    """Make a `_chain`."""
    return _classes["chain"](*args, **options)


def make_group(*args: Any, **options: Any) -> Any:
    """Make a group."""
    return _classes["group"](*args, **options)


def make_chord(*args: Any, **options: Any) -> Any:
    """Make a chord."""
    return _classes["chord"](*args, **options)


def is_empty_group(sig: Any) -> bool:
    """Whether `sig` is a group known to have no member, without starting a generator."""
    return is_group(sig) and isinstance(sig.tasks, (list, tuple)) and not sig.tasks


def unroll(group: Any) -> Any:
    """Give the only member of a group of one, else the group; no generator is started for it."""
    try:
        size = len(group.tasks)
    except TypeError:
        return group
    return group.tasks[0] if size == 1 else group


def starts_with_task(body: Any) -> bool:
    """Whether a chord's body is a chain that does not begin with a group."""
    return is_chain(body) and bool(body.tasks) and not is_group(body.tasks[0])
