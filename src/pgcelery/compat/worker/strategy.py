"""What the worker's main process does with tasks it takes, and with their ends.

Source: Celery 5.7, ``celery.worker.strategy`` (logger, line and extra data of "received") and
``celery.worker.control`` (revoking by stamp).
"""

from __future__ import annotations

import logging
from typing import Any

from pgcelery.compat import signals
from pgcelery.compat.app.handler import TaskHandler
from pgcelery.compat.message import decode, encode
from pgcelery.compat.utils.text import one_line
from pgcelery.compat.worker import state
from pgcelery.compat.worker.request import Request
from pgcelery.compat.worker.taskevents import TaskEvents
from pgcelery.engine import Job, Lost, Outcome, Run, State

__all__ = ("LOG_RECEIVED", "NodeHandler")

LOG_RECEIVED = "Task %(name)s[%(id)s] received"

#: stands before the payload of a job that must not run because one of its stamps is revoked
_REVOKED = b"\x00revoked\x00"

logger = logging.getLogger("celery.worker.strategy")


class NodeHandler(TaskHandler):
    """`TaskHandler`, keeping `worker.state` in the main process.

    Attributes:
        consumer: Sender of ``task_received``.
        time_limits: ``{task name: (hard, soft)}`` as set by remote control.
        events: Sends the events of tasks; None sends none.
    """

    consumer: Any = None
    events: TaskEvents | None = None

    def __init__(self, app: Any, *, hostname: str, **options: Any) -> None:
        super().__init__(app, hostname=hostname, **options)
        self.time_limits: dict[str, tuple[float | None, float | None]] = {}

    def hears_first(self) -> bool:
        """Whether `received` may change a job, or somebody hears `task_received`."""
        return bool(self.time_limits or state.revoked_stamps or signals.task_received.receivers)

    def received(self, jobs: list[Job]) -> None:
        """Log, signal and keep count of taken tasks; not of those that this worker does not have.

        What is only taken to fail, because one that it waited for did, is no news. A job may be
        replaced in the list, so that the pool learns what only this process knows.
        """
        super().received(jobs)
        tasks = self.app.tasks
        events = self.events if self.events is not None and self.events.on else None
        announced = (
            logger.isEnabledFor(logging.INFO)
            or signals.task_received.receivers
            or (self.consumer is not None and self.consumer.on_task_message)
        )
        for index, job in enumerate(jobs):
            if job.name not in tasks:
                if events is not None:
                    events.unknown(job.id, job.name)
                continue
            request = Request(job=job, app=self.app, hostname=self.hostname)
            state.task_reserved(request)
            if not job.parent_failed:
                if announced:
                    self._announce(request)
                if events is not None:
                    events.received(request)
            if state.revoked_stamps and request.revoked_by_stamp():
                jobs[index] = job._replace(payload=_REVOKED + job.payload)
            elif job.name in self.time_limits:
                jobs[index] = _limited(job, self.time_limits[job.name])

    def _announce(self, request: Request) -> None:
        if logger.isEnabledFor(logging.INFO):
            _log_received(request)
        if signals.task_received.receivers:
            signals.task_received.send(sender=self.consumer, request=request)
        for callback in self.consumer.on_task_message if self.consumer is not None else ():
            try:
                callback(request)
            except Exception:
                # A step's; the tasks after this one are still to be told of.
                logger.exception("Error in on_task_message: %r", callback)

    def open(self, job: Job) -> Run:  # type: ignore[override]
        """Open a job for running; one that was marked as revoked only ends."""
        if job.payload.startswith(_REVOKED):
            return _RevokedRun(self, job._replace(payload=job.payload[len(_REVOKED) :]))
        return super().open(job)

    def lost(self, job: Job, why: Lost) -> Outcome:
        """End a run that could not say its own outcome."""
        return super().lost(job._replace(payload=job.payload.removeprefix(_REVOKED)), why)

    def finished(self, outcome: Outcome) -> None:
        """Note that a task has ended here."""
        request = self._forget(outcome)
        if self.events is not None and self.events.on:
            if request is None:
                self.events.ended_unseen(outcome)
            else:
                self.events.ended(request, outcome)

    def late(self, outcome: Outcome, reason: str) -> None:
        """Note that a task has ended here, without effect."""
        state.late_count[reason] += 1
        self._forget(outcome)
        if self.events is not None:
            self.events.forget(outcome.id)
        super().late(outcome, reason)

    def _forget(self, outcome: Outcome) -> Request | None:
        request: Request | None = state.requests.get(outcome.id)
        if request is None:
            return None
        if outcome.state is not State.AVAILABLE:
            state.task_accepted(request)
        state.task_ready(request, successful=outcome.state is State.COMPLETED)
        return request


class _RevokedRun:
    """Ends a job as revoked."""

    soft_time_limit_s: float | None = None
    time_limit_s: float | None = None

    def __init__(self, handler: NodeHandler, job: Job) -> None:
        self._handler = handler
        self._job = job

    def __call__(self) -> Outcome:
        return self._handler.lost(self._job, Lost("cancelled", "one of its stamps is revoked"))


def _log_received(request: Request) -> None:
    data = {
        "id": one_line(request.id),
        "name": one_line(request.name),
        "args": request.argsrepr,
        "kwargs": request.kwargsrepr,
        "eta": request.eta,
    }
    logger.info(LOG_RECEIVED, data, extra={"data": data})


def _limited(job: Job, limits: tuple[float | None, float | None]) -> Job:
    """Give a job time limits, unless its sender gave it some."""
    try:
        message = decode(job.payload)
    except Exception:
        # Ending a job with an unreadable payload is the pool's part.
        return job
    if any(message.headers.get("timelimit") or ()):
        return job
    message.headers["timelimit"] = list(limits)
    return job._replace(payload=encode(message))
