"""TraceInfo: what a run that did not end well brings about.

Source: Celery 5.7, `celery.app.trace.TraceInfo`.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.utils.encoding import safe_repr, safe_str

from pgcelery.compat import signals
from pgcelery.compat.app import links
from pgcelery.compat.app.execution import record
from pgcelery.compat.app.request import get_actual_ignore_result
from pgcelery.compat.app.tracelog import LOG_RETRY, get_log_policy, get_task_name, info, on_one_line
from pgcelery.compat.einfo import ExceptionInfo, ExceptionWithTraceback, describe
from pgcelery.compat.states import FAILURE, RETRY
from pgcelery.compat.utils.serialization import (
    get_pickleable_etype,
    get_pickleable_exception,
    get_pickled_exception,
)

__all__ = ("TraceInfo",)

logger = logging.getLogger("celery.app.trace")


class TraceInfo:
    """How a run ended when it did not end well."""

    __slots__ = ("retval", "state")

    def __init__(self, state: str, retval: Any = None) -> None:
        self.state = state
        self.retval = retval

    def handle_error_state(
        self, task: Any, req: Any, eager: bool = False, call_errbacks: bool = True
    ) -> Any:
        """Do what a failure or a retry brings; gives the `ExceptionInfo`."""
        if get_actual_ignore_result(task, req):
            store = bool(task.store_errors_even_if_ignored)
        else:
            store = not eager or bool(task.store_eager_result)
        handle = self.handle_retry if self.state == RETRY else self.handle_failure
        return handle(task, req, store_errors=store, call_errbacks=call_errbacks)

    def handle_reject(self, task: Any, req: Any, **kwargs: Any) -> None:
        """Log a `Reject`."""
        self._log_error(task, req, ExceptionInfo())

    def handle_ignore(self, task: Any, req: Any, **kwargs: Any) -> None:
        """Log an `Ignore`."""
        self._log_error(task, req, ExceptionInfo())

    def handle_retry(self, task: Any, req: Any, store_errors: bool = True, **kwargs: Any) -> Any:
        """Store, tell and log a retry; its cause is what is stored."""
        reason = self.retval
        einfo = describe(reason)
        record(task, req, RETRY, reason.exc, einfo.traceback, store=store_errors)
        task.on_retry(reason.exc, req.id, req.args, req.kwargs, einfo)
        signals.task_retry.send(sender=task, request=req, reason=reason, einfo=einfo)
        name = get_task_name(req, task.name)
        info(LOG_RETRY, {"id": req.id, "name": name, "exc": str(reason)})
        return einfo

    def handle_failure(
        self, task: Any, req: Any, store_errors: bool = True, call_errbacks: bool = True
    ) -> Any:
        """Store, tell and log a failure, and call the error links."""
        raised = self.retval
        exc = get_pickleable_exception(raised)
        if exc.__traceback__ is None:
            exc.__traceback__ = raised.__traceback__
        einfo = ExceptionInfo((get_pickleable_etype(type(raised)), exc, exc.__traceback__))
        record(task, req, FAILURE, exc, einfo.traceback, store=store_errors)
        if store_errors and not req.chain_link and req.chain and not req.is_eager:
            task.backend._fail_chain(req.chain, exc, einfo.traceback)
        if call_errbacks:
            links.call_errbacks(task.backend, req, exc, einfo.traceback)
        task.on_failure(exc, req.id, req.args, req.kwargs, einfo)
        signals.task_failure.send(
            sender=task,
            task_id=req.id,
            exception=exc,
            args=req.args,
            kwargs=req.kwargs,
            traceback=exc.__traceback__,
            einfo=einfo,
        )
        self._log_error(task, req, einfo)
        return einfo

    def _log_error(self, task: Any, req: Any, einfo: Any) -> None:
        exc = einfo.exception
        exc = exc.exc if isinstance(exc, ExceptionWithTraceback) else exc
        exc = einfo.exception = get_pickled_exception(exc)
        policy = get_log_policy(task, einfo, exc)
        context = {
            "hostname": req.hostname,
            "id": req.id,
            "name": get_task_name(req, task.name),
            "exc": safe_repr(exc),
            "traceback": safe_str(einfo.traceback),
            "args": req.get("argsrepr") or safe_repr(req.args),
            "kwargs": req.get("kwargsrepr") or safe_repr(req.kwargs),
            "description": policy.description,
            "internal": einfo.internal,
        }
        logger.log(
            policy.severity,
            policy.format,
            on_one_line(context),
            exc_info=einfo.exc_info if policy.traceback else None,
            extra={"data": context},
        )
