"""A handler whose bodies are plain functions, and what drives a pool as a worker's node does."""

from __future__ import annotations

import itertools
import select
import time
from collections.abc import Callable, Mapping, Sequence

from pgcelery.engine.job import Handler, Job, Lost, Outcome, State
from pgcelery.engine.pool import Pool

Body = Callable[[bytes], bytes]
_tokens = itertools.count(1)


class TooSlowError(Exception):
    """The soft limit's error."""


class BodyRun:
    def __init__(self, job: Job, body: Body, limits: tuple[float | None, float | None]) -> None:
        self._job, self._body = job, body
        self.soft_time_limit_s, self.time_limit_s = limits

    def __call__(self) -> Outcome:
        try:
            state, result = State.COMPLETED, self._body(self._job.payload)
        except Exception as error:
            state, result = State.FAILED, type(error).__name__.encode()
        return Outcome(self._job.id, self._job.token, state, result)


class Bodies:
    """Runs `bodies[job.name](payload)`; limits are (soft, hard) by name."""

    def __init__(
        self,
        bodies: Mapping[str, Body],
        limits: Mapping[str, tuple[float | None, float | None]] | None = None,
    ) -> None:
        self.bodies = {"echo": bytes, **bodies}
        self.limits = limits or {}
        self.losses: dict[str, Lost] = {}
        self.interruptions: list[tuple[str, float]] = []
        self.started = 0

    def received(self, jobs: list[Job]) -> None: ...

    def hears_first(self) -> bool:
        return False

    def open(self, job: Job) -> BodyRun:
        return BodyRun(job, self.bodies[job.name], self.limits.get(job.name, (None, None)))

    def lost(self, job: Job, why: Lost) -> Outcome:
        self.losses[job.id] = why
        return Outcome(job.id, job.token, State.FAILED, b"lost")

    def repeats(self, job: Job) -> bool:
        return False

    def interrupted(self, job: Job, limit_s: float) -> None:
        self.interruptions.append((job.id, limit_s))

    def late(self, outcome: Outcome, reason: str) -> None: ...

    def finished(self, outcome: Outcome) -> None: ...

    def process_started(self) -> None:
        self.started += 1

    def process_stopping(self, exitcode: int) -> None: ...

    def soft_limit_error(self) -> BaseException:
        return TooSlowError()


def jobs_of(name: str, *payloads: bytes) -> list[Job]:
    """New jobs, with ids in order."""
    tokens = [next(_tokens) for _ in payloads]
    return [
        Job(f"{name}-{t}", t, "q", name, p, 0, 1) for t, p in zip(tokens, payloads, strict=True)
    ]


class Drive:
    """One pool with the loop around it."""

    def __init__(self, pool: Pool, handler: Handler) -> None:
        self.pool = pool
        self.outcomes: dict[str, Outcome] = {}
        pool.start(handler)

    def turn(self, most_s: float = 0.02) -> None:
        """Collect, tick, and wait a little for more."""
        for outcome in self.pool.collect():
            assert outcome.id not in self.outcomes, "an outcome came twice"
            self.outcomes[outcome.id] = outcome
        due = self.pool.tick()
        wait_s = most_s if due is None else min(due, most_s)
        select.select(self.pool.filenos(), [], [], wait_s)

    def until(self, holds: Callable[[], object], timeout_s: float = 15.0) -> None:
        """Take turns until something holds."""
        deadline = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < deadline, "it did not come to pass in time"
            self.turn()

    def until_room(self, jobs: int = 1) -> None:
        """Take turns until the pool wants so many jobs."""
        self.until(lambda: self.pool.capacity() >= jobs)

    def finish(self, jobs: Sequence[Job]) -> list[bytes | None]:
        """Take turns until these have ended; gives their results."""
        self.until(lambda: all(job.id in self.outcomes for job in jobs))
        return [self.outcomes[job.id].result for job in jobs]

    def run(self, jobs: Sequence[Job]) -> list[bytes | None]:
        """Submit jobs and wait for their results."""
        self.pool.submit(jobs)
        return self.finish(jobs)
