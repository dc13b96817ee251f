"""Tasks that can be asked to stop, and look whether they were.

Source: Celery 5.7, ``celery.contrib.abortable``: the caller writes the state ABORTED over that of
the running task; the task asks `AbortableTask.is_aborted` now and then and returns.
"""

from __future__ import annotations

from typing import Any

from pgcelery.compat.app.task import Task
from pgcelery.compat.result import AsyncResult

__all__ = ("AbortableAsyncResult", "AbortableTask")

ABORTED = "ABORTED"


class AbortableAsyncResult(AsyncResult[Any]):
    """Result of an abortable task."""

    def is_aborted(self) -> bool:
        """Whether the task was asked to stop."""
        return bool(self.state == ABORTED)

    def abort(self) -> Any:
        """Ask the task to stop; without effect once it has ended."""
        return self.backend.store_result(self.id, result=None, state=ABORTED, traceback=None)


class AbortableTask(Task[..., Any]):
    """Base of tasks that ask `is_aborted` while they run."""

    abstract = True

    def AsyncResult(self, task_id: str, **kwargs: Any) -> AbortableAsyncResult:
        """Result of a call of this task."""
        return AbortableAsyncResult(task_id, backend=self.backend, app=self.app)

    def is_aborted(self, **kwargs: Any) -> bool:
        """Whether the call that runs (or ``task_id``) was asked to stop; one query."""
        task_id = kwargs.get("task_id", self.request.id)
        result = self.AsyncResult(task_id)
        return isinstance(result, AbortableAsyncResult) and result.is_aborted()
