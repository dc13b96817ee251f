"""What the fields of a message's head may be. They come from outside, and much is made of them.

Source: Celery 5.7, "Task Messages", version 2; ``chord_*`` and ``chain_link`` are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ("check_headers", "check_properties", "check_workflow")

_UNLIMITED = [None, None]
_TEXT = (str, type(None))
_WHOLE = (int, type(None))
_MAPPING = (Mapping, type(None))
_LIST = (list, tuple, type(None))

_HEADERS: tuple[tuple[str, Any], ...] = (
    ("id", _TEXT),
    ("task", _TEXT),
    ("shadow", _TEXT),
    ("group", _TEXT),
    ("group_index", _WHOLE),
    ("root_id", _TEXT),
    ("parent_id", _TEXT),
    ("origin", _TEXT),
    ("argsrepr", _TEXT),
    ("kwargsrepr", _TEXT),
    ("eta", _TEXT),
    ("expires", _TEXT),
    ("retries", _WHOLE),
    ("timelimit", _LIST),
    ("replaced_task_nesting", _WHOLE),
    ("stamped_headers", (list, tuple, set, frozenset, str, type(None))),
    ("stamps", _MAPPING),
    ("compression", _TEXT),
)

#: Only in messages of workflows.
_WORKFLOW: tuple[tuple[str, Any], ...] = (
    ("chord_parents", (str, list, tuple)),
    ("chord_after", _LIST),
    ("chord_end", _TEXT),
    ("chord_errbacks", _LIST),
    ("chord_latch", _TEXT),
    ("chord_lives", (int, float, type(None))),
    ("chain_link", _MAPPING),
)
_LINK: tuple[tuple[str, Any], ...] = (
    ("head", str),
    ("left", int),
    ("next", _TEXT),
    ("trail", (list, tuple)),
)

#: Names and types of headers, or properties, that were found right: those of most messages.
_right: set[tuple[Any, ...]] = set()
_MOST_RIGHT, _LONGEST_RIGHT = 1000, 100

_PROPERTIES: tuple[tuple[str, Any], ...] = (
    ("correlation_id", _TEXT),
    ("reply_to", _TEXT),
    ("delivery_info", _MAPPING),
    ("priority", _WHOLE),
)


def check_headers(headers: Mapping[str, Any]) -> None:
    """Refuse headers that are not what the protocol says.

    Raises:
        TypeError: Names the header.
    """
    get = headers.get
    shape = (*headers, *map(type, headers.values()))
    if shape not in _right:
        for name, kinds in _HEADERS:
            value = get(name)
            if value is not None and not isinstance(value, kinds):
                raise _wrong("header", name, value)
        _remember(shape)
    limits, stamps = get("timelimit"), get("stamped_headers")
    if limits and limits != _UNLIMITED and not (len(limits) == 2 and all(map(_is_limit, limits))):
        raise _wrong("header", "timelimit", limits)
    if stamps and not all(isinstance(one, str) for one in stamps):
        raise _wrong("header", "stamped_headers", stamps)
    if "chord_parents" in headers or "chain_link" in headers:
        check_workflow(headers)


def check_workflow(headers: Mapping[str, Any]) -> None:
    """Refuse headers of workflows that are not what they should be.

    Raises:
        TypeError: Names the header.
    """
    for name, kinds in _WORKFLOW:
        if name in headers and not isinstance(headers[name], kinds):
            raise _wrong("header", name, headers[name])
    for name in ("chord_parents", "chord_after"):
        if not _is_ids(headers.get(name)):
            raise _wrong("header", name, headers[name])
    link = headers.get("chain_link")
    if link is not None:
        for name, kinds in _LINK:
            if not isinstance(link.get(name), kinds):
                raise _wrong("header", f"chain_link.{name}", link.get(name))


def check_properties(properties: Mapping[str, Any]) -> None:
    """Refuse properties that are not what the protocol says.

    Raises:
        TypeError: Names the property.
    """
    shape = ("properties", *properties, *map(type, properties.values()))
    if shape not in _right:
        for name, kinds in _PROPERTIES:
            if not isinstance(properties.get(name), kinds):
                raise _wrong("property", name, properties[name])
        _remember(shape)


def _remember(shape: tuple[Any, ...]) -> None:
    if len(_right) < _MOST_RIGHT and len(shape) < _LONGEST_RIGHT:  # they come from outside
        _right.add(shape)


def _is_limit(value: Any) -> bool:
    return value is None or isinstance(value, (int, float))


def _is_ids(value: Any) -> bool:
    """Whether it is an id or a nested list of ids."""
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, (list, tuple)):
            pending.extend(one)
        elif one is not None and not isinstance(one, str):
            return False
    return True


def _wrong(kind: str, name: str, value: Any) -> TypeError:
    return TypeError(f"the {kind} {name!r} of a task cannot be {type(value).__name__}")
