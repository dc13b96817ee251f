"""Stamps: named values that a visitor, or the caller, puts on every signature of a canvas.

Source: Celery 5.7, `celery.canvas.StampingVisitor`. The names of a signature's stamps are in its
option ``stamped_headers``; each stamp is an option of its own.
"""

from __future__ import annotations

from abc import ABCMeta, abstractmethod
from collections.abc import Mapping
from typing import Any

from pgcelery.compat.canvas import kinds

Stamps = dict[str, Any]

NAMES = "stamped_headers"


class StampingVisitor(metaclass=ABCMeta):
    """Walks a canvas; what a method returns are stamps for what it visited and everything below.

    A returned ``stamped_headers`` names those keys that are stamps; without it all of them are.
    """

    @abstractmethod
    def on_signature(self, sig: Any, **headers: Any) -> Stamps | None:
        """Visit a signature."""

    def on_group_start(self, group: Any, **headers: Any) -> Stamps | None:
        """Visit a group before its members."""
        return {}

    def on_group_end(self, group: Any, **headers: Any) -> None:  # noqa: B027 - not abstract
        """Leave a group."""

    def on_chain_start(self, chain: Any, **headers: Any) -> Stamps | None:
        """Visit a chain before its steps."""
        return {}

    def on_chain_end(self, chain: Any, **headers: Any) -> None:  # noqa: B027 - not abstract
        """Leave a chain."""

    def on_chord_header_start(self, sig: Any, **header: Any) -> Stamps | None:
        """Visit a chord before its header; the header counts as a group."""
        if not kinds.is_group(sig.tasks):
            sig.tasks = kinds.make_group(sig.tasks)
        return self.on_group_start(sig.tasks, **header)

    def on_chord_header_end(self, sig: Any, **header: Any) -> None:
        """Leave the header of a chord."""
        self.on_group_end(sig.tasks, **header)

    def on_chord_body(self, sig: Any, **header: Any) -> Stamps | None:
        """Visit a chord before its body; `sig` is the chord."""
        return {}

    def on_callback(self, callback: Any, **header: Any) -> Stamps | None:
        """Visit a link."""
        return {}

    def on_errback(self, errback: Any, **header: Any) -> Stamps | None:
        """Visit an error link."""
        return {}


def _named(stamps: Mapping[str, Any]) -> Stamps:
    named = dict(stamps)
    named.setdefault(NAMES, list(named))
    return named


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, (int, float, str)) else list(value)


def merge(into: Stamps, other: Mapping[str, Any], append: bool) -> None:
    """Merge stamps; on a name both have, `into` wins, or with `append` both values are listed.

    Lists are always joined, and mappings merged likewise.
    """
    for key, new in other.items():
        if key not in into:
            into[key] = new
            continue
        old = into[key]
        if isinstance(old, dict) and isinstance(new, Mapping):
            merge(old, new, append)
        elif isinstance(old, list) and isinstance(new, list):
            into[key] = [*old, *new]
        elif append:
            several = isinstance(new, list) and old is not None
            into[key] = [*_as_list(old), *(new if several else [new])]


def collect(
    options: Mapping[str, Any] | None,
    visited: Mapping[str, Any] | None,
    append: bool,
    given: Mapping[str, Any],
) -> Stamps:
    """Give the options that stamp a signature.

    Args:
        options: The signature's own options, whose stamps are kept; None not to look at them.
        visited: What the visitor returned.
        append: Whether stamps of one name add up to a list.
        given: Stamps from above.
    """
    stamps = _named(given)
    if visited is not None:
        merge(stamps, _named(visited), append)
    if options is not None:
        names = {*stamps[NAMES], *options.get(NAMES, ())}
        stamps[NAMES] = list(names)
        merge(stamps, {k: v for k, v in options.items() if k in names}, append)
    stamps[NAMES] = list(dict.fromkeys(stamps[NAMES]))
    return stamps
