"""What reads the configuration and imports the modules of tasks.

Source: Celery 5.7, ``celery.loaders.base``.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import cached_property
from types import ModuleType
from typing import Any, ClassVar

from pgcelery.compat import signals
from pgcelery.compat.app import autodiscover
from pgcelery.compat.app.cmdline import parse_assignments
from pgcelery.compat.utils.collections import DictAttribute, force_mapping
from pgcelery.compat.utils.functional import maybe_list
from pgcelery.compat.utils.imports import (
    NotAPackage,
    find_module,
    import_from_cwd,
    symbol_by_name,
)

__all__ = ("BaseLoader",)

_unconfigured: Any = object()

autodiscover_tasks = autodiscover.autodiscover_tasks
find_related_module = autodiscover.find_related_module


class BaseLoader:
    """Subclass it and override what should be otherwise; the ``on_`` methods do nothing."""

    builtin_modules: frozenset[str] = frozenset()
    configured = False
    override_backends: ClassVar[dict[str, str]] = {}
    worker_initialized = False
    _conf: Any = _unconfigured

    def __init__(self, app: Any, **kwargs: Any) -> None:
        self.app = app
        self.task_modules: set[str] = set()

    def now(self, utc: bool = True) -> datetime:
        """Give the time."""
        return datetime.now(UTC) if utc else datetime.now()

    def on_task_init(self, task_id: str, task: Any) -> None:
        """Hear that a task is about to run."""

    def on_process_cleanup(self) -> None:
        """Hear that a task has run."""

    def on_worker_init(self) -> None:
        """Hear that a worker begins."""

    def on_worker_shutdown(self) -> None:
        """Hear that a worker ends."""

    def on_worker_process_init(self) -> None:
        """Hear that a process of a worker's pool begins."""

    def import_task_module(self, module: str) -> Any:
        """Import a module of tasks, looking in the current directory too."""
        self.task_modules.add(module)
        return self.import_from_cwd(module)

    def import_module(self, module: str, package: str | None = None) -> ModuleType:
        """Import a module."""
        return importlib.import_module(module, package=package)

    def import_from_cwd(
        self, module: str, imp: Callable[..., Any] | None = None, package: str | None = None
    ) -> Any:
        """Import a module, looking in the current directory first."""
        return import_from_cwd(module, imp or self.import_module, package=package)

    def import_default_modules(self) -> list[Any]:
        """Import what `imports` and `include` name, after autodiscovery.

        Raises:
            Exception: Whatever a module raised; signals would only have logged it.
        """
        for _, response in signals.import_modules.send(sender=self.app):
            if isinstance(response, Exception):
                raise response
        return [self.import_task_module(module) for module in self.default_modules]

    def init_worker(self) -> None:
        """Prepare a worker, once."""
        if not self.worker_initialized:
            self.worker_initialized = True
            self.import_default_modules()
            self.on_worker_init()

    def shutdown_worker(self) -> None:
        """End a worker."""
        self.on_worker_shutdown()

    def init_worker_process(self) -> None:
        """Prepare a process of a worker's pool."""
        self.on_worker_process_init()

    def config_from_object(self, obj: Any, silent: bool = False) -> bool:
        """Take the configuration from an object, a mapping, or what a dotted name names.

        Returns:
            Whether there was one; False only if `silent`.
        """
        if isinstance(obj, str):
            try:
                obj = self._smart_import(obj, imp=self.import_from_cwd)
            except (ImportError, AttributeError):
                if silent:
                    return False
                raise
        self._conf = force_mapping(obj)
        if self._conf.get("override_backends") is not None:
            self.__dict__["override_backends"] = self._conf["override_backends"]
        return True

    def _smart_import(self, path: str, imp: Callable[..., Any]) -> Any:
        if ":" in path:
            return symbol_by_name(path, imp=imp)
        try:
            return imp(path)
        except ImportError:
            # Not a module: perhaps an attribute of one.
            return symbol_by_name(path, imp=imp)

    def _import_config_module(self, name: str) -> Any:
        try:
            self.find_module(name)
        except NotAPackage:
            hint = f" Did you mean '{name[:-3]}'?" if name.endswith(".py") else ""
            raise NotAPackage(
                f"Error: Module '{name}' doesn't exist, or it's not a valid Python module name."
                + hint
            ) from None
        return self.import_from_cwd(name)

    def find_module(self, module: str) -> ModuleType:
        """Import a module, looking in the current directory too."""
        return find_module(module)

    def cmdline_config_parser(
        self, args: Iterable[str], namespace: str = "celery", **kwargs: Any
    ) -> dict[str, Any]:
        """Read settings written as ``worker.prefetch_multiplier=1``."""
        return parse_assignments(args, namespace)

    def read_configuration(self, env: str = "CELERY_CONFIG_MODULE") -> Any:
        """Give the settings of the module that the environment names; None if it names none."""
        name = os.environ.get(env)
        return DictAttribute(self._import_config_module(name)) if name else None

    def autodiscover_tasks(self, packages: Iterable[str], related_name: str = "tasks") -> None:
        """Import the modules of tasks of some packages."""
        found = autodiscover_tasks(packages or (), related_name)
        self.task_modules.update(module.__name__ for module in found if module)

    @cached_property
    def default_modules(self) -> tuple[str, ...]:
        """What a worker imports."""
        conf = self.app.conf
        return (*self.builtin_modules, *maybe_list(conf.imports), *maybe_list(conf.include))

    @property
    def conf(self) -> Any:
        """What was read; a mapping, or None."""
        if self._conf is _unconfigured:
            self._conf = self.read_configuration()
        return self._conf
