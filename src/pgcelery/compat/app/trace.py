"""Running one call: hooks, signals, state, log line, in Celery's order.

Source: Celery 5.7, `celery.app.trace`. Everything that runs a task gets its tracer from
`trace.build_tracer`, looked up on this module each time, so that libraries may replace it.

The order is `task_prerun`, the STARTED state, `before_start`, the body, links, the end's state,
`on_success` and `task_success` (or error links, `on_failure` and `task_failure`), `after_return`,
`task_postrun`. Links and state of a worker's job are written with its outcome, right after
`task_postrun`: a hook still finds the state of before, and a link never starts without it. If the
result cannot be encoded the links are dropped, where Celery has sent them by then.
"""

from __future__ import annotations

import logging
import os
import time
from collections import namedtuple
from collections.abc import Callable
from typing import Any
from warnings import warn

from kombu.exceptions import EncodeError, OperationalError
from kombu.utils.encoding import safe_repr

from pgcelery.compat import signals, states
from pgcelery.compat._state import _task_stack
from pgcelery.compat.app import links, transactional
from pgcelery.compat.app import running as runs
from pgcelery.compat.app.envelope import repr_value
from pgcelery.compat.app.execution import record
from pgcelery.compat.app.hooks import TaskHooks
from pgcelery.compat.app.request import Context, get_actual_ignore_result
from pgcelery.compat.app.traceinfo import TraceInfo
from pgcelery.compat.app.tracelog import (
    LOG_FAILURE,
    LOG_IGNORED,
    LOG_INTERNAL_ERROR,
    LOG_RECEIVED,
    LOG_REJECTED,
    LOG_RETRY,
    LOG_SUCCESS,
    get_log_policy,
    get_task_name,
    info,
    log_policy_expected,
    log_policy_ignore,
    log_policy_internal,
    log_policy_reject,
    log_policy_t,
    log_policy_unexpected,
    traceback_clear,
)
from pgcelery.compat.einfo import ExceptionInfo
from pgcelery.compat.exceptions import Ignore, InvalidTaskError, Reject, Retry
from pgcelery.compat.utils.nodenames import gethostname
from pgcelery.compat.utils.serialization import (
    get_pickleable_etype,
    get_pickleable_exception,
)
from pgcelery.compat.utils.text import one_line

__all__ = (
    "LOG_FAILURE",
    "LOG_IGNORED",
    "LOG_INTERNAL_ERROR",
    "LOG_RECEIVED",
    "LOG_REJECTED",
    "LOG_RETRY",
    "LOG_SUCCESS",
    "TraceInfo",
    "build_tracer",
    "get_log_policy",
    "get_task_name",
    "info",
    "log_policy_expected",
    "log_policy_ignore",
    "log_policy_internal",
    "log_policy_reject",
    "log_policy_t",
    "log_policy_unexpected",
    "reset_worker_optimizations",
    "setup_worker_optimizations",
    "task_has_custom",
    "trace_task",
    "traceback_clear",
)

logger = logging.getLogger("celery.app.trace")

STARTED = states.STARTED
SUCCESS = states.SUCCESS
IGNORED = states.IGNORED
REJECTED = states.REJECTED
RETRY = states.RETRY
FAILURE = states.FAILURE
EXCEPTION_STATES = states.EXCEPTION_STATES
#: Ends that `after_return` does not hear of.
IGNORE_STATES = frozenset({IGNORED, RETRY, REJECTED})

trace_ok_t = namedtuple("trace_ok_t", ("retval", "info", "runtime", "retstr"))


def task_has_custom(task: Any, attr: str) -> bool:
    """Whether the task's class, or somebody who patched `Task`, replaced a hook."""
    return getattr(type(task), attr, None) is not getattr(TaskHooks, attr)


class _End:
    """How a run stands: its state, what it returned or raised, what the tracer returns."""

    __slots__ = ("info", "result", "retstr", "retval", "runtime", "state")

    def __init__(self) -> None:
        self.state: str | None = None
        self.retval: Any = None
        self.result: Any = None
        self.info: TraceInfo | None = None
        self.runtime: float | None = None
        self.retstr: str | None = None


