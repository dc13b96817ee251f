"""How the end of a run is logged: lines, levels, and the data that records carry.

Source: Celery 5.7, `celery.app.trace`, which also has these names.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any, NamedTuple

from pgcelery.compat.exceptions import Ignore, Reject
from pgcelery.compat.utils.text import one_line

logger = logging.getLogger("celery.app.trace")

#: Fields that stand in the lines below.
_SHOWN = ("id", "name", "exc", "return_value")

LOG_RECEIVED = "Task %(name)s[%(id)s] received"
LOG_SUCCESS = "Task %(name)s[%(id)s] succeeded in %(runtime)ss: %(return_value)s"
LOG_FAILURE = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_INTERNAL_ERROR = "Task %(name)s[%(id)s] %(description)s: %(exc)s"
LOG_IGNORED = "Task %(name)s[%(id)s] %(description)s"
LOG_REJECTED = "Task %(name)s[%(id)s] %(exc)s"
LOG_RETRY = "Task %(name)s[%(id)s] retry: %(exc)s"


class log_policy_t(NamedTuple):
    """How an end is logged."""

    format: str
    description: str
    severity: int
    traceback: int
    mail: int


log_policy_reject = log_policy_t(LOG_REJECTED, "rejected", logging.WARNING, 1, 1)
log_policy_ignore = log_policy_t(LOG_IGNORED, "ignored", logging.INFO, 0, 0)
log_policy_internal = log_policy_t(LOG_INTERNAL_ERROR, "INTERNAL ERROR", logging.CRITICAL, 1, 1)
log_policy_expected = log_policy_t(LOG_FAILURE, "raised expected", logging.INFO, 0, 0)
log_policy_unexpected = log_policy_t(LOG_FAILURE, "raised unexpected", logging.ERROR, 1, 1)


def info(fmt: str, context: dict[str, Any]) -> None:
    """Log at INFO; the fields are also in ``record.data``."""
    context = on_one_line(context)
    logger.info(fmt, context, extra={"data": context})


def on_one_line(context: dict[str, Any]) -> dict[str, Any]:
    """Give the fields with what came from outside escaped, where it has control characters."""
    shown = {key: one_line(context[key]) for key in _SHOWN if key in context}
    return {**context, **shown}


def get_log_policy(task: Any, einfo: Any, exc: BaseException) -> log_policy_t:
    """Choose how an end by exception is logged."""
    if isinstance(exc, Reject):
        return log_policy_reject
    if isinstance(exc, Ignore):
        return log_policy_ignore
    if einfo.internal:
        return log_policy_internal
    if task.throws and isinstance(exc, task.throws):
        return log_policy_expected
    return log_policy_unexpected


def get_task_name(request: Any, default: str) -> str:
    """Give the name to log: the call's shadow, else the task's."""
    return one_line(getattr(request, "shadow", None) or default)


def traceback_clear(exc: BaseException | None = None) -> None:
    """Drop the local variables of the frames in a traceback, which may be large."""
    tb = sys.exc_info()[2] if exc is None else exc.__traceback__
    while tb is not None:
        with suppress(RuntimeError):  # of a frame that still runs
            tb.tb_frame.clear()
        tb = tb.tb_next
