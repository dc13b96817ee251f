"""What stands between a worker and its handler: errors of the one must not end the other."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from pgcelery.engine.job import Handler, Job, Lost, Outcome, Run, State

logger = logging.getLogger(__name__)


class Guarded:
    """A `Handler` whose calls in the node's process do not raise: what they raise is logged."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.hears_first = handler.hears_first
        self.process_started = handler.process_started
        self.process_stopping = handler.process_stopping
        self.soft_limit_error = handler.soft_limit_error

    def received(self, jobs: list[Job]) -> None:
        """Hear of jobs; that this failed does not keep them from running."""
        self._tell("received", self._handler.received, jobs)

    def open(self, job: Job) -> Run:
        """Decode a job; what is raised here the pool makes the job's failure."""
        return self._handler.open(job)

    def lost(self, job: Job, why: Lost) -> Outcome:
        """End a run; whatever the handler makes of it, it ends."""
        try:
            return self._handler.lost(job, why)
        except Exception:
            logger.exception("handler.lost failed", extra={"action": "worker.lost"})
            return Outcome(job.id, job.token, State.FAILED)

    def repeats(self, job: Job) -> bool:
        """Tell whether a job may begin once more elsewhere; it may where nobody can tell."""
        try:
            return self._handler.repeats(job)
        except Exception:
            logger.exception("handler.repeats failed", extra={"action": "worker.repeats"})
            return True

    def interrupted(self, job: Job, limit_s: float) -> None:
        """Hear that a run's soft time limit has passed."""
        self._tell("interrupted", self._handler.interrupted, job, limit_s)

    def late(self, outcome: Outcome, reason: str) -> None:
        """Hear that an outcome was refused."""
        self._tell("late", self._handler.late, outcome, reason)

    def finished(self, outcome: Outcome) -> None:
        """Hear that an outcome was recorded."""
        try:
            self._handler.finished(outcome)
        except Exception:
            self._note("finished")

    def _tell(self, what: str, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception:
            self._note(what)

    def _note(self, what: str) -> None:
        logger.exception("handler.%s failed", what, extra={"action": f"worker.{what}"})
