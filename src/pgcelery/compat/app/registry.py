"""The tasks of an app, by name.

Source: Celery 5.7, ``celery.app.registry``.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from pgcelery.compat._state import get_current_app
from pgcelery.compat.app.autoretry import add_autoretry_behaviour
from pgcelery.compat.exceptions import InvalidTaskError, NotRegistered

__all__ = ("TaskRegistry",)


class TaskRegistry(dict[str, Any]):
    """Tasks by name; a name that is missing raises `NotRegistered`."""

    NotRegistered = NotRegistered

    def __missing__(self, key: str) -> Any:
        raise self.NotRegistered(key)

    def register(self, task: Any) -> None:
        """Add a task, or an instance of a class of task.

        Raises:
            InvalidTaskError: It has no name.
        """
        if task.name is None:
            raise InvalidTaskError(
                f"Task class {type(task).__name__!r} must specify .name attribute"
            )
        task = task() if inspect.isclass(task) else task
        add_autoretry_behaviour(task)
        self[task.name] = task

    def unregister(self, name: Any) -> None:
        """Remove a task, given it or its name.

        Raises:
            NotRegistered: It is not there.
        """
        try:
            self.pop(getattr(name, "name", name))
        except KeyError:
            raise self.NotRegistered(name) from None

    def filter_types(self, type: str) -> dict[str, Any]:
        """Give the tasks whose ``type`` is this."""
        return {
            name: task for name, task in self.items() if getattr(task, "type", "regular") == type
        }

    def regular(self) -> dict[str, Any]:
        """Give the ordinary tasks."""
        return self.filter_types("regular")

    def periodic(self) -> dict[str, Any]:
        """Give the tasks of Celery 3's periodic kind."""
        return self.filter_types("periodic")


def _unpickle_task(name: str) -> Any:
    return get_current_app().tasks[name]


def _unpickle_task_v2(name: str, module: str | None = None) -> Any:
    if module:
        import_module(module)
    return get_current_app().tasks[name]
