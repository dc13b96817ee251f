"""What every task has before it is anything else: a body, hooks around it, a stack of requests.

Source: Celery 5.7, `celery.app.task`. Kept apart from `Task` so that the tracer, without importing
that, can tell a hook that a task overrides from the one that does nothing.
"""

from __future__ import annotations

from typing import Any

from pgcelery.compat._state import _task_stack
from pgcelery.compat.app.request import Context

__all__ = ("TaskHooks",)


class TaskHooks:
    """The overridable side of a task."""

    #: Requests of the calls that run now in this thread; the last one is `request`.
    request_stack: Any = None

    _default_request: Context | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task here and now, as a function."""
        stack = self.request_stack
        request = stack.top
        # A `__call__` of the application's own was run by the tracer and calls this one: the
        # request is in place already.
        if (
            request is not None
            and len(stack) == 1
            and not request._protected
            and not request.called_directly
        ):
            request._protected = 1
            return self.run(*args, **kwargs)
        _task_stack.push(self)
        self.push_request(args=args, kwargs=kwargs)
        try:
            return self.run(*args, **kwargs)
        finally:
            self.pop_request()
            _task_stack.pop()

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The body of the task."""
        raise NotImplementedError("Tasks must define the run method.")

    def push_request(self, *args: Any, **kwargs: Any) -> None:
        """Make a copy of the current request, with changes, the current one."""
        self.request_stack.push(Context(*args, **{**vars(self.request), **kwargs}))

    def pop_request(self) -> None:
        """Undo `push_request`."""
        self.request_stack.pop()

    def _get_request(self) -> Context:
        request: Context | None = self.request_stack.top
        if request is None:
            if self._default_request is None:
                self._default_request = Context()
            return self._default_request
        return request

    request = property(_get_request, doc="The request of the call that runs, or an empty one.")

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Hook: the body is about to run. What it raises is the task's failure."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Hook: the body returned `retval`. What it raises is logged."""

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Hook: the task will run again because of `exc`."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Hook: the task failed with `exc`."""

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Hook: the task ended in `status`; not called for a retry. What it raises is logged."""

    def shadow_name(self, args: Any, kwargs: Any, options: dict[str, Any]) -> str | None:
        """Hook: another name for this call in logs and monitors."""
        return None
