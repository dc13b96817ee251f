"""Helpers around apps.

Source: Celery 5.7, ``celery.app.utils``.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.pickling import AppPickler, _unpickle_app, _unpickle_app_v2
from pgcelery.compat.app.reporting import (
    appstr,
    bugreport,
    filter_hidden_settings,
    sanitize_url,
)
from pgcelery.compat.app.settings import Settings, detect_settings
from pgcelery.compat.utils.imports import import_from_cwd
from pgcelery.compat.utils.imports import symbol_by_name as _symbol_by_name

__all__ = (
    "AppPickler",
    "Settings",
    "_unpickle_app",
    "_unpickle_app_v2",
    "appstr",
    "bugreport",
    "detect_settings",
    "filter_hidden_settings",
    "find_app",
    "sanitize_url",
)


def find_app(
    app: str,
    symbol_by_name: Callable[..., Any] = _symbol_by_name,
    imp: Callable[..., Any] = import_from_cwd,
) -> Any:
    """Find the app that ``--app`` names.

    It is the object ``module:name``; or of a module its ``app``, its ``celery``, the app of its
    sub-module ``celery``, or any app in it.

    Raises:
        AttributeError: There is none in the module.
        ImportError: The module cannot be imported.
    """
    try:
        found = symbol_by_name(app, imp=imp)
    except AttributeError:
        found = imp(app)
    if not isinstance(found, ModuleType) or ":" in app:
        return found
    for name in ("app", "celery"):
        inner = getattr(found, name, None)
        if inner is not None and not isinstance(inner, ModuleType):
            return inner
    if hasattr(found, "__path__"):
        try:
            return find_app(f"{app}.celery", symbol_by_name, imp)
        except ImportError:
            pass
    for suspect in vars(found).values():
        if isinstance(suspect, Celery):
            return suspect
    raise AttributeError(f"Module '{app}' has no attribute 'celery'")
