"""Running a call here and now, as a worker would.

Source: Celery 5.7, `Task.apply` and ``task_always_eager``.
"""

from __future__ import annotations

from typing import Any

from kombu import serialization
from kombu.utils.functional import maybe_list

import pgcelery.compat.app.trace as trace
from pgcelery.compat import states
from pgcelery.compat._state import _task_stack
from pgcelery.compat.app import transactional
from pgcelery.compat.einfo import ExceptionInfo, ExceptionWithTraceback
from pgcelery.compat.exceptions import Retry
from pgcelery.compat.result import EagerResult, denied_join_result
from pgcelery.compat.utils.ids import uuid
from pgcelery.compat.utils.nodenames import gethostname

__all__ = ("apply", "apply_always")


def apply(
    task: Any,
    args: Any = None,
    kwargs: Any = None,
    link: Any = None,
    link_error: Any = None,
    task_id: str | None = None,
    retries: int | None = None,
    throw: bool | None = None,
    logfile: str | None = None,
    loglevel: int | None = None,
    headers: dict[str, Any] | None = None,
    **options: Any,
) -> Any:
    """Run `task` in this thread; gives an `EagerResult`."""
    app = task._get_app()
    # The instance that is registered, also when called on a class.
    task = app._tasks[task.name]
    task_id = task_id or uuid()
    retries = retries or 0
    throw = app.conf.task_eager_propagates if throw is None else throw
    request = {
        "id": task_id,
        "task": task.name,
        **_ancestors(task_id),
        "retries": retries,
        "is_eager": True,
        "logfile": logfile,
        "loglevel": loglevel or 0,
        "hostname": gethostname(),
        "callbacks": maybe_list(link),
        "errbacks": maybe_list(link_error),
        "headers": headers,
        "timelimit": _time_limits(task),
        "ignore_result": options.get("ignore_result", task.ignore_result),
        "delivery_info": {
            "is_eager": True,
            "exchange": options.get("exchange"),
            "routing_key": options.get("routing_key"),
            "priority": options.get("priority"),
        },
    }
    if "stamped_headers" in options:
        names = maybe_list(options["stamped_headers"])
        request["stamped_headers"] = names
        request["stamps"] = {name: maybe_list(options.get(name, [])) for name in names}
    tracer = trace.build_tracer(task.name, task, eager=True, propagate=throw, app=app)
    ret = transactional.run_eagerly(
        task, lambda: tracer(task_id, args or (), kwargs or {}, request)
    )
    retval, traceback = _unwrap(ret.retval)
    if isinstance(retval, Retry) and retval.sig is not None:
        return retval.sig.apply(retries=retries + 1)
    state = states.SUCCESS if ret.info is None else ret.info.state
    return EagerResult(task_id, retval, state, traceback=traceback, name=task.name)


def _ancestors(task_id: str) -> dict[str, str | None]:
    parent = _task_stack.top
    if parent and parent.request:
        return {"parent_id": parent.request.id, "root_id": parent.request.root_id or task_id}
    return {"parent_id": None, "root_id": task_id}


def _time_limits(task: Any) -> list[Any] | None:
    if task.time_limit is None and task.soft_time_limit is None:
        return None
    return [task.time_limit, task.soft_time_limit]


def _unwrap(retval: Any) -> tuple[Any, str | None]:
    """What the task returned or raised, and the traceback."""
    if not isinstance(retval, ExceptionInfo):
        return retval, None
    raised = retval.exception
    if isinstance(raised, ExceptionWithTraceback):
        raised = raised.exc
    return raised, retval.traceback


def apply_always(
    task: Any, args: Any, kwargs: Any, task_id: str | None, producer: Any, **options: Any
) -> Any:
    """Run a call because of ``task_always_eager``; its arguments are serialized and back."""
    serializer = (
        options.get("serializer")
        or getattr(producer, "serializer", None)
        or task._get_app().conf.task_serializer
    )
    content_type, encoding, data = serialization.dumps((args, kwargs), serializer)
    args, kwargs = serialization.loads(data, content_type, encoding, accept=[content_type])
    with denied_join_result():
        return apply(task, args, kwargs, task_id=task_id or uuid(), **options)
