"""Celery's API. Module paths follow Celery's.

Source: Celery 5.7, ``celery/__init__.py``. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pgcelery.compat._alias import install_as_celery, installed_as_celery
from pgcelery.compat._version import (
    SERIES,
    VERSION,
    VERSION_BANNER,
    __version__,
    version_info,
    version_info_t,
)

if TYPE_CHECKING:
    from pgcelery.compat import states as states
    from pgcelery.compat._state import current_task as current_task
    from pgcelery.compat.app import app_or_default as app_or_default
    from pgcelery.compat.app import bugreport as bugreport
    from pgcelery.compat.app import shared_task as shared_task
    from pgcelery.compat.app.base import Celery as Celery
    from pgcelery.compat.app.rules import Concurrency as Concurrency
    from pgcelery.compat.app.rules import Placement as Placement
    from pgcelery.compat.app.rules import RateLimit as RateLimit
    from pgcelery.compat.app.rules import Unique as Unique
    from pgcelery.compat.app.task import Task as Task
    from pgcelery.compat.canvas import Signature as Signature
    from pgcelery.compat.canvas import chain as chain
    from pgcelery.compat.canvas import chord as chord
    from pgcelery.compat.canvas import chunks as chunks
    from pgcelery.compat.canvas import group as group
    from pgcelery.compat.canvas import maybe_signature as maybe_signature
    from pgcelery.compat.canvas import subtask as subtask
    from pgcelery.compat.canvas import xmap as xmap
    from pgcelery.compat.canvas import xstarmap as xstarmap
    from pgcelery.compat.canvas.signature import signature as signature
    from pgcelery.compat.utils import uuid as uuid

    current_app: Celery

__all__ = (
    "SERIES",
    "VERSION",
    "VERSION_BANNER",
    "Celery",
    "Concurrency",
    "Placement",
    "RateLimit",
    "Signature",
    "Task",
    "Unique",
    "__version__",
    "app_or_default",
    "bugreport",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_task",
    "group",
    "install_as_celery",
    "installed_as_celery",
    "maybe_patch_concurrency",
    "maybe_signature",
    "shared_task",
    "signature",
    "states",
    "subtask",
    "uuid",
    "version_info",
    "version_info_t",
    "xmap",
    "xstarmap",
)

_CANVAS = "pgcelery.compat.canvas"
_RULES = "pgcelery.compat.app.rules"

#: Where each name is.
_HOMES = {
    "Celery": "pgcelery.compat.app.base",
    "Concurrency": _RULES,
    "Placement": _RULES,
    "RateLimit": _RULES,
    "Unique": _RULES,
    "Task": "pgcelery.compat.app.task",
    "app_or_default": "pgcelery.compat.app",
    "bugreport": "pgcelery.compat.app",
    "shared_task": "pgcelery.compat.app",
    "uuid": "pgcelery.compat.utils",
    "Signature": _CANVAS,
    "chain": _CANVAS,
    "chord": _CANVAS,
    "chunks": _CANVAS,
    "group": _CANVAS,
    "maybe_signature": _CANVAS,
    "signature": _CANVAS,
    "subtask": _CANVAS,
    "xmap": _CANVAS,
    "xstarmap": _CANVAS,
}


def maybe_patch_concurrency(*args: Any, **kwargs: Any) -> None:
    """Do nothing: the pools for which Celery patches the standard library are not here."""


def _current(name: str) -> Any:
    # The app's module says how the default app is made.
    importlib.import_module("pgcelery.compat.app.base")
    return getattr(importlib.import_module("pgcelery.compat._state"), name)


def _submodule(name: str) -> ModuleType | None:
    full = f"{__name__}.{name}"
    try:
        return importlib.import_module(full)
    except ModuleNotFoundError as exc:
        if exc.name != full:
            raise
        return None


def __getattr__(name: str) -> Any:
    if name in ("current_app", "current_task"):
        found = _current(name)
    elif name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
    elif name == "bin":
        return importlib.import_module("pgcelery.cli")
    else:
        # Celery has some of its modules as attributes without their having been imported.
        found = None if name.startswith("__") else _submodule(name)
        if found is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
