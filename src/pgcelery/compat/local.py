"""Objects that stand for another one, found when they are used.

Source: Celery 5.7, ``celery.local``. Inside this package three things are proxies: `current_app`,
`current_task` and the result of `shared_task`; a lazy ``@app.task`` is a `PromiseProxy`.
"""

from __future__ import annotations

import importlib
import operator
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import GenericAlias
from typing import Any, ClassVar

__all__ = ("PromiseProxy", "Proxy", "class_property", "maybe_evaluate", "try_import")


def try_import(module: str, default: Any = None) -> Any:
    """Import a module, or give `default` when it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return default


class _Forwarded(str):
    """A class attribute that every object has, which an instance must take from its object.

    A ``str``, because ``type`` reads ``__module__`` without asking the descriptor.
    """

    attribute: str

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return str(self)
        try:
            return object.__getattribute__(obj, "_Proxy__own")[self.attribute]
        except KeyError:
            return getattr(obj._get_current_object(), self.attribute)

    def __set__(self, obj: Any, value: Any) -> None:
        setattr(obj._get_current_object(), self.attribute, value)


class Proxy:
    """Forwards everything to the object that `local(*args, **kwargs)` returns, asked each time."""

    __slots__ = ("__args", "__kwargs", "__local", "__own")

    def __init__(
        self,
        local: Callable[..., Any],
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        __doc__: str | None = None,
    ) -> None:
        setter = object.__setattr__
        setter(self, "_Proxy__local", local)
        setter(self, "_Proxy__args", args or ())
        setter(self, "_Proxy__kwargs", kwargs or {})
        own = {"__name__": name, "__doc__": __doc__}
        setter(self, "_Proxy__own", {key: value for key, value in own.items() if value is not None})

    def _get_current_object(self) -> Any:
        """Give the object this one stands for now."""
        getter = object.__getattribute__
        found = getter(self, "_Proxy__local")
        return found(*getter(self, "_Proxy__args"), **getter(self, "_Proxy__kwargs"))

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        try:
            namespace: dict[str, Any] = self._get_current_object().__dict__
        except RuntimeError:
            raise AttributeError("__dict__") from None
        return namespace

    @property
    def __class__(self) -> Any:
        return self._get_current_object().__class__

    @__class__.setter
    def __class__(self, value: Any) -> None:
        self._get_current_object().__class__ = value

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(self._get_current_object(), name)

    def __repr__(self) -> str:
        try:
            return repr(self._get_current_object())
        except RuntimeError:
            return f"<{Proxy.__name__} unbound>"

    def __bool__(self) -> bool:
        try:
            return bool(self._get_current_object())
        except RuntimeError:
            return False

    def __dir__(self) -> list[str]:
        try:
            return dir(self._get_current_object())
        except RuntimeError:
            return []

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __eq__(self, other: object) -> bool:
        return bool(self._get_current_object() == other)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the object."""
        return self._get_current_object()(*args, **kwargs)

    def __reduce__(self) -> Any:
        return self._get_current_object().__reduce__()

    def __enter__(self) -> Any:
        return self._get_current_object().__enter__()

    def __exit__(self, *exc_info: Any) -> Any:
        return self._get_current_object().__exit__(*exc_info)


def _forwarder(operation: Callable[..., Any]) -> Callable[..., Any]:
    def forward(self: Proxy, *args: Any) -> Any:
        return operation(self._get_current_object(), *args)

    return forward


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "__str__": str,
    "__len__": len,
    "__iter__": iter,
    "__int__": int,
    "__float__": float,
    "__complex__": complex,
    "__divmod__": divmod,
    "__contains__": operator.contains,
    "__and__": operator.and_,
    "__or__": operator.or_,
    "__invert__": operator.invert,
    **{
        f"__{name}__": getattr(operator, name)
        for name in (
            *("lt", "le", "ne", "gt", "ge", "getitem", "setitem", "delitem", "add", "sub", "mul"),
            *("floordiv", "truediv", "mod", "pow", "lshift", "rshift", "xor", "neg", "pos", "abs"),
            "index",
        )
    },
}
for _name, _operation in _OPERATIONS.items():
    setattr(Proxy, _name, _forwarder(_operation))


class PromiseProxy(Proxy):
    """A proxy that asks for its object once, on first use, and keeps it."""

    __slots__ = ("__pending__", "__thing", "__weakref__")

    def _get_current_object(self) -> Any:
        try:
            return object.__getattribute__(self, "_PromiseProxy__thing")
        except AttributeError:
            return self.__evaluate__()

    def __evaluated__(self) -> bool:
        try:
            object.__getattribute__(self, "_PromiseProxy__thing")
        except AttributeError:
            return False
        return True

    def __then__(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self.__evaluated__():
            return fun(*args, **kwargs)
        try:
            pending = object.__getattribute__(self, "__pending__")
        except AttributeError:
            pending = deque()
            object.__setattr__(self, "__pending__", pending)
        pending.append((fun, args, kwargs))
        return None

    def __maybe_evaluate__(self) -> Any:
        return self._get_current_object()

    def __evaluate__(self) -> Any:
        thing = Proxy._get_current_object(self)
        object.__setattr__(self, "_PromiseProxy__thing", thing)
        try:
            pending = object.__getattribute__(self, "__pending__")
        except AttributeError:
            return thing
        while pending:
            fun, args, kwargs = pending.popleft()
            fun(*args, **kwargs)
        return thing


for _class in (Proxy, PromiseProxy):
    for _name in ("__name__", "__module__", "__doc__"):
        _attribute = _Forwarded(getattr(_class, _name))
        _attribute.attribute = _name
        setattr(_class, _name, _attribute)


def maybe_evaluate(obj: Any) -> Any:
    """Evaluate a `PromiseProxy`; give back anything else as it is."""
    try:
        return obj.__maybe_evaluate__()
    except AttributeError:
        return obj


class class_property:
    """A property that is read, and with `setter` written, on the class."""

    __class_getitem__: ClassVar[Any] = classmethod(GenericAlias)

    def __init__(self, getter: Any = None, setter: Any = None) -> None:
        self._getter = getter if isinstance(getter, classmethod) else classmethod(getter)
        self._setter = (
            setter if setter is None or isinstance(setter, classmethod) else classmethod(setter)
        )
        self.__doc__ = self._getter.__func__.__doc__
        self.__name__ = self._getter.__func__.__name__

    def __get__(self, obj: Any, type: Any = None) -> Any:
        owner = obj.__class__ if type is None else type
        return self._getter.__get__(obj, owner)()

    def __set__(self, obj: Any, value: Any) -> Any:
        if self._setter is None:
            raise AttributeError(f"cannot set {self.__name__!r}")
        return self._setter.__get__(obj)(value)

    def setter(self, setter: Any) -> class_property:
        """Give a copy of this property that can also be set."""
        return self.__class__(self._getter, setter)