class Tracer:
    """Runs calls of one task; made by `build_tracer`, whose arguments it takes."""

    def __init__(
        self,
        name: str,
        task: Any,
        loader: Any,
        hostname: str | None,
        Info: Any,
        eager: bool,
        propagate: bool,
        app: Any,
        monotonic: Callable[[], float],
        ignore_states: frozenset[str],
    ) -> None:
        self.name = name
        self.task = task
        self.app = app
        self.hostname = hostname or gethostname()
        self.info_cls = Info
        self.eager = eager
        self.propagate = propagate
        self.monotonic = monotonic
        self.ignore_states = ignore_states
        loader = loader or app.loader
        self.on_task_init = loader.on_task_init
        self.on_cleanup = loader.on_process_cleanup
        # Only what is overridden is called: a call of the body, and a line of its traceback, saved.
        self.fun = task if task_has_custom(task, "__call__") else task.run
        if task.transactional:
            self.fun = transactional.shielded(self.fun)
        self.before_start = _own_hook(task, "before_start")
        self.on_success = _own_hook(task, "on_success")
        self.after_return = _own_hook(task, "after_return")
        self.inherits_priority = bool(app.conf.task_inherit_parent_priority)

    def __call__(self, uuid: str, args: Any, kwargs: Any, request: Any = None) -> Any:
        """Run one call.

        Args:
            uuid: Its id.
            args: Positional arguments.
            kwargs: Keyword arguments.
            request: Fields of its `Context`.

        Returns:
            ``(retval, info, runtime, retstr)``: what it returned or an `ExceptionInfo`, a
            `TraceInfo` unless it succeeded, seconds, and the result for people.
        """
        started = self.monotonic()
        context = None
        end = _End()
        try:
            if type(kwargs) is not dict and not hasattr(kwargs, "items"):
                raise InvalidTaskError("Task keyword arguments is not a mapping")
            context = Context(request or {}, args=args, kwargs=kwargs, called_directly=False)
            stack = self.task.request_stack
            _task_stack.push(self.task)
            stack.push(context)
            try:
                self._run(uuid, context, end, started)
            finally:
                try:
                    if signals.task_postrun.receivers:
                        self._tell_end(uuid, context, end)
                finally:
                    _task_stack.pop()
                    stack.pop()
                    if not self.eager:
                        self._clean_up()
        except Reject:
            raise
        except Exception as exc:
            _signal_internal_error(self.task, uuid, args, kwargs, request, exc)
            if self.eager:
                raise
            end.result = report_internal_error(self.task, exc)
            if context is not None:
                end.info = self.info_cls(FAILURE, exc)
                end.info.handle_error_state(self.task, context, eager=self.eager)
        return trace_ok_t(end.result, end.info, end.runtime, end.retstr)

    def _run(self, uuid: str, context: Context, end: _End, started: float) -> None:
        args, kwargs = context.args, context.kwargs
        ignored = get_actual_ignore_result(self.task, context)
        self._begin(uuid, context, ignored)
        try:
            if self.before_start is not None:
                self.before_start(uuid, args, kwargs)
            end.retval = end.result = self.fun(*args, **kwargs)
            end.state = SUCCESS
        except (Reject, Ignore) as exc:
            self._put_aside(context, end, exc)
        except Retry as exc:
            self._fail(context, end, exc, RETRY)
        except Exception as exc:
            self._fail(context, end, exc)
        except BaseException as exc:
            # Whatever a body raises in a worker is its own failure: SystemExit as well.
            if self.eager:
                raise
            self._fail(context, end, exc)
        else:
            self._succeed(uuid, context, end, started, ignored)
        if self.after_return is not None and end.state not in self.ignore_states:
            self._hook(context, "after_return", end.state, end.retval, uuid, args, kwargs, None)

    def _begin(self, uuid: str, context: Context, ignored: bool | None) -> None:
        task = self.task
        if signals.task_prerun.receivers:
            signals.task_prerun.send(
                sender=task, task_id=uuid, task=task, args=context.args, kwargs=context.kwargs
            )
        self.on_task_init(uuid, task)
        if not self.eager and not ignored and task.track_started:
            meta = {"pid": os.getpid(), "hostname": self.hostname}
            task.backend.store_result(uuid, meta, STARTED, request=context)

    def _put_aside(self, context: Context, end: _End, exc: Reject | Ignore) -> None:
        rejected = isinstance(exc, Reject)
        end.info = self.info_cls(REJECTED if rejected else IGNORED, exc)
        end.state, end.retval = end.info.state, exc
        end.result = ExceptionInfo(internal=True)
        if rejected:
            end.info.handle_reject(self.task, context)
        else:
            end.info.handle_ignore(self.task, context)
        traceback_clear(exc)

    def _fail(self, context: Context, end: _End, exc: BaseException, state: str = FAILURE) -> None:
        if self.propagate:
            raise exc
        end.info = self.info_cls(state, exc)
        end.result = end.info.handle_error_state(
            self.task, context, eager=self.eager, call_errbacks=state != RETRY
        )
        end.state, end.retval = end.info.state, end.info.retval
        traceback_clear(exc)

    def _succeed(
        self, uuid: str, context: Context, end: _End, started: float, ignored: Any
    ) -> None:
        task, retval = self.task, end.retval
        try:
            if context.callbacks or context.chain_link or context.chain:
                links.call_links(self.app, context, retval, self._priority(context))
            store = not ignored and (not self.eager or bool(task.store_eager_result))
            record(task, context, SUCCESS, retval, store=store)
        except (EncodeError, OperationalError) as exc:
            running = runs.current(uuid)
            if running is not None:
                running.follow_ups.clear()
            self._fail(context, end, exc)
            return
        end.runtime = self.monotonic() - started
        end.retstr = repr_value(retval, task.resultrepr_maxsize)
        if self.on_success is not None:
            self._hook(context, "on_success", retval, uuid, context.args, context.kwargs)
        if signals.task_success.receivers:
            signals.task_success.send(sender=task, result=retval, runtime=end.runtime)
        if logger.isEnabledFor(logging.INFO):
            info(
                LOG_SUCCESS,
                {
                    "id": uuid,
                    "name": get_task_name(context, self.name),
                    "return_value": end.retstr,
                    "runtime": end.runtime,
                    "args": context.get("argsrepr") or safe_repr(context.args),
                    "kwargs": context.get("kwargsrepr") or safe_repr(context.kwargs),
                },
            )

    def _priority(self, context: Context) -> int | None:
        return (context.delivery_info or {}).get("priority") if self.inherits_priority else None

    def _hook(self, context: Context, name: str, *args: Any) -> None:
        """Call a hook that comes too late to change how the run ended."""
        try:
            getattr(self, name)(*args)
        except Reject:
            raise
        except Exception as exc:
            if self.eager:
                raise
            task_name = get_task_name(context, self.name)
            logger.exception(
                "Task %s[%s] %s handler raised: %r", task_name, one_line(context.id), name, exc
            )
            traceback_clear(exc)

    def _tell_end(self, uuid: str, context: Context, end: _End) -> None:
        signals.task_postrun.send(
            sender=self.task,
            task_id=uuid,
            task=self.task,
            args=context.args,
            kwargs=context.kwargs,
            retval=end.retval,
            state=end.state,
        )

    def _clean_up(self) -> None:
        try:
            self.task.backend.process_cleanup()
            self.on_cleanup()
        except Exception as exc:
            logger.error("Process cleanup failed: %r", exc, exc_info=True)


