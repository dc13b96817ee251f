"""The verdict: what a run came to, as the outcome that the engine records.

While a job runs, `record` keeps what Celery would have stored at once; `verdict` turns it into one
`Outcome`, which is written in one transaction with all that follows from it. A call that is no job
(``apply``, a tracer made by hand) stores through its backend as in Celery.
"""

from __future__ import annotations

import logging
from typing import Any

from kombu.exceptions import EncodeError

from pgcelery.compat import states
from pgcelery.compat.app import running as runs
from pgcelery.compat.app.notes import Note
from pgcelery.compat.app.running import Running
from pgcelery.compat.message import decode, encode
from pgcelery.engine import Job, NewJob, Outcome, State

__all__ = ("encode_failure", "follow", "record", "redelivery", "verdict")

logger = logging.getLogger("celery.app.trace")

_ENDS = {
    states.SUCCESS: State.COMPLETED,
    states.FAILURE: State.FAILED,
    states.REVOKED: State.CANCELLED,
}


def record(
    task: Any,
    request: Any,
    state: str,
    value: Any,
    traceback: str | None = None,
    *,
    store: bool = True,
) -> None:
    """Keep the state that a call came to, for its outcome; or store it, if it is no job.

    Raises:
        kombu.exceptions.EncodeError: The result serializer cannot say `value`.
    """
    backend = task.backend
    running = runs.current(request.id)
    if running is None or not hasattr(backend, "encode_meta"):
        if running is not None:
            running.record = (state, None)
        _store(backend, request, state, value, traceback, store)
    elif not store and not request.chain_link:
        running.record = (state, None)
    elif state in states.EXCEPTION_STATES:
        running.record = (
            state, encode_failure(backend, request, state, value, traceback, hidden=not store)
        )  # fmt: skip
    else:
        meta = backend.encode_meta(request.id, value, state, traceback, request, hidden=not store)
        running.record = (state, meta)


def _store(
    backend: Any, request: Any, state: str, value: Any, traceback: str | None, store: bool
) -> None:
    if state == states.SUCCESS:
        backend.mark_as_done(request.id, value, request, store)
    elif state == states.RETRY:
        if store:
            backend.mark_as_retry(request.id, value, traceback, request=request)
    else:
        # Error links are not the backend's business here: see `links`.
        backend.mark_as_failure(
            request.id, value, traceback, request=request, store_result=store, call_errbacks=False
        )


def encode_failure(
    backend: Any,
    request: Any,
    state: str,
    exc: BaseException | None,
    traceback: str | None,
    **options: Any,
) -> bytes:
    """Encode an exception whatever it is: if it cannot be said, say that.

    Takes the options of the backend's `encode_meta`.
    """
    try:
        meta: bytes = backend.encode_meta(request.id, exc, state, traceback, request, **options)
    except Exception as failure:
        logger.exception("The exception of task %r cannot be stored", request.id)
        substitute = EncodeError(f"{type(exc).__name__}, which cannot be stored: {failure!r:.200}")
        meta = backend.encode_meta(request.id, substitute, state, None, None, **options)
    return meta


def follow(request: Any, call: Any, *args: Any, **options: Any) -> None:
    """Make a call that sends: with the outcome of the job if `request` is one's, else at once."""
    running = runs.current(request.id)
    if running is None:
        call(*args, **options)
    else:
        # With the outcome they are sent once, so an id that was used is used on purpose.
        jobs = runs.dispatch(call, *args, **options)
        running.follow_ups.extend(job._replace(again=True) for job in jobs)


def verdict(
    job: Job, running: Running, backend: Any, request: Any, note: Note | None = None
) -> Outcome:
    """Make the outcome of a run that has ended by itself.

    A retry or a replacement that was asked for counts more than what the body returned or raised.

    Args:
        job: The job.
        running: What was gathered while it ran.
        backend: The task's result backend.
        request: Gives the task's `Context`.
        note: Goes with the outcome.
    """
    if running.again is not None:
        again = running.again
        if running.retry is None and (job.gated or again.gates or again.placement):
            # It has limits of its own, and a place: another job, then, that goes on with the id.
            after = (again._replace(id=job.id, again=True, unique=None),)
            return Outcome(job.id, job.token, State.WAITING, note=note, follow_ups=after)
        if running.retry is None:
            return _run_again(job, again, None, note)
        state, meta = running.record or (states.PENDING, None)
        if state != states.RETRY:
            exc = running.retry.exc
            meta = encode_failure(backend, request(), states.RETRY, exc, None)
        return _run_again(job, again, meta, note)
    if running.replaced:
        # The job stays, without a run, until one of the follow-ups comes to its id again.
        followed = tuple(running.follow_ups)
        return Outcome(job.id, job.token, State.WAITING, note=note, follow_ups=followed)
    state, meta = running.record or (states.IGNORED, None)
    return Outcome(
        job.id,
        job.token,
        _ENDS.get(state, State.COMPLETED),
        result=meta,
        ttl_s=None if meta is None else backend.ttl_s(state),
        note=note,
        drops=tuple(running.drops),
        # Others may wait for ids that come back.
        follow_ups=tuple(job._replace(awaited=True) for job in running.follow_ups)
        if running.drops
        else tuple(running.follow_ups),
    )


def _run_again(job: Job, again: NewJob, meta: bytes | None, note: Note | None) -> Outcome:
    waits = again.delay_s is not None or again.due_at is not None
    return Outcome(
        job.id,
        job.token,
        State.RETRYABLE if waits or meta is not None else State.AVAILABLE,
        result=meta,
        payload=again.payload,
        queue=again.queue,
        priority=again.priority,
        due_at=again.due_at,
        delay_s=again.delay_s,
        expires_at=again.expires_at,
        note=note,
    )


def redelivery(job: Job, *, counted: bool) -> Outcome:
    """Give the job back, and let its next run know that it is not the first."""
    try:
        message = decode(job.payload)
        message.properties.setdefault("delivery_info", {})["redelivered"] = True
        payload = encode(message)
    except Exception:  # unreadable: let it come back as it is
        payload = None
    return Outcome(job.id, job.token, State.AVAILABLE, payload=payload, counted=counted)
