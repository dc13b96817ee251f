"""Celery's API on a PostgreSQL engine: swap the import, keep the tasks.

``from pgcelery import Celery`` for ``from celery import Celery``; ``pgcelery.X`` is the module that
Celery calls ``celery.X``. Names are loaded when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pgcelery._version import __version__
from pgcelery.compat import _alias

if TYPE_CHECKING:
    from pgcelery.compat import VERSION as VERSION
    from pgcelery.compat import Celery as Celery
    from pgcelery.compat import Concurrency as Concurrency
    from pgcelery.compat import Placement as Placement
    from pgcelery.compat import RateLimit as RateLimit
    from pgcelery.compat import Signature as Signature
    from pgcelery.compat import Task as Task
    from pgcelery.compat import Unique as Unique
    from pgcelery.compat import app_or_default as app_or_default
    from pgcelery.compat import bugreport as bugreport
    from pgcelery.compat import chain as chain
    from pgcelery.compat import chord as chord
    from pgcelery.compat import chunks as chunks
    from pgcelery.compat import current_app as current_app
    from pgcelery.compat import current_task as current_task
    from pgcelery.compat import group as group
    from pgcelery.compat import install_as_celery as install_as_celery
    from pgcelery.compat import maybe_signature as maybe_signature
    from pgcelery.compat import shared_task as shared_task
    from pgcelery.compat import signature as signature
    from pgcelery.compat import states as states
    from pgcelery.compat import subtask as subtask
    from pgcelery.compat import uuid as uuid
    from pgcelery.compat import version_info as version_info
    from pgcelery.compat import xmap as xmap
    from pgcelery.compat import xstarmap as xstarmap

__all__ = (
    "VERSION",
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
    "maybe_signature",
    "shared_task",
    "signature",
    "states",
    "subtask",
    "uuid",
    "version_info",
    "xmap",
    "xstarmap",
)

_alias.install()


def __getattr__(name: str) -> Any:
    if name in _alias.OWN_MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module("pgcelery.compat"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
