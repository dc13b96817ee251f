"""Importing the ``tasks`` modules of packages.

Source: Celery 5.7, userguide "Automatic naming and relative imports" and ``celery.loaders.base``.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType
from typing import Any

from pgcelery.compat import signals

__all__ = ("autodiscover_tasks", "connect", "discover", "find_related_module")

_running = False


def autodiscover_tasks(
    packages: Iterable[str], related_name: str | None = "tasks"
) -> list[ModuleType | None]:
    """Import ``<package>.<related_name>`` of each package; a missing one gives None.

    A module of tasks that itself starts a discovery finds nothing: it is already under way.
    """
    global _running
    if _running:
        return []
    _running = True
    try:
        return [find_related_module(package, related_name) for package in packages]
    finally:
        _running = False


def find_related_module(package: str, related_name: str | None) -> ModuleType | None:
    """Import a module beside or inside a package.

    Args:
        package: Its name, or that of something in it: Django's INSTALLED_APPS may name classes.
        related_name: None or empty imports the package itself.

    Raises:
        ModuleNotFoundError: There is no such package, or the module imports one that is missing.
    """
    try:
        found = importlib.import_module(package)
        if not related_name:
            return found
    except ModuleNotFoundError:
        package = package.rpartition(".")[0]
        if not package:
            raise
    name = f"{package}.{related_name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name == name:
            return None
        raise


def discover(app: Any, packages: Any, related_name: str | None) -> Any:
    """Import the modules of tasks now.

    Args:
        app: Its loader imports; its fix-ups are asked if `packages` is empty.
        packages: Names, or a function that gives them.
        related_name: Of the module in each.
    """
    if packages:
        names = packages() if callable(packages) else packages
    else:
        finders = [fixup for fixup in app._fixups if hasattr(fixup, "autodiscover_tasks")]
        names = [name for fixup in finders for name in fixup.autodiscover_tasks()]
    return app.loader.autodiscover_tasks(names, related_name)


def connect(app: Any, packages: Any, related_name: str | None) -> None:
    """Import the modules of tasks when the app's modules are imported, in a worker above all."""

    def on_import_modules(**kwargs: Any) -> Any:
        return app._autodiscover_tasks(packages, related_name)

    signals.import_modules.connect(on_import_modules, weak=False, sender=app)
