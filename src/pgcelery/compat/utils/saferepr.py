"""A ``repr`` that ends: with limits on length and depth, and none of the traps of recursion.

Source: Celery 5.7, ``celery.utils.saferepr``; what it prints is in logs, events and results.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from decimal import Decimal
from numbers import Number
from typing import Any

from pgcelery.compat.utils.text import truncate

__all__ = ("reprstream", "saferepr")


class _Full(Exception):
    """The length is used up."""


class _Writer:
    """Collects pieces of text until `left` characters are used up; None is no limit."""

    def __init__(self, maxlen: int | None, maxlevels: int) -> None:
        self.maxlen = maxlen
        self.left = maxlen
        self.maxlevels = maxlevels
        self.pieces: list[str] = []
        self.seen: set[int] = set()

    def add(self, text: str) -> None:
        if self.left is not None:
            if self.left <= 0:
                self.pieces.append(", ...")
                raise _Full
            self.left -= len(text)
        self.pieces.append(text)

    def write(self, obj: Any, level: int = 0) -> None:
        if isinstance(obj, (set, frozenset)) and not obj:
            self.add(truncate(f"{type(obj).__name__}()", self.left or 0))
        elif isinstance(obj, (set, frozenset, tuple, dict, list)):
            self.write_container(obj, level)
        else:
            self.add(_repr_atom(obj, self.left))

    def write_container(self, obj: Any, level: int) -> None:
        begin, end = _brackets(obj)
        if self.maxlevels and level >= self.maxlevels:
            self.add(f"{begin}...{end}")
            return
        if id(obj) in self.seen:
            self.add(f"<Recursion on {type(obj).__name__} with id={id(obj)}>")
            return
        self.seen.add(id(obj))
        self.add(begin)
        try:
            self.write_items(obj, level + 1)
        finally:
            # Also when the length is used up: what was opened is closed, whatever the length.
            self.pieces.append(end)
            self.seen.discard(id(obj))

    def write_items(self, obj: Any, level: int) -> None:
        for place, item in enumerate(obj):
            if place:
                self.add(", ")
            if isinstance(obj, dict):
                self.add(saferepr(item, self.left, self.maxlevels))
                self.add(": ")
                self.write(obj[item], level)
            else:
                self.write(item, level)


def _brackets(obj: Any) -> tuple[str, str]:
    if isinstance(obj, tuple):
        return "(", ",)" if len(obj) == 1 else ")"
    if isinstance(obj, dict):
        return "{", "}"
    if isinstance(obj, list):
        return "[", "]"
    return ("{", "}") if type(obj) is set else (f"{type(obj).__name__}({{", "})")


def _repr_atom(obj: Any, maxlen: int | None) -> str:
    if isinstance(obj, bytes):
        return _repr_bytes(obj, maxlen)
    if isinstance(obj, str):
        text = truncate(obj, maxlen or 0).replace("'", "\\'")
        return f"'{text}'"
    if isinstance(obj, Number) and not isinstance(obj, Decimal):
        return truncate(str(obj), maxlen or 0)
    try:
        return truncate(repr(obj), maxlen or 0)
    except Exception as exc:
        # Someone else's __repr__ may raise anything; what is logged about a task must not.
        return f"<Unrepresentable {type(obj)!r}{id(obj):#x}: {exc!r}>"


def _repr_bytes(value: bytes, maxlen: int | None) -> str:
    cut = value[:maxlen] if maxlen and len(value) > maxlen else value
    try:
        text = cut.decode()
    except UnicodeDecodeError:
        text = cut.hex()
    return f"b'{text}{'...' if len(cut) < len(value) else ''}'"


def saferepr(
    o: Any, maxlen: int | None = None, maxlevels: int = 3, seen: set[int] | None = None
) -> str:
    """Give ``repr(o)`` of about `maxlen` characters, at most `maxlevels` containers deep."""
    writer = _Writer(maxlen, maxlevels)
    writer.seen |= seen or set()
    with contextlib.suppress(_Full):
        writer.write(o)
    return "".join(writer.pieces)


def reprstream(o: Any, seen: set[int] | None = None, maxlevels: int = 3) -> Iterator[str]:
    """Give the pieces of ``saferepr`` without a limit of length."""
    writer = _Writer(None, maxlevels)
    writer.seen |= seen or set()
    writer.write(o)
    yield from writer.pieces
