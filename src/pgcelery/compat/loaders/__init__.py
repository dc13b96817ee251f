"""Loaders by name.

Source: Celery 5.7, ``celery.loaders``.
"""

from __future__ import annotations

from typing import Any

from pgcelery.compat.utils.imports import import_from_cwd, symbol_by_name

__all__ = ("get_loader_cls",)

LOADER_ALIASES = {
    "app": "pgcelery.compat.loaders.app:AppLoader",
    "default": "pgcelery.compat.loaders.default:Loader",
}


def get_loader_cls(loader: Any) -> Any:
    """Give a loader class by alias or by name."""
    return symbol_by_name(loader, LOADER_ALIASES, imp=import_from_cwd)
