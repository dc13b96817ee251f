"""Mappings and sets.

Source: Celery 5.7, ``celery.utils.collections``.
"""

from __future__ import annotations

import time
from collections import ChainMap
from collections import OrderedDict as _OrderedDict
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any, ClassVar

from kombu.utils.functional import LRUCache

from pgcelery.compat.local import try_import

__all__ = (
    "AttributeDict",
    "AttributeDictMixin",
    "ChainMap",
    "DictAttribute",
    "LRUCache",
    "LimitedSet",
    "OrderedDict",
    "force_mapping",
    "lpmerge",
)


def force_mapping(m: Any) -> Any:
    """Make an object's attributes readable as items; a mapping is itself."""
    functional = try_import("django.utils.functional")
    if functional is not None and isinstance(m, functional.LazyObject):
        if m._wrapped is functional.empty:
            m._setup()
        m = m._wrapped
    return m if isinstance(m, Mapping) else DictAttribute(m)


def lpmerge(left: MutableMapping[Any, Any], right: Mapping[Any, Any]) -> Any:
    """Put the items of `right` that are not None into `left`, and give it."""
    left.update((key, value) for key, value in right.items() if value is not None)
    return left


class OrderedDict(_OrderedDict[Any, Any]):
    """A dict that remembers the order."""

    def _LRUkey(self) -> Any:
        return next(iter(self))


class AttributeDictMixin:
    """Makes the items of a mapping readable and writable as attributes."""

    def __getattr__(self, k: str) -> Any:
        try:
            return self[k]  # type: ignore[index]
        except KeyError:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {k!r}") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value


class AttributeDict(dict[str, Any], AttributeDictMixin):
    """A dict whose items are attributes too."""


class DictAttribute(MutableMapping[str, Any]):
    """The attributes of an object as a mapping."""

    obj: Any = None

    def __init__(self, obj: Any) -> None:
        object.__setattr__(self, "obj", obj)

    def __getattr__(self, key: str) -> Any:
        return getattr(self.obj, key)

    def __setattr__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self.obj, key)
        except AttributeError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.obj, key, value)

    def __delitem__(self, key: str) -> None:
        delattr(self.obj, key)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and hasattr(self.obj, key)

    def __iter__(self) -> Iterator[str]:
        return iter(dir(self.obj))

    def __len__(self) -> int:
        return len(dir(self.obj))


class LimitedSet:
    """A set that holds at most `maxlen` items, each for at most `expires` seconds.

    Args:
        maxlen: 0 is no limit. Past it the oldest items go.
        expires: Seconds; 0 is for ever. Items go when others are added.
        data: Items, or a mapping of items to monotonic times of insertion.
        minlen: So many items stay although they are past `expires`.
    """

    max_heap_percent_overload: ClassVar[int] = 15

    def __init__(
        self, maxlen: int = 0, expires: float = 0, data: Any = None, minlen: int = 0
    ) -> None:
        self.maxlen = maxlen or 0
        self.minlen = minlen or 0
        self.expires = expires or 0
        if not self.maxlen >= self.minlen >= 0:
            raise ValueError("minlen must be a positive number, less or equal to maxlen.")
        if self.expires < 0:
            raise ValueError("expires cannot be negative!")
        # Not a dict: finding the first of one takes the longer the more were taken from its front.
        self._data: _OrderedDict[Any, float] = _OrderedDict()
        if data:
            self.update(data)

    def add(self, item: Any, now: float | None = None) -> None:
        """Add an item, or renew it."""
        now = now or time.monotonic()
        self._data.pop(item, None)
        self._data[item] = now
        self.purge(now)

    def update(self, other: Any) -> None:
        """Add items, keeping their times if `other` has some; the later time counts."""
        if isinstance(other, LimitedSet):
            other = other._data
        pairs: Iterable[tuple[Any, float | None]]
        pairs = other.items() if isinstance(other, Mapping) else ((key, None) for key in other)
        now = time.monotonic()
        for key, stamp in pairs:
            stamp = now if stamp is None else stamp
            self._data[key] = max(stamp, self._data.get(key, stamp))
        self._data = _OrderedDict(sorted(self._data.items(), key=lambda pair: pair[1]))
        self.purge()

    def discard(self, item: Any) -> None:
        """Remove an item if it is there."""
        self._data.pop(item, None)

    def clear(self) -> None:
        """Remove all items."""
        self._data.clear()

    def purge(self, now: float | None = None) -> None:
        """Remove what is too much or too old."""
        data = self._data
        while self.maxlen and len(data) > self.maxlen:
            data.popitem(last=False)
        if not self.expires:
            return
        before = (now or time.monotonic()) - self.expires
        while len(data) > self.minlen:
            oldest = next(iter(data))
            if data[oldest] >= before:
                return
            del data[oldest]

    def pop(self, default: Any = None) -> Any:
        """Remove the oldest item and give it."""
        if not self._data:
            return default
        oldest = next(iter(self._data))
        del self._data[oldest]
        return oldest

    def as_dict(self) -> dict[Any, float]:
        """Give the items with their times of insertion."""
        return dict(self._data)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LimitedSet) and dict(self._data) == dict(other._data)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"<LimitedSet({len(self)}): maxlen={self.maxlen}, expires={self.expires}, "
            f"minlen={self.minlen}>"
        )

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._data))

    def __len__(self) -> int:
        return len(self._data)

    def __contains__(self, key: object) -> bool:
        return key in self._data
