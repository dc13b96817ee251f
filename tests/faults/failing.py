"""What the walk over all failpoints lets die: a worker, a producer, a beat; forked, to be quick."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pgcelery.engine import Client, EngineConfig, Job, NewJob, Outcome, State, Worker, failpoint
from pgcelery.engine.pool import PreforkPool
from pgcelery.engine.schedules import Schedules, Standing
from tests.support.wait import wait_for

QUEUE = "q"


def config(dsn: str) -> EngineConfig:
    return EngineConfig(dsn=dsn, lease_s=2.0, heartbeat_s=0.1, maintain_s=0.1)


def job(id: str, payload: bytes = b"ok", *, most: int = 5, **more: Any) -> NewJob:
    return NewJob(id, QUEUE, "once" if most == 1 else "again", payload, max_deliveries=most, **more)


class Bodies:
    """Notes each run as a line; ``retry`` asks for another run, ``reject`` gives the job back."""

    def __init__(self, folder: Path) -> None:
        self.ran = folder / "ran"

    def open(self, job: Job) -> Any:
        return _Run(self, job)

    def lost(self, job: Job, why: Any) -> Outcome:
        again = why.kind == "child_lost" and job.name == "again" and job.delivery < 5
        state = State.AVAILABLE if again else State.FAILED
        return Outcome(job.id, job.token, state, why.kind.encode(), counted=again)

    def repeats(self, job: Job) -> bool:
        return job.name == "again"

    def hears_first(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args: None


class _Run:
    soft_time_limit_s = time_limit_s = None

    def __init__(self, bodies: Bodies, job: Job) -> None:
        self.bodies, self.job = bodies, job

    def __call__(self) -> Outcome:
        job = self.job
        with self.bodies.ran.open("a") as file:  # one short line: appended whole
            file.write(f"{job.id}\n")
        if job.payload == b"retry":
            return Outcome(job.id, job.token, State.RETRYABLE, payload=b"ok", delay_s=0.01)
        if job.payload == b"reject":
            return Outcome(job.id, job.token, State.AVAILABLE, payload=b"ok")
        return Outcome(job.id, job.token, State.COMPLETED, job.id.encode())


class Forked:
    """A function in a process of its own, which ends with it."""

    def __init__(self, act: Callable[..., None], *args: Any, points: str = "", marks: Path) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                for name in (signal.SIGTERM, signal.SIGINT):
                    signal.signal(name, signal.SIG_DFL)
                logging.disable(logging.CRITICAL)
                failpoint.arm(points, marks)
                act(*args)
                code = 0
            except Exception as exc:
                with suppress(Exception):
                    (marks / "error").write_text(repr(exc))
            finally:
                sys.stdout.flush()
                os._exit(code)
        self.code: int | None = None

    def ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def kill(self) -> None:
        if not self.ended():
            os.killpg(self.pid, signal.SIGKILL)
            wait_for(self.ended)


def work(dsn: str, folder: Path) -> None:
    """A worker with one process."""
    worker = Worker(config(dsn), Bodies(folder), PreforkPool(1), name="w", queues=[QUEUE])
    signal.signal(signal.SIGTERM, lambda *_: worker.stop())
    worker.run()


def enqueue(dsn: str) -> None:
    """One call with more jobs than go in one batch."""
    with closing(Client(config(dsn))) as client:
        client.enqueue([job(f"many-{n}") for n in range(1001)])


def grow(dsn: str) -> None:
    """A header that is sent while it is drawn, and its body."""
    with closing(Client(config(dsn))) as client:
        client.open_latch("latch")
        client.enqueue([job(f"member-{n}", joins=("latch",)) for n in range(3)])
        client.close_latch("latch", [job("body", parents=("latch",))])


def beat(dsn: str) -> None:
    """Fires what is due of one schedule."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with closing(Client(config(dsn))) as client, closing(Schedules(client, "book")) as schedules:
        standing = Standing(start, 0)
        schedules.enter({"tick": standing})
        with schedules.claim("tick", standing) as slot:
            if slot.standing.total_run_count == 0:
                due = start + timedelta(minutes=1)
                slot.fire([job(f"tick-{due:%H%M}-{slot.standing.total_run_count}")], due)
