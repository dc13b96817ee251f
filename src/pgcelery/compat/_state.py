"""The current app, the current task, and who wants to hear of new apps. Private to the package.

Source: Celery 5.7, ``celery._state``, whose names libraries use (`get_current_task`,
`_task_stack`, `connect_on_app_finalize`).
"""

from __future__ import annotations

import importlib
import threading
import weakref
from collections.abc import Callable
from typing import Any

from pgcelery.compat.local import Proxy
from pgcelery.compat.utils.threads import LocalStack

__all__ = (
    "app_or_default",
    "connect_on_app_finalize",
    "current_app",
    "current_task",
    "get_current_app",
    "get_current_task",
    "get_current_worker_task",
    "set_default_app",
)

#: The app for threads that have none of their own; made on first need.
default_app: Any = None

#: Makes that app; `app.base` registers itself here, so that nothing below needs to import it.
_default_app_factory: Callable[[], Any] | None = None

_default_app_lock = threading.RLock()
_apps: weakref.WeakSet[Any] = weakref.WeakSet()
_on_app_finalizers: dict[Callable[[Any], Any], None] = {}
_task_join_will_block = False


class _CurrentApp(threading.local):
    current_app: Any = None


_tls = _CurrentApp()
_task_stack: LocalStack = LocalStack()


def push_current_task(task: Any) -> None:
    """Make `task` the current one of this thread until `pop_current_task`."""
    _task_stack.push(task)


def pop_current_task() -> Any:
    """Take the current task of this thread from the stack and give it; None if there is none."""
    return _task_stack.pop()


def connect_on_app_finalize(callback: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Call `callback(app)` for each app that is finalized from now on."""
    _on_app_finalizers[callback] = None
    return callback


def _announce_app_finalized(app: Any) -> None:
    for callback in list(_on_app_finalizers):
        callback(app)


def _set_task_join_will_block(blocks: bool) -> None:
    global _task_join_will_block
    _task_join_will_block = blocks


def task_join_will_block() -> bool:
    """Whether waiting for a result here may hold up the worker that should make it."""
    return _task_join_will_block


def set_default_app(app: Any) -> None:
    """Set the app of threads that have none of their own."""
    global default_app
    default_app = app


def set_default_app_factory(factory: Callable[[], Any]) -> None:
    """Set how the default app is made when it is first needed."""
    global _default_app_factory
    _default_app_factory = factory


def get_current_app() -> Any:
    """Give this thread's app, or the default one."""
    return _tls.current_app or _get_default_app()


_get_current_app = get_current_app


def _get_default_app() -> Any:
    if default_app is None:
        with _default_app_lock:
            if default_app is None:
                if _default_app_factory is None:
                    importlib.import_module("pgcelery.compat.app.base")
                assert _default_app_factory is not None
                set_default_app(_default_app_factory())
    return default_app


def _set_current_app(app: Any) -> None:
    _tls.current_app = app


def get_current_task() -> Any:
    """Give the task that runs in this thread, or None."""
    return _task_stack.top


def get_current_worker_task() -> Any:
    """Give the task that a worker runs in this thread, or None.

    Tasks that were called as functions or eagerly inside it do not count.
    """
    for task in reversed(_task_stack.stack):
        if not task.request.called_directly:
            return task
    return None


current_app: Any = Proxy(get_current_app)
current_task: Any = Proxy(get_current_task)


def _register_app(app: Any) -> None:
    _apps.add(app)


def _deregister_app(app: Any) -> None:
    _apps.discard(app)


def _get_active_apps() -> weakref.WeakSet[Any]:
    return _apps


def app_or_default(app: Any = None) -> Any:
    """Give `app`, or the current app if it is None."""
    return get_current_app() if app is None else app


def enable_trace() -> None:
    """Do nothing; Celery's debugging aid for app leaks has no use here."""


def disable_trace() -> None:
    """Do nothing, as `enable_trace`."""
