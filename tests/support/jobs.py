"""Jobs and a handler for tests of the engine: a payload is a Python expression of what to do."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pgcelery.engine import EngineConfig, Job, Lost, NewJob, Outcome, State, Worker
from pgcelery.engine.pool import Pool, ThreadPool
from tests.support.wait import wait_for


def new_job(payload: bytes = b"ok", queue: str = "q", **options: Any) -> NewJob:
    """Make a job with an id of its own."""
    return NewJob(
        options.pop("id", None) or str(uuid.uuid4()),
        queue,
        options.pop("name", "test"),
        payload,
        **options,
    )


class Recorder:
    """A handler that notes everything; bodies are functions by payload."""

    def __init__(self, **bodies: Callable[[Job], Outcome]) -> None:
        self.bodies = bodies
        self.ran: list[str] = []
        self.runs: list[Job] = []
        self.lost_jobs: list[tuple[str, Lost]] = []
        self.late_outcomes: list[tuple[str, str]] = []
        self.recorded: list[str] = []

    def received(self, jobs: list[Job]) -> None:
        pass

    def hears_first(self) -> bool:
        return False

    def open(self, job: Job) -> Any:
        return _Run(self, job)

    def lost(self, job: Job, why: Lost) -> Outcome:
        self.lost_jobs.append((job.id, why))
        return Outcome(job.id, job.token, State.FAILED, why.kind.encode())

    def repeats(self, job: Job) -> bool:
        return job.name != "once"

    def interrupted(self, job: Job, limit_s: float) -> None:
        pass

    def late(self, outcome: Outcome, reason: str) -> None:
        self.late_outcomes.append((outcome.id, reason))

    def finished(self, outcome: Outcome) -> None:
        self.recorded.append(outcome.id)

    def process_started(self) -> None:
        pass

    def process_stopping(self, exitcode: int) -> None:
        pass

    def soft_limit_error(self) -> BaseException:
        return TimeoutError("soft")


class _Run:
    soft_time_limit_s = None
    time_limit_s = None

    def __init__(self, recorder: Recorder, job: Job) -> None:
        self.recorder = recorder
        self.job = job

    def __call__(self) -> Outcome:
        job = self.job
        self.recorder.ran.append(job.id)
        self.recorder.runs.append(job)
        body = self.recorder.bodies.get(job.payload.decode())
        return body(job) if body else Outcome(job.id, job.token, State.COMPLETED, job.payload)


@contextmanager
def running(
    config: EngineConfig,
    handler: Recorder,
    *,
    queues: tuple[str, ...] = ("q",),
    pool: Pool | None = None,
    name: str = "w",
    **options: Any,
) -> Iterator[Worker]:
    """Run a worker in a thread for the length of the block; stop it warm."""
    worker = Worker(config, handler, pool or ThreadPool(4), name=name, queues=queues, **options)
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        wait_for(worker.ready.is_set, message="worker not ready")
        yield worker
    finally:
        worker.stop()
        thread.join(15)
        assert worker.stopped.is_set()
