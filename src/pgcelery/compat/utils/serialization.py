"""Exceptions that can cross a process, and small coercions.

Source: Celery 5.7, `celery.utils.serialization`.
"""

from __future__ import annotations

import datetime
import numbers
import pickle
import sys
from base64 import b64decode as _b64decode
from base64 import b64encode as _b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import takewhile
from typing import Any, NoReturn

from kombu.abstract import Object as KombuObject
from kombu.utils.encoding import bytes_to_str, safe_repr, str_to_bytes

__all__ = (
    "UnpickleableExceptionWrapper",
    "create_exception_cls",
    "find_pickleable_exception",
    "get_pickleable_etype",
    "get_pickleable_exception",
    "get_pickled_exception",
    "strtobool",
    "subclass_exception",
)

#: Where a search for a class that pickles stops: saying "Exception" says nothing.
unwanted_base_classes = (Exception, BaseException, object)

STRTOBOOL_DEFAULT_TABLE = {
    "false": False,
    "no": False,
    "0": False,
    "off": False,
    "true": True,
    "yes": True,
    "1": True,
    "on": True,
}

_OUR_PACKAGES = ("pgcelery.compat.", "pgcelery.")


def celery_module(module: str | None) -> str | None:
    """Give the name under which Celery knows one of our modules; other names come back unchanged.

    Stored results carry the module of an exception, and real Celery may read them.
    """
    for prefix in _OUR_PACKAGES:
        if module is not None and module.startswith(prefix):
            return "celery." + module.removeprefix(prefix)
    return module


def subclass_exception(name: str, parent: type[BaseException], module: str | None) -> type[Any]:
    """Make an exception class."""
    return type(name, (parent,), {"__module__": module})


def create_exception_cls(
    name: str, module: str | None, parent: type[BaseException] | None = None
) -> type[Any]:
    """Make an exception class for a name that nothing here has, by default an Exception."""
    return subclass_exception(name, parent or Exception, module)


def itermro(cls: type, stop: Iterable[type]) -> Iterator[type]:
    """Walk up from `cls` until one of `stop`."""
    ends = tuple(stop)
    return takewhile(lambda sup: sup not in ends, cls.__mro__)


