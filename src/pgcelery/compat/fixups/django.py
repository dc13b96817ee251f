"""What an app needs inside Django.

Source: Celery 5.7, ``celery.fixups.django`` and "First steps with Django".
"""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from typing import Any
from uuid import uuid4

from pgcelery.compat import _state, signals
from pgcelery.compat.exceptions import FixupWarning, ImproperlyConfigured
from pgcelery.compat.local import Proxy
from pgcelery.compat.utils.imports import symbol_by_name
from pgcelery.compat.utils.log import get_logger

__all__ = ("DjangoFixup", "DjangoWorkerFixup", "fixup")

logger = get_logger(__name__)


def _unwrap(app: Any) -> Any:
    return app._get_current_object() if isinstance(app, Proxy) else app


def fixup(app: Any, env: str = "DJANGO_SETTINGS_MODULE") -> DjangoFixup | None:
    """Adapt an app to Django if the environment names Django's settings.

    Raises:
        ImproperlyConfigured: Django is too old.
    """
    if not os.environ.get(env) or "django" in str(app.loader_cls).lower():
        return None
    try:
        django: Any = import_module("django")
    except ImportError:
        message = (
            f"Environment variable {env} is defined\n"
            "but Django isn't installed.  Won't apply Django fix-ups!\n"
        )
        warnings.warn(FixupWarning(message), stacklevel=2)
        return None
    if django.VERSION < (1, 11):
        raise ImproperlyConfigured("Celery 5.x requires Django 1.11 or later.")
    return DjangoFixup(app).install()


class DjangoFixup:
    """One for each app: path, clock, class of tasks, and the modules of Django's apps."""

    def __init__(self, app: Any) -> None:
        self.app = app
        if _state.default_app is None:
            app.set_default()
        self._worker_fixup: DjangoWorkerFixup | None = None
        self._worker_init_uid = (f"{__name__}.on_worker_init", uuid4().hex)

    def install(self) -> DjangoFixup:
        """Adapt the app, and wait for its worker."""
        sys.path.insert(0, os.getcwd())
        self._settings = symbol_by_name("django.conf:settings")
        self.app.loader.now = self.now
        if not self.app._custom_task_cls_used:
            self.app.task_cls = "pgcelery.compat.contrib.django.task:DjangoTask"
        signals.import_modules.connect(self.on_import_modules, sender=self.app)
        signals.worker_init.connect(self.on_worker_init, dispatch_uid=self._worker_init_uid)
        return self

    @property
    def worker_fixup(self) -> DjangoWorkerFixup:
        """What the app's worker needs."""
        if self._worker_fixup is None:
            self._worker_fixup = DjangoWorkerFixup(self.app)
        return self._worker_fixup

    @worker_fixup.setter
    def worker_fixup(self, value: DjangoWorkerFixup) -> None:
        self._worker_fixup = value

    def on_import_modules(self, **kwargs: Any) -> None:
        """Set Django up before the modules of tasks are imported."""
        self.worker_fixup.validate_models()

    def on_worker_init(self, **kwargs: Any) -> None:
        """Prepare a worker, unless it is another app's."""
        worker = kwargs.get("sender")
        worker_app = _unwrap(getattr(worker, "app", None))
        if worker_app is not None and worker_app is not _unwrap(self.app):
            logger.debug("Django fixup of %r ignores the worker of %r", self.app, worker_app)
            return
        if worker is None:
            message = "DjangoFixup.on_worker_init called without a sender (worker instance)."
            warnings.warn(message, FixupWarning, stacklevel=2)
        self.worker_fixup.worker = worker
        self.worker_fixup.install()

    def now(self, utc: bool = False) -> datetime:
        """Give the time, by default as Django has it."""
        return datetime.now(UTC) if utc else self._now()

    @cached_property
    def _now(self) -> Any:
        return symbol_by_name("django.utils.timezone:now")

    def autodiscover_tasks(self) -> list[str]:
        """Give the names of Django's apps."""
        apps = import_module("django.apps").apps
        return [config.name for config in apps.get_app_configs()]


