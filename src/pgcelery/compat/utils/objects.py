"""Objects and classes.

Source: Celery 5.7, ``celery.utils.objects``.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from types import GenericAlias
from typing import Any, ClassVar

__all__ = ("Bunch", "FallbackContext", "getitem_property", "mro_lookup")


class Bunch:
    """An object with the attributes it is given."""

    def __init__(self, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)


def mro_lookup(
    cls: type,
    attr: str,
    stop: Container[type] | None = None,
    monkey_patched: Container[str] | None = None,
) -> type | None:
    """Give the class, in order of resolution, that defines an attribute.

    Args:
        cls: Where to begin.
        attr: The attribute.
        stop: Classes that do not count, at which the search ends.
        monkey_patched: Modules an attribute of a `stop` class may come from; from another module
            it was patched in, and that class is given after all.
    """
    for node in cls.mro():
        if stop and node in stop:
            value = node.__dict__.get(attr)
            origin = getattr(value, "__module__", None)
            patched = origin is not None and origin not in (monkey_patched or ())
            return node if patched else None
        if attr in node.__dict__:
            return node
    return None


class FallbackContext:
    """A context that gives `provided` and leaves it open, or else enters `fallback(...)`."""

    __class_getitem__: ClassVar[Any] = classmethod(GenericAlias)

    def __init__(
        self, provided: Any, fallback: Callable[..., Any], *fb_args: Any, **fb_kwargs: Any
    ) -> None:
        self.provided = provided
        self.fallback = fallback
        self.fb_args = fb_args
        self.fb_kwargs = fb_kwargs
        self._context: Any = None

    def __enter__(self) -> Any:
        if self.provided is not None:
            return self.provided
        self._context = self.fallback(*self.fb_args, **self.fb_kwargs)
        return self._context.__enter__()

    def __exit__(self, *exc_info: Any) -> Any:
        return None if self._context is None else self._context.__exit__(*exc_info)


class getitem_property:
    """An attribute that is an item, found by a dotted path, of its object; None if missing."""

    def __init__(self, keypath: str, doc: str | None = None) -> None:
        path, _, self.key = keypath.rpartition(".")
        self.path = path.split(".") if path else []
        self.__doc__ = doc

    def _holder(self, obj: Any) -> Any:
        for key in self.path:
            obj = obj[key]
        return obj

    def __get__(self, obj: Any, type: Any = None) -> Any:
        if obj is None:
            return type
        return (self._holder(obj) if self.path else obj).get(self.key)

    def __set__(self, obj: Any, value: Any) -> None:
        self._holder(obj)[self.key] = value