def _own_hook(task: Any, name: str) -> Any:
    return getattr(task, name) if task_has_custom(task, name) else None


def build_tracer(
    name: str,
    task: Any,
    loader: Any = None,
    hostname: str | None = None,
    store_errors: bool = True,
    Info: Any = TraceInfo,
    eager: bool = False,
    propagate: bool = False,
    app: Any = None,
    monotonic: Callable[[], float] = time.monotonic,
    trace_ok_t: Any = trace_ok_t,
    IGNORE_STATES: frozenset[str] = IGNORE_STATES,
) -> Callable[..., Any]:
    """Give the function ``(uuid, args, kwargs, request) -> trace_ok_t`` that runs calls of `task`.

    Args:
        name: Name of the task.
        task: The task.
        loader: Default the app's.
        hostname: Name of the node, for the STARTED state.
        store_errors: Not used, as in Celery.
        Info: Makes the `TraceInfo`.
        eager: Whether it runs in its caller: then nothing is stored unless ``store_eager_result``.
        propagate: Whether what the body raises is raised.
        app: Default the task's.
        monotonic: The clock.
        trace_ok_t: Not used.
        IGNORE_STATES: Ends that `after_return` does not hear of.
    """
    app = app or task.app
    return Tracer(
        name, task, loader, hostname, Info, eager, propagate, app, monotonic, IGNORE_STATES
    )


def trace_task(
    task: Any, uuid: str, args: Any, kwargs: Any, request: Any = None, **opts: Any
) -> Any:
    """Run one call; the task's tracer is made on first use, with `opts`."""
    request = request or {}
    try:
        if task.__trace__ is None:
            task.__trace__ = build_tracer(task.name, task, **opts)
        return task.__trace__(uuid, args, kwargs, request)
    except Reject:
        raise
    except Exception as exc:
        _signal_internal_error(task, uuid, args, kwargs, request, exc)
        return trace_ok_t(report_internal_error(task, exc), TraceInfo(FAILURE, exc), 0.0, None)


def _signal_internal_error(
    task: Any, uuid: str, args: Any, kwargs: Any, request: Any, exc: BaseException
) -> None:
    """Tell the receivers of `task_internal_error` of an exception outside of the body."""
    if not signals.task_internal_error.receivers:
        return
    einfo = ExceptionInfo()
    einfo.exception = get_pickleable_exception(exc)
    einfo.type = get_pickleable_etype(einfo.type)
    signals.task_internal_error.send(
        sender=task,
        task_id=uuid,
        args=args,
        kwargs=kwargs,
        request=request,
        exception=exc,
        traceback=exc.__traceback__,
        einfo=einfo,
    )


def report_internal_error(task: Any, exc: BaseException) -> Any:
    """Warn of an exception outside of the body; gives its `ExceptionInfo`."""
    einfo = ExceptionInfo((type(exc), exc, exc.__traceback__), internal=True)
    warn(
        f"Exception raised outside body: {exc!r}:\n{einfo.traceback}",
        RuntimeWarning,
        stacklevel=2,
    )
    return einfo


def setup_worker_optimizations(app: Any, hostname: str | None = None) -> None:
    """Make `app` the one that threads without an app of their own use, and finalize it."""
    app.set_current()
    app.set_default()
    app.finalize()


def reset_worker_optimizations(app: Any = None) -> None:
    """Do nothing: `setup_worker_optimizations` patches nothing here."""
