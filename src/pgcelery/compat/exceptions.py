"""Celery's exceptions: names, bases and arguments as in Celery, for they are all matched on.

Source: Celery 5.7, `celery.exceptions`. What Celery takes from kombu, billiard and click is taken
from there too, so that an ``except`` clause written against either name still catches.
"""

from __future__ import annotations

import numbers
from types import TracebackType
from typing import Any, NoReturn

from billiard.exceptions import (
    SoftTimeLimitExceeded,
    Terminated,
    TimeLimitExceeded,
    WorkerLostError,
)
from click import ClickException
from kombu.exceptions import OperationalError
from kombu.utils.encoding import safe_repr

from pgcelery.compat.utils.serialization import get_pickleable_exception

__all__ = (
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "CDeprecationWarning",
    "CPendingDeprecationWarning",
    "CeleryCommandException",
    "CeleryError",
    "CeleryWarning",
    "ChordError",
    "DuplicateNodenameWarning",
    "DuplicateTaskNameWarning",
    "FixupWarning",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InvalidTaskError",
    "MaxRetriesExceededError",
    "NotConfigured",
    "NotRegistered",
    "OperationalError",
    "QueueNotFound",
    "Reject",
    "Retry",
    "SecurityError",
    "SecurityWarning",
    "SoftTimeLimitExceeded",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
    "reraise",
)

UNREGISTERED_FMT = "Task of kind {0} never registered, please make sure it's imported."


def reraise(
    tp: type[BaseException], value: BaseException, tb: TracebackType | None = None
) -> NoReturn:
    """Raise `value` again with the traceback `tb`; `tp` is not looked at."""
    if value.__traceback__ is not tb:
        raise value.with_traceback(tb)
    raise value


class CeleryWarning(UserWarning):
    """Base of all Celery warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """`send_task` does not look at ``task_always_eager``."""


class DuplicateNodenameWarning(CeleryWarning):
    """Two workers have the same node name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two callables have the same task name."""


class FixupWarning(CeleryWarning):
    """A fixup found something to complain about."""


class NotConfigured(CeleryWarning):
    """No configuration module was found."""


class SecurityWarning(CeleryWarning):
    """A possible security problem."""


class CeleryError(Exception):
    """Base of all Celery errors."""


class TaskPredicate(CeleryError):
    """Raised by a task to say what shall become of it, rather than that it failed."""


class Retry(TaskPredicate):
    """The task asked to run again.

    Args:
        message: Text that replaces the usual one.
        exc: Why: an exception, or the text of one.
        when: Seconds from now, or a datetime.
        is_eager: Whether the task ran in its caller.
        sig: Signature of the next run.
    """

    message: str | None = None
    exc: BaseException | None = None
    when: Any = None

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: Any = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,
    ) -> None:
        self.message = message
        self.excs: str | None
        if isinstance(exc, str):
            self.exc, self.excs = None, exc
        else:
            self.exc = get_pickleable_exception(exc) if exc is not None else None
            self.excs = safe_repr(exc) if exc else None
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(self, exc, when, **kwargs)

    def humanize(self) -> str:
        """Say when: ``in 5s`` or ``at <time>``."""
        if isinstance(self.when, numbers.Number):
            return f"in {self.when}s"
        return f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        if self.excs:
            return f"Retry {self.humanize()}: {self.excs}"
        return f"Retry {self.humanize()}"

    def __reduce__(self) -> tuple[Any, ...]:
        return self.__class__, (self.message, self.exc, self.when)


RetryTaskError = Retry


class Ignore(TaskPredicate):
    """The task asked that nothing be recorded of this run."""


class Reject(TaskPredicate):
    """The task asked to be discarded, or with `requeue` to be given to a worker again."""

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class ImproperlyConfigured(CeleryError):
    """The configuration cannot work."""


class SecurityError(CeleryError):
    """Refused for the sake of security."""


class TaskError(CeleryError):
    """Base of the errors about tasks."""


class QueueNotFound(KeyError, TaskError):
    """The task was routed to a queue that ``task_queues`` does not have."""


class IncompleteStream(TaskError):
    """The end of the results came before all of them."""


class NotRegistered(KeyError, TaskError):
    """No task of this name."""

    def __repr__(self) -> str:
        return UNREGISTERED_FMT.format(self)


class AlreadyRegistered(TaskError):
    """There is a task of this name already."""


class TimeoutError(TaskError):
    """Waited long enough."""


class MaxRetriesExceededError(TaskError):
    """A task asked for more retries than it may have."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", [])
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args, **kwargs)


class TaskRevokedError(TaskError):
    """The task was revoked, so there will be no result."""


class InvalidTaskError(TaskError):
    """A message that is no task."""


class ChordError(TaskError):
    """A member of a chord's header did not succeed."""

    #: id of the call that failed, where it is known
    dependency: str | None = None


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Will be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Is deprecated."""


class WorkerTerminate(SystemExit):
    """The worker shall stop at once."""


SystemTerminate = WorkerTerminate


class WorkerShutdown(SystemExit):
    """The worker shall finish what it runs and stop."""


class BackendError(Exception):
    """Results could not be read or written."""


class BackendGetMetaError(BackendError):
    """A result could not be read."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.get("task_id", "")

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """A result could not be written."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = kwargs.get("state", "")
        self.task_id = kwargs.get("task_id", "")

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


class CeleryCommandException(ClickException):
    """A command failed; carries the exit code."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message=message)
        self.exit_code = exit_code  # type: ignore[misc]  # click declares it on the class
