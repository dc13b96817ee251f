"""What a run tells the worker's main process about its end: the event to send, if events are sent.

A note is the event's type and its fields, of plain values.
Source: Celery 5.7, ``celery.worker.request.Request`` (types, fields).
"""

from __future__ import annotations

from typing import Any

from kombu.utils import encoding

from pgcelery.compat import states
from pgcelery.compat.einfo import ExceptionWithTraceback

__all__ = ("Note", "failed", "of", "rejected", "retried", "revoked")

# Kombu does not say its types.
safe_repr: Any = encoding.safe_repr

Note = tuple[str, dict[str, Any]]


def of(ret: Any) -> Note | None:
    """Give the note of what a tracer returned; None if Celery sends no event of it."""
    info = ret.info
    if info is None:
        return "task-succeeded", {"result": ret.retstr, "runtime": ret.runtime}
    if info.state == states.FAILURE:
        return failed(ret.retval.exception, ret.retval.traceback)
    if info.state == states.RETRY:
        return retried(info.retval.exc, ret.retval.traceback)
    return None


def failed(exc: Any, traceback: Any) -> Note:
    """Give the note of a failure."""
    exc = exc.exc if isinstance(exc, ExceptionWithTraceback) else exc
    return "task-failed", _error(exc, traceback)


def retried(exc: Any, traceback: Any) -> Note:
    """Give the note of a retry, whose cause is `exc`."""
    return "task-retried", _error(exc, traceback)


def _error(exc: Any, traceback: Any) -> dict[str, Any]:
    # Plain strings: another process cannot be sent the subclasses.
    return {"exception": str(safe_repr(exc)), "traceback": str(traceback)}


def rejected(requeue: Any) -> Note:
    """Give the note of a task that was rejected."""
    return "task-rejected", {"requeue": bool(requeue)}


def revoked(*, terminated: bool, signum: int | None, expired: bool) -> Note:
    """Give the note of a task that was revoked."""
    return "task-revoked", {"terminated": terminated, "signum": signum, "expired": expired}
