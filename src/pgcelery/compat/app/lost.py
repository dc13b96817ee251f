"""Ends that no body came to: lost processes, time limits, revocation, failed parents.

Source: Celery 5.7, `celery.worker.request.Request`: on_failure, on_timeout, _announce_revoked.

Promise P6 of docs/guarantees.md.
"""

from __future__ import annotations

import logging
from typing import Any

from pgcelery.compat import signals, states
from pgcelery.compat.app import notes, sending
from pgcelery.compat.app import running as runs
from pgcelery.compat.app.delivery import Delivery
from pgcelery.compat.app.envelope import repr_args
from pgcelery.compat.app.execution import encode_failure, redelivery
from pgcelery.compat.app.links import call_errbacks
from pgcelery.compat.app.running import Running
from pgcelery.compat.app.trace import get_task_name, task_has_custom
from pgcelery.compat.app.tracelog import LOG_RETRY, on_one_line
from pgcelery.compat.einfo import describe
from pgcelery.compat.exceptions import (
    ChordError,
    Ignore,
    Retry,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from pgcelery.compat.utils.text import one_line
from pgcelery.engine import DatabaseUnavailable, Job, Lost, Outcome, State, StoredResult

__all__ = ("REVOKED", "failure", "outcome", "soft_limit_passed", "unless_parents_succeeded")

logger = logging.getLogger("celery.worker.request")

#: How a task that ends without running is revoked: reason, and whether its process was killed.
REVOKED = {
    "cancelled": ("revoked", False),
    "expired": ("expired", False),
    "no_slot": ("no slot of its limit was free", False),
    "replaced": ("replaced by a newer one", False),
    "terminated": ("terminated", True),
}


def outcome(delivery: Delivery, why: Lost) -> Outcome:
    """End a run for a reason that the engine gives."""
    if why.kind in REVOKED:
        return _revoke(delivery, why)
    task, job = delivery.task, delivery.job
    late = bool(task is not None and task.acks_late)
    if why.kind == "time_limit":
        limit = _whole(why.limit_s)
        name = get_task_name(delivery.context, delivery.name)
        logger.error("Hard time limit (%ss) exceeded for %s[%s]", limit, name, one_line(job.id))
        if late and not task.acks_on_timeout and job.delivery < sending.MAX_DELIVERIES:
            return redelivery(job, counted=True)
        return failure(delivery, TimeLimitExceeded(limit))
    if why.kind == "shutdown" and late:
        return redelivery(job, counted=False)
    exc = WorkerLostError(f"Worker exited prematurely: {_story(delivery, why)}.")
    # "worker_lost" comes when the deliveries are used up; the others are of this one run.
    if task is not None and why.kind != "worker_lost":
        again = _try_again(delivery, exc)
        if again is not None:
            return again
    logger.error("Task handler raised error: %r", exc)
    return failure(delivery, exc, hooks=False)


def _story(delivery: Delivery, why: Lost) -> str:
    """Say how a process was lost, whose it was, and how often this happened to the task."""
    detail, times = why.detail or "unknown", delivery.job.delivery
    if why.pid is not None and why.kind != "worker_lost":  # which says who it was itself
        detail += f" in pid {why.pid} of {delivery.handler.hostname}"
    return f"{detail}; it was delivered {times} times" if times > 1 else detail


def soft_limit_passed(delivery: Delivery, limit_s: float) -> None:
    """Log that a run is told to come to an end."""
    name = get_task_name(delivery.context, delivery.name)
    job_id = one_line(delivery.job.id)
    logger.warning("Soft time limit (%ss) exceeded for %s[%s]", _whole(limit_s), name, job_id)


def _whole(limit_s: float | None) -> float | None:
    """A limit as it was set: nearly always a whole number."""
    return int(limit_s) if limit_s is not None and limit_s == int(limit_s) else limit_s


def _try_again(delivery: Delivery, exc: WorkerLostError) -> Outcome | None:
    """Run a task once more whose process was lost, if it says so."""
    task, job = delivery.task, delivery.job
    if task.retry_on_worker_lost:
        retries = delivery.context.retries
        if task.max_retries is not None and retries >= task.max_retries:
            return None
        try:
            return _retry(delivery, exc)
        except Exception:
            logger.exception(
                "Failed to retry task %r[%r] after worker was lost", delivery.name, job.id
            )
    if task.acks_late and task.reject_on_worker_lost and job.delivery < sending.MAX_DELIVERIES:
        return redelivery(job, counted=True)
    return None


def _retry(delivery: Delivery, exc: WorkerLostError) -> Outcome:
    task, context, job = delivery.task, delivery.context, delivery.job
    delay = task.default_retry_delay
    running = Running(str(context.id))
    token = runs.enter(running)
    task.request_stack.push(context)
    try:
        task.signature_from_request(
            context, countdown=delay, retries=context.retries + 1
        ).apply_async(add_to_parent=False)
        reason = Retry(exc=exc, when=delay)
        einfo = describe(exc)
        task.on_retry(exc, context.id, context.args, context.kwargs, einfo)
        signals.task_retry.send(sender=task, request=context, reason=reason, einfo=einfo)
    finally:
        task.request_stack.pop()
        runs.leave(token)
    again = running.again
    assert again is not None, "apply_async did not send the call that it was told to repeat"
    data = {"id": job.id, "name": get_task_name(context, task.name), "exc": str(reason)}
    logger.info(LOG_RETRY, on_one_line(data), extra={"data": data})
    meta = None
    if delivery.stores():
        meta = encode_failure(task.backend, context, states.RETRY, exc, einfo.traceback)
    return Outcome(
        job.id,
        job.token,
        State.RETRYABLE,
        result=meta,
        payload=again.payload,
        delay_s=again.delay_s,
        note=notes.retried(exc, einfo.traceback),
    )


def _revoke(delivery: Delivery, why: Lost) -> Outcome:
    reason, terminated = REVOKED[why.kind]
    job, context = delivery.job, delivery.context
    if not terminated:
        name = get_task_name(context, delivery.name)
        logger.info("Discarding revoked task: %s[%s]", name, one_line(job.id))
    meta = ttl_s = None
    if delivery.stores():
        exc = TaskRevokedError(reason)
        meta = _encode(delivery, states.REVOKED, exc, None)
        ttl_s = _ttl_s(delivery, states.REVOKED)
    if signals.task_revoked.receivers:
        signals.task_revoked.send(
            sender=delivery.task,
            request=_worker_request(delivery),
            terminated=terminated,
            signum=why.signum,
            expired=why.kind == "expired",
        )
    note = notes.revoked(terminated=terminated, signum=why.signum, expired=why.kind == "expired")
    return Outcome(job.id, job.token, State.CANCELLED, result=meta, ttl_s=ttl_s, note=note)


def _worker_request(delivery: Delivery) -> Any:
    """What receivers know as a worker's request; here it is the task's own."""
    names = {"name": delivery.name, "task_name": delivery.name, "task_id": delivery.context.id}
    delivery.context.update(names)
    return delivery.context


def failure(
    delivery: Delivery,
    exc: BaseException,
    *,
    hooks: bool = True,
    signal: bool = True,
    errbacks: bool = True,
    stored: bool = False,
    chord_end: list[str | None] | None = None,
) -> Outcome:
    """End a job as FAILURE; never raises.

    Args:
        delivery: The job.
        exc: Why.
        hooks: Whether `on_failure` and `after_return` of the task are called.
        signal: Whether ``task_failure`` is sent.
        errbacks: Whether error links are called.
        stored: Whether the failure is, even if the result is ignored.
        chord_end: Who is to call the error links instead, of those that fail because of it, and
            which header member failed.
    """
    job = delivery.job
    running = Running(str(delivery.request["id"]))
    token = runs.enter(running)
    meta = ttl_s = note = None
    try:
        raised = exc.__traceback__ is not None
        einfo = describe(exc)
        note = notes.failed(exc, einfo.traceback)
        if stored or delivery.stores() or delivery.context.chain_link:
            shown = einfo.traceback if raised else None
            hidden = not (stored or delivery.stores())
            meta = _encode(delivery, states.FAILURE, exc, shown, hidden=hidden, chord_end=chord_end)
            ttl_s = _ttl_s(delivery, states.FAILURE)
        running.record = (states.FAILURE, meta)
        _spread(delivery, exc, einfo, errbacks=errbacks, stored=meta is not None)
        if delivery.task is not None:
            _tell(delivery, exc, einfo, hooks=hooks, signal=signal)
    except BaseException:
        logger.exception("The failure of task %r could not be told to everyone", job.id)
    finally:
        runs.leave(token)
    return Outcome(
        job.id,
        job.token,
        State.FAILED,
        result=meta,
        ttl_s=ttl_s,
        note=note,
        follow_ups=tuple(running.follow_ups),
    )


def _encode(
    delivery: Delivery,
    state: str,
    exc: BaseException,
    traceback: str | None,
    **options: Any,
) -> bytes | None:
    backend = delivery.backend
    if hasattr(backend, "encode_meta"):
        return encode_failure(backend, delivery.context, state, exc, traceback, **options)
    backend.store_result(delivery.context.id, exc, state, traceback, request=delivery.context)
    return None


def _ttl_s(delivery: Delivery, state: str) -> float | None:
    found = getattr(delivery.backend, "ttl_s", None)
    ttl: float | None = found(state) if found else None
    return ttl


def _spread(
    delivery: Delivery, exc: BaseException, einfo: Any, *, errbacks: bool, stored: bool
) -> None:
    """Let the rest of the chain fail, and call the error links."""
    context = delivery.context
    backend = delivery.backend
    if stored and not context.chain_link and context.chain:
        backend._fail_chain(context.chain, exc, einfo.traceback)
    if errbacks:
        call_errbacks(backend, context, exc, einfo.traceback)


def _tell(delivery: Delivery, exc: BaseException, einfo: Any, *, hooks: bool, signal: bool) -> None:
    task, context = delivery.task, delivery.context
    task.request_stack.push(context)
    try:
        if hooks:
            task.on_failure(exc, context.id, context.args, context.kwargs, einfo)
            if task_has_custom(task, "after_return"):
                task.after_return(
                    states.FAILURE, exc, context.id, context.args, context.kwargs, None
                )
        if signal:
            signals.task_failure.send(
                sender=task,
                task_id=context.id,
                exception=exc,
                args=context.args,
                kwargs=context.kwargs,
                traceback=exc.__traceback__,
                einfo=einfo,
            )
    finally:
        task.request_stack.pop()


def fed(job: Job) -> StoredResult | None:
    """Give the result that came along with a job, if one did."""
    if job.fed is None:
        return None
    task_id, state, result = job.fed
    return StoredResult(task_id, State(state), result, None)


def unless_parents_succeeded(delivery: Delivery) -> Outcome | None:
    """Fill in the arguments that the job waited for; an outcome if there are none to have.

    A job that waited for one that was ignored ends like that one: it never runs, and stays PENDING.
    """
    headers, request, job = delivery.message.headers, delivery.request, delivery.job
    try:
        args = delivery.app.backend.chord_args(headers, request["args"], fed(job))
        if not headers.get("chord_immutable"):
            request.update(args=list(args), argsrepr=repr_args(delivery.app, args, 1024))
    except Ignore:
        return Outcome(job.id, job.token, State.COMPLETED)
    except DatabaseUnavailable:
        return redelivery(job, counted=False)
    except Exception as exc:
        if not headers.get("chord_immutable"):
            request["args"] = list(request["args"][1:])  # there was never a first one
        return _fail_like_parents(delivery, exc)
    return None


def _fail_like_parents(delivery: Delivery, exc: BaseException) -> Outcome:
    """End a call that never ran; error links are called by the one that its body ends with."""
    headers, backend = delivery.message.headers, delivery.app.backend
    end = vars(exc).pop("chord_end", None)
    if end is None and "chord_end" in headers:
        end = [headers["chord_end"], getattr(exc, "dependency", None)]
    # The error links of a later step of a chain are those of the step that failed.
    failed = backend.failed_among(headers.get("chord_after") or (), hidden=True)
    for meta in failed.values():
        exc, end = meta["result"].with_traceback(exc.__traceback__), meta.get("chord_end")
        break
    silent = bool(failed) or isinstance(headers["chord_parents"], str)
    if silent if end is None else end[0] != delivery.job.id:
        return failure(
            delivery, exc, hooks=False, signal=False, errbacks=False, stored=True, chord_end=end
        )
    if "chord_errbacks" in headers:
        links = delivery.request.get("errbacks") or ()
        places = headers["chord_errbacks"]
        delivery.request["errbacks"] = [links[k] for k in places if k < len(links)]
    if end is not None and end[1] is not None:  # what was stored of it says no cause
        cause = backend.failed_among([end[1]], hidden=True).get(end[1])
        exc.__cause__ = cause and cause["result"]
        exc.dependency = end[1]  # type: ignore[attr-defined]
    _leave_out_called(delivery, exc)
    return failure(delivery, exc, hooks=False, signal=False, stored=True)


def _leave_out_called(delivery: Delivery, exc: BaseException) -> None:
    """Call no error link a second time that the body of a chord in the header has called.

    In Celery the outer chord of the two hangs then, and calls nothing.
    """
    if not isinstance(exc, ChordError) or not isinstance(exc.__cause__, ChordError):
        return
    info = delivery.app.engine.job(exc.dependency)
    if info is None or not delivery.request.get("errbacks"):
        return
    inner = Delivery(delivery.handler, delivery.job._replace(id=info.id, payload=info.payload))
    called = inner.request.get("errbacks") or ()
    delivery.request["errbacks"] = [
        one for one in delivery.request["errbacks"] if one not in called
    ]
