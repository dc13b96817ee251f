"""Apps for tests, and the current app kept clean around them.

Source: Celery 5.7, ``celery.contrib.testing.app``. The URLs ``memory://`` and ``cache+memory://``
of the default settings mean a private PostgreSQL that is thrown away.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from pgcelery.compat import _state
from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.log import Logging
from pgcelery.compat.contrib.testing import tasks as _tasks

__all__ = ("DEFAULT_TEST_CONFIG", "TestApp", "Trap", "UnitLogging", "set_trap", "setup_default_app")

DEFAULT_TEST_CONFIG: dict[str, Any] = {
    "worker_hijack_root_logger": False,
    "worker_log_color": False,
    "accept_content": {"json"},
    "enable_utc": True,
    "timezone": "UTC",
    "broker_url": "memory://",
    "result_backend": "cache+memory://",
    "broker_heartbeat": 0,
}

#: importing the module is what registers ``celery.ping`` with every app
PING = _tasks.ping


class Trap:
    """Stands for the current app where nothing may use it."""

    def __getattr__(self, name: str) -> Any:
        # Asked for by unittest.mock of whatever it patches.
        if name in ("_is_coroutine", "__func__"):
            return None
        raise RuntimeError("Test depends on current_app")


class UnitLogging(Logging):
    """Logging that leaves the loggers to the test runner."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.already_setup = True


def TestApp(
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    enable_logging: bool = False,
    set_as_current: bool = False,
    log: Any = UnitLogging,
    backend: Any = None,
    broker: Any = None,
    **kwargs: Any,
) -> Celery:
    """Make an app for tests: `config` over `DEFAULT_TEST_CONFIG`."""
    settings = {**deepcopy(DEFAULT_TEST_CONFIG), **(config or {})}
    if broker is not None:
        settings.pop("broker_url", None)
    if backend is not None:
        settings.pop("result_backend", None)
    app = Celery(
        name or "celery.tests",
        set_as_current=set_as_current,
        log=None if enable_logging else log,
        broker=broker,
        backend=backend,
        **kwargs,
    )
    app.add_defaults(settings)
    return app


#: keeps pytest from taking the function for a test
TestApp.__test__ = False  # type: ignore[attr-defined]


@contextmanager
def set_trap(app: Any) -> Iterator[None]:
    """Make any use of the current or the default app an error."""
    trap = Trap()
    before = _state._tls
    _state.set_default_app(trap)

    class NotThreadLocal:
        current_app = trap

    _state._tls = NotThreadLocal()  # type: ignore[assignment]
    try:
        yield
    finally:
        _state._tls = before


@contextmanager
def setup_default_app(app: Any, use_trap: bool = False) -> Iterator[None]:
    """Put the current app, the default app and what apps were announced back afterwards."""
    current = _state.get_current_app()
    default = _state.default_app
    finalizers = dict(_state._on_app_finalizers)
    apps: weakref.WeakSet[Any] = weakref.WeakSet(_state._apps)
    try:
        if use_trap:
            with set_trap(app):
                yield
        else:
            yield
    finally:
        _state.set_default_app(default)
        _state._tls.current_app = current
        if app is not current:
            app.close()
        _state._on_app_finalizers = finalizers
        _state._apps = apps
