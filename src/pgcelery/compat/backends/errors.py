"""Exceptions in stored results: written for any reader, and read without trusting them.

Source: Celery 5.7, `celery.backends.base`, except that nothing is ever imported, nor any lazy
attribute triggered, because a stored row names it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pgcelery.compat.exceptions import SecurityError
from pgcelery.compat.utils.serialization import (
    celery_module,
    create_exception_cls,
    ensure_serializable,
)

_OURS = "pgcelery.compat."


def describe(exc: BaseException, encode: Callable[[Any], Any]) -> dict[str, Any]:
    """Give what is stored of `exc`; arguments that `encode` refuses are replaced by their repr."""
    kind = type(exc)
    return {
        "exc_type": kind.__qualname__,
        "exc_message": ensure_serializable(exc.args, encode),
        "exc_module": celery_module(kind.__module__),
    }


def rebuild(stored: Any) -> BaseException:
    """Make the exception that `describe` told of.

    The class is taken only from modules that are imported already. An unknown one is made up; one
    that refuses the arguments is replaced by Exception.

    Raises:
        celery.exceptions.SecurityError: What it names is no exception class.
        TypeError: `stored` is no mapping.
        ValueError: `stored` names no class.
    """
    if not isinstance(stored, Mapping):
        try:
            stored = dict(stored)
        except TypeError as exc:
            raise TypeError(
                "If the stored exception isn't an instance of "
                "BaseException, it must be a dictionary.\n"
                f"Instead got: {stored}"
            ) from exc
    if "exc_type" not in stored:
        raise ValueError("Exception information must include the exception type")
    name, module = str(stored["exc_type"]), stored.get("exc_module")
    message = stored.get("exc_message", "")
    if module is None:
        cls: Any = create_exception_cls(name, "celery.backends.base")
    else:
        cls = _find(str(module), name) or create_exception_cls(name, "celery.exceptions")
    if not isinstance(cls, type) or not issubclass(cls, BaseException):
        known_as = name if module is None else f"{module}.{name}"
        raise SecurityError(f"Expected an exception class, got {known_as} with payload {message}")
    try:
        return cls(*message) if isinstance(message, (tuple, list)) else cls(message)
    except Exception:
        return Exception(f"{cls}({message})")


def _find(module: str, qualname: str) -> Any:
    """Give what an imported module has under that name, or None."""
    for known_as in _aliases(module):
        found: Any = sys.modules.get(known_as)
        for name in qualname.split("."):
            found = getattr(found, "__dict__", {}).get(name)
        if found is not None:
            return found
    return None


def _aliases(module: str) -> Iterator[str]:
    """Names under which we have a module of Celery's."""
    root, _, rest = module.partition(".")
    if root == "celery" and rest:
        yield _OURS + rest
    yield module