class DjangoWorkerFixup:
    """One for each app that has a worker: no database connection outlives a task or a fork."""

    #: Set before `install`.
    worker: Any = None
    _db_recycles = 0

    def __init__(self, app: Any) -> None:
        self.app = app
        self.db_reuse_max = app.conf.get("CELERY_DB_REUSE_MAX", None)
        self._db: Any = import_module("django.db")
        self._cache: Any = import_module("django.core.cache")
        self._settings = symbol_by_name("django.conf:settings")
        self.interface_errors = (self._db.InterfaceError,)
        self.DatabaseError = self._db.DatabaseError

    def django_setup(self) -> None:
        """Set Django up."""
        import_module("django").setup()

    def validate_models(self) -> None:
        """Set Django up and run its checks, unless CELERY_SKIP_CHECKS is set."""
        self.django_setup()
        if not os.environ.get("CELERY_SKIP_CHECKS"):
            import_module("django.core.checks").run_checks()

    def install(self) -> DjangoWorkerFixup:
        """Listen to the worker, and close what is open."""
        signals.beat_embedded_init.connect(self.close_database)
        signals.task_prerun.connect(self.on_task_prerun)
        signals.task_postrun.connect(self.on_task_postrun)
        signals.worker_process_init.connect(self.on_worker_process_init)
        self.close_database()
        self.close_cache()
        return self

    def on_worker_process_init(self, **kwargs: Any) -> None:
        """Drop the connections that were inherited, without a word to their servers."""
        if os.environ.get("FORKED_BY_MULTIPROCESSING"):
            self.validate_models()
        for connection in self._db.connections.all():
            if connection and connection.connection:
                self._maybe_close_db_fd(connection)
        self._close_database()
        self.close_cache()

    def _maybe_close_db_fd(self, connection: Any) -> None:
        # A proper close() would end the parent's session at the server.
        with (
            contextlib.suppress(AttributeError, OSError, TypeError, *self.interface_errors),
            connection.wrap_database_errors,
        ):
            os.close(connection.connection.fileno())

    def on_task_prerun(self, sender: Any, **kwargs: Any) -> None:
        """Close what the last task left open."""
        if not getattr(sender.request, "is_eager", False):
            self.close_database()

    def on_task_postrun(self, sender: Any, **kwargs: Any) -> None:
        """Close what the task left open."""
        if not getattr(sender.request, "is_eager", False):
            self.close_database()
            self.close_cache()

    def close_database(self, **kwargs: Any) -> None:
        """Close the connections, or with CELERY_DB_REUSE_MAX after so many tasks."""
        if not self.db_reuse_max:
            self._close_database()
            return
        if self._db_recycles >= self.db_reuse_max * 2:
            self._db_recycles = 0
            self._close_database()
        self._db_recycles += 1

    def _is_prefork(self) -> bool:
        pool = getattr(self.worker, "pool_cls", "")
        return "prefork" in (pool if isinstance(pool, str) else pool.__module__)

    def _close_database(self) -> None:
        for connection in self._db.connections.all(initialized_only=True):
            try:
                self._close(connection)
            except self.interface_errors:
                pass
            except self.DatabaseError as exc:
                if "closed" not in str(exc) and "not connected" not in str(exc):
                    raise

    def _close(self, connection: Any) -> None:
        connection.close()
        options = self._settings.DATABASES.get(connection.alias, {}).get("OPTIONS", {})
        if options.get("pool") and self._is_prefork() and hasattr(connection, "close_pool"):
            with contextlib.suppress(KeyError):
                connection.close_pool()

    def close_cache(self) -> None:
        """Close the connections to the caches."""
        with contextlib.suppress(TypeError, AttributeError):
            self._cache.close_caches()
