"""TaskHandler: what the engine's worker calls with jobs that are tasks."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from kombu.exceptions import ContentDisallowed
from kombu.serialization import prepare_accept_content

from pgcelery.compat import signals, states
from pgcelery.compat._state import _set_task_join_will_block
from pgcelery.compat.app import committing, lost, notes, trace
from pgcelery.compat.app import running as runs
from pgcelery.compat.app.delivery import Delivery
from pgcelery.compat.app.execution import redelivery, verdict
from pgcelery.compat.app.running import Running
from pgcelery.compat.exceptions import (
    InvalidTaskError,
    NotRegistered,
    Reject,
    SoftTimeLimitExceeded,
)
from pgcelery.compat.utils.nodenames import gethostname
from pgcelery.compat.utils.text import one_line
from pgcelery.engine import Job, Lost, Outcome, State, Unrecorded

__all__ = ("TaskHandler", "TaskRun")

logger = logging.getLogger("celery.worker.strategy")

#: What the end of a pool process waits for.
_LAST_EVENTS_S = 1.0

#: Written on one line, and with the name quoted: it came from outside.
UNKNOWN_TASK = (
    "Received unregistered task of type %r. It ends as FAILURE. "
    "Did you remember to import the module containing this task?"
)


class TaskHandler:
    """Runs jobs as tasks of one app; an engine `Handler`.

    Args:
        app: The application, finalized when the first job is opened.
        hostname: Name of the node, which requests say.

    Attributes:
        consumer: Sender of ``task_unknown`` and ``task_rejected``.
    """

    consumer: Any = None

    def __init__(self, app: Any, *, hostname: str | None = None) -> None:
        self.app = app
        self.hostname = hostname or gethostname()
        self._accept: Any = None
        # Tracers by task name, made by the `build_tracer` of their time: libraries replace it.
        self._tracers: dict[str, tuple[Any, Any, Callable[..., Any]]] = {}

    @property
    def accept(self) -> Any:
        """Content types that may be decoded."""
        if self._accept is None:
            self._accept = prepare_accept_content(self.app.conf.accept_content)
        return self._accept

    def prepare(self) -> None:
        """Make what the first task would, before processes are forked, which then share it."""
        self._accept = prepare_accept_content(self.app.conf.accept_content)
        for part in ("backend", "timezone"):
            getattr(self.app, part)
        self.app._rulebook.prepare()

    def received(self, jobs: list[Job]) -> None:
        """Report jobs whose task this worker does not have; the pool ends them."""
        tasks = self.app.tasks
        for job in jobs:
            if job.name in tasks:
                continue
            logger.error(UNKNOWN_TASK, job.name)
            if signals.task_unknown.receivers:
                signals.task_unknown.send(
                    sender=self.consumer,
                    message=Delivery(self, job).message,
                    exc=NotRegistered(job.name),
                    name=job.name,
                    id=job.id,
                )

    def hears_first(self) -> bool:
        """Say that a task may begin before this process has heard of it."""
        return False

    def open(self, job: Job) -> TaskRun:
        """Decode a job; one that cannot be run becomes a run that says so."""
        return TaskRun(self, Delivery(self, job))

    def tracer(self, task: Any) -> Callable[..., Any]:
        """Give the tracer of a task, as `trace.build_tracer` makes it now."""
        known = self._tracers.get(task.name)
        if known is not None and known[0] is trace.build_tracer and known[1] is task:
            return known[2]
        build = trace.build_tracer
        tracer = build(
            task.name, task, loader=self.app.loader, hostname=self.hostname, app=self.app
        )
        self._tracers[task.name] = (build, task, tracer)
        return tracer

    def lost(self, job: Job, why: Lost) -> Outcome:
        """End a run that could not say its own outcome."""
        return lost.outcome(Delivery(self, job), why)

    def repeats(self, job: Job) -> bool:
        """Tell whether a task that has begun may run again: whether it is acknowledged late."""
        task = self.app.tasks.get(job.name)
        return bool(task is not None and task.acks_late)

    def interrupted(self, job: Job, limit_s: float) -> None:
        """Log that a run's soft time limit has passed."""
        lost.soft_limit_passed(Delivery(self, job), limit_s)

    def late(self, outcome: Outcome, reason: str) -> None:
        """Log, and send ``task_late``: what a run came to was refused."""
        logger.warning(
            "The outcome of task %s came too late and was not recorded: %s",
            one_line(outcome.id),
            reason,
        )
        signals.task_late.send(
            sender=self.consumer,
            task_id=outcome.id,
            state=states.from_engine(outcome.state),
            reason=reason,
        )

    def finished(self, outcome: Outcome) -> None:
        """Hear that an outcome was recorded."""

    def process_started(self) -> None:
        """Prepare a pool process as Celery does, up to ``worker_process_init``."""
        _set_task_join_will_block(True)
        self._tracers.clear()
        trace.setup_worker_optimizations(self.app, self.hostname)
        self.app.loader.init_worker_process()
        signals.worker_process_init.send(sender=None)

    def process_stopping(self, exitcode: int) -> None:
        """Send ``worker_process_shutdown``."""
        signals.worker_process_shutdown.send(sender=None, pid=os.getpid(), exitcode=exitcode)
        self.app.event_writer.flush(_LAST_EVENTS_S)

    def soft_limit_error(self) -> BaseException:
        """Give what is raised in a task whose soft time limit has passed."""
        error: BaseException = SoftTimeLimitExceeded()
        return error