def find_pickleable_exception(
    exc: BaseException,
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> BaseException | None:
    """Rebuild `exc` as the nearest of its base classes that survives pickling; None without one."""
    args = getattr(exc, "args", ())
    for cls in itermro(type(exc), unwanted_base_classes):
        try:
            nearest: BaseException = cls(*args)
            loads(dumps(nearest))
        except Exception:
            continue
        return nearest
    return None


def ensure_serializable(items: Iterable[Any], encoder: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Replace each item that `encoder` refuses by its repr."""
    safe: list[Any] = []
    for item in items:
        try:
            encoder(item)
        except Exception:
            safe.append(safe_repr(item))
        else:
            safe.append(item)
    return tuple(safe)


class UnpickleableExceptionWrapper(Exception):
    """Stands for an exception that does not pickle; keeps its names, arguments and text."""

    exc_module: str | None = None
    exc_cls_name: str | None = None
    exc_args: tuple[Any, ...] | None = None

    def __init__(
        self, exc_module: str, exc_cls_name: str, exc_args: Iterable[Any], text: str | None = None
    ) -> None:
        safe_args = ensure_serializable(exc_args, lambda v: pickle.loads(pickle.dumps(v)))
        self.exc_module = exc_module
        self.exc_cls_name = exc_cls_name
        self.exc_args = safe_args
        self.text = text
        super().__init__(exc_module, exc_cls_name, safe_args, text)

    def restore(self) -> BaseException:
        """Make an exception of a class that looks like the original."""
        cls = create_exception_cls(str(self.exc_cls_name), self.exc_module)
        restored: BaseException = cls(*(self.exc_args or ()))
        return restored

    def __str__(self) -> str:
        return str(self.text)

    @classmethod
    def from_exception(cls, exc: BaseException) -> UnpickleableExceptionWrapper:
        """Wrap `exc`, keeping its traceback."""
        kind = type(exc)
        wrapper = cls(kind.__module__, kind.__name__, getattr(exc, "args", ()), safe_repr(exc))
        return wrapper.with_traceback(exc.__traceback__)


def get_pickleable_exception(exc: BaseException) -> BaseException:
    """Give `exc`, or if it does not pickle the nearest thing that does."""
    try:
        pickle.loads(pickle.dumps(exc))
    except Exception:
        return find_pickleable_exception(exc) or UnpickleableExceptionWrapper.from_exception(exc)
    return exc


def get_pickleable_etype(
    cls: type[Any],
    loads: Callable[[bytes], Any] = pickle.loads,
    dumps: Callable[[Any], bytes] = pickle.dumps,
) -> type[Any]:
    """Give `cls`, or Exception if the class does not pickle."""
    try:
        loads(dumps(cls))
    except Exception:
        return Exception
    return cls


def get_pickled_exception(exc: BaseException) -> BaseException:
    """Undo `get_pickleable_exception`."""
    return exc.restore() if isinstance(exc, UnpickleableExceptionWrapper) else exc


def b64encode(s: str | bytes) -> str:
    """Encode to base64 text."""
    return str(bytes_to_str(_b64encode(str_to_bytes(s))))


def b64decode(s: str | bytes) -> bytes:
    """Decode base64 text."""
    return _b64decode(str_to_bytes(s))


def strtobool(term: Any, table: Mapping[str, bool] | None = None) -> Any:
    """Read yes/no, on/off, true/false, 1/0; what is not text comes back unchanged.

    Raises:
        TypeError: Another word.
    """
    if not isinstance(term, str):
        return term
    try:
        return (STRTOBOOL_DEFAULT_TABLE if table is None else table)[term.lower()]
    except KeyError:
        raise TypeError(f"Cannot coerce {term!r} to type bool") from None


def _time_text(value: datetime.date | datetime.time) -> str:
    """ISO text with milliseconds and ``Z``, as ECMA-262 writes times."""
    text = value.isoformat()
    if isinstance(value, datetime.datetime):
        if value.microsecond:
            text = text[:23] + text[26:]
        return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text
    if isinstance(value, datetime.time) and value.microsecond:
        return text[:12]
    return text


def jsonify(
    obj: Any,
    builtin_types: tuple[type, ...] = (numbers.Real, str),
    key: Any = None,
    keyfilter: Callable[[Any], Any] | None = None,
    unknown_type_filter: Callable[[Any], Any] | None = None,
) -> Any:
    """Turn `obj` into what plain JSON can say.

    Raises:
        ValueError: A type it does not know and no `unknown_type_filter`.
    """
    options = (builtin_types, keyfilter, unknown_type_filter)
    if isinstance(obj, KombuObject):
        obj = obj.as_dict(recurse=True)
    if obj is None or isinstance(obj, builtin_types):
        return obj
    if isinstance(obj, (tuple, list)):
        return [jsonify(v, options[0], key, *options[1:]) for v in obj]
    if isinstance(obj, dict):
        return {
            k: jsonify(v, options[0], k, *options[1:])
            for k, v in obj.items()
            if keyfilter is None or keyfilter(k)
        }
    if isinstance(obj, (datetime.date, datetime.time)):
        return _time_text(obj)
    if isinstance(obj, datetime.timedelta):
        return str(obj)
    if unknown_type_filter is None:
        raise ValueError(f"Unsupported type: {type(obj)!r} {obj!r} (parent: {key})")
    return unknown_type_filter(obj)


def raise_with_context(exc: BaseException) -> NoReturn:
    """Raise `exc` from the exception being handled; if it is that one, as it was."""
    current = sys.exc_info()[1]
    if current is exc:
        raise exc
    raise exc from current
