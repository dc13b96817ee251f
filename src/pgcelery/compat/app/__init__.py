"""The application, and what stands around it.

Source: Celery 5.7, ``celery.app``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pgcelery.compat import _state
from pgcelery.compat._state import (
    app_or_default,
    disable_trace,
    enable_trace,
    pop_current_task,
    push_current_task,
)
from pgcelery.compat.app.shared import shared_task
from pgcelery.compat.local import Proxy

if TYPE_CHECKING:
    from pgcelery.compat.app.base import Celery as Celery
    from pgcelery.compat.app.pickling import AppPickler as AppPickler

__all__ = (
    "AppPickler",
    "Celery",
    "app_or_default",
    "bugreport",
    "default_app",
    "disable_trace",
    "enable_trace",
    "pop_current_task",
    "push_current_task",
    "shared_task",
)

#: The app of threads that have none of their own.
default_app: Any = Proxy(lambda: _state.default_app)

# The modules of this package import each other through it, so it must not import them.
_LAZY = {
    "Celery": "pgcelery.compat.app.base",
    "AppPickler": "pgcelery.compat.app.pickling",
}


def bugreport(app: Any = None) -> str:
    """Say what software and which settings an app, by default the current one, runs with."""
    return str((app or _state.get_current_app()).bugreport())


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