class TaskRun:
    """One opened job."""

    __slots__ = ("_delivery", "_handler", "soft_time_limit_s", "time_limit_s")

    def __init__(self, handler: TaskHandler, delivery: Delivery) -> None:
        self._handler = handler
        self._delivery = delivery
        self.time_limit_s, self.soft_time_limit_s = delivery.limits()

    def __call__(self) -> Outcome | Unrecorded:
        """Run the task to its outcome; never raises."""
        delivery = self._delivery
        try:
            if delivery.task is not None and delivery.task.transactional:
                return committing.run(delivery, lambda: self._run(delivery))
            return self._run(delivery)[0]
        except BaseException as exc:
            logger.critical(
                "Task %s failed outside of its body: %r",
                one_line(delivery.job.id),
                exc,
                exc_info=True,
            )
            return lost.failure(delivery, exc)

    def _run(self, delivery: Delivery) -> tuple[Outcome, bool]:
        """Run the task; what it came to, and whether its body succeeded."""
        job = delivery.job
        if delivery.error is not None:
            return self._refuse(delivery, delivery.error), False
        task, request = delivery.task, delivery.request
        if "chord_parents" in delivery.message.headers:
            ended = lost.unless_parents_succeeded(delivery)
            if ended is not None:
                return ended, False
        running = Running(str(request["id"]))
        token = runs.enter(running)
        try:
            # By position, for those who wrap it: Sentry takes the request from there.
            ret = self._handler.tracer(task)(
                request["id"], request["args"], request["kwargs"], request
            )
        except Reject as exc:
            ret = trace.trace_ok_t(None, trace.TraceInfo(trace.REJECTED, exc), None, None)
        finally:
            runs.leave(token)
        info = ret.info
        if info is not None and info.state == trace.REJECTED and running.again is None:
            return self._rejected(delivery, info.retval), False
        if running.record is None and info is not None and info.state == trace.FAILURE:
            return lost.failure(delivery, info.retval), False
        if (
            running.record is not None
            and running.record[0] == trace.RETRY
            and running.again is None
        ):
            # A bare `raise Retry()`: nothing was sent that would ever run again.
            return lost.failure(delivery, info.retval), False
        outcome = verdict(job, running, task.backend, lambda: delivery.context, notes.of(ret))
        return outcome, info is None

    def _rejected(self, delivery: Delivery, exc: Any) -> Outcome:
        """A late-acknowledged task can go back; an early one was acknowledged before it began."""
        job = delivery.job
        note = notes.rejected(exc.requeue) if delivery.task.acks_late else None
        if not exc.requeue:
            return lost.failure(delivery, exc.with_traceback(None), hooks=False)._replace(note=note)
        if delivery.task.acks_late:
            return redelivery(job, counted=False)._replace(note=note)
        return Outcome(job.id, job.token, State.COMPLETED)

    def _refuse(self, delivery: Delivery, exc: BaseException) -> Outcome:
        """End a job that is no task of this worker, or no task at all."""
        if isinstance(exc, (ContentDisallowed, InvalidTaskError)):
            logger.error("Task %s was not run: %r", one_line(delivery.job.id), exc)
            signals.task_rejected.send(
                sender=self._handler.consumer, message=delivery.message, exc=exc
            )
        return lost.failure(delivery, exc, hooks=False, signal=False)
