"""Settings written on a command line.

Source: Celery 5.7, the trailing arguments of ``celery worker``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from pgcelery.compat.app.defaults import NAMESPACES, Option

__all__ = ("parse_assignments",)

_CAST = re.compile(r"\((\w+)\)")
_TYPES = {**Option.typemap, "json": json.loads}
_TYPES.update(tuple=json.loads, list=json.loads, dict=json.loads)


def parse_assignments(args: Iterable[str], namespace: str = "celery") -> dict[str, Any]:
    """Read ``ns.key=value``; ``.key`` is in `namespace`, and ``(int)3`` says the type.

    Raises:
        ValueError: A value does not fit its setting; the message names it.
        KeyError: There is no such setting, and the type is not said.
    """
    return dict(_parse(arg, namespace.lower()) for arg in args)


def _parse(arg: str, namespace: str) -> tuple[str, Any]:
    key, _, value = arg.partition("=")
    key = key.lower().replace(".", "_")
    prefix, _, rest = key.partition("_")
    prefix = prefix or namespace
    name = f"{prefix}_{rest}" if prefix else rest
    cast = _CAST.match(value)
    if cast:
        return name, _TYPES[cast.group(1)](value[cast.end() :])
    try:
        return name, NAMESPACES[prefix][rest].to_python(value)
    except ValueError as exc:
        raise ValueError(f"{name!r}: {exc}") from exc
