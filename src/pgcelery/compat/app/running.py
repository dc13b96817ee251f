"""The job whose task runs here now, and what its task asked for meanwhile.

What a run wants to happen *with* its end (its retry, the tasks it calls back) must be written in
the transaction that records the end, so it is gathered here rather than sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from pgcelery.engine import NewJob

__all__ = (
    "Running",
    "collecting",
    "current",
    "divert",
    "in_canvas",
    "is_collecting",
    "lending",
    "lent",
)


@dataclass(slots=True)
class Running:
    """One run.

    Attributes:
        task_id: Id of the call; a copy of a broadcast is a job with another id.
        follow_ups: Jobs that are enqueued with the outcome.
        again: What is to run next under the same id: a retry, or a replacement.
        retry: The `Retry` that says why, when it is one.
        drops: Ids of jobs of its workflow that are not to come.
        replaced: Whether jobs among `follow_ups` take over the id.
        record: ``(Celery state, encoded meta or None)`` of the end; None while there is none.
    """

    task_id: str
    follow_ups: list[NewJob] = field(default_factory=list)
    drops: list[str] = field(default_factory=list)
    again: NewJob | None = None
    retry: Any = None
    replaced: bool = False
    record: tuple[str, bytes | None] | None = None


class Collected(list[NewJob]):
    """Jobs sent while `collecting`, and the connection that their caller asked for.

    Attributes:
        conn: The connection; None for none.
        alone: Whether each of them is sent for itself, and not as part of a canvas.
    """

    conn: Any = None
    alone: bool = False


_running: ContextVar[Running | None] = ContextVar("pgcelery_running", default=None)
_lent: ContextVar[Any] = ContextVar("pgcelery_lent", default=None)
_collected: ContextVar[Collected | None] = ContextVar("pgcelery_collected", default=None)

#: Set and reset the run of this thread; the tokens are `ContextVar`'s.
enter = _running.set
leave = _running.reset


def current(task_id: str | None) -> Running | None:
    """Give the run of `task_id` if it is the one that runs here."""
    running = _running.get()
    return running if running is not None and running.task_id == task_id else None


@contextmanager
def collecting(*, alone: bool = False) -> Iterator[Collected]:
    """While active in this thread, what is sent is appended to the list instead of inserted."""
    jobs = Collected()
    jobs.alone = alone
    token = _collected.set(jobs)
    try:
        yield jobs
    finally:
        _collected.reset(token)


def is_running() -> bool:
    """Whether this thread is in a run."""
    return _running.get() is not None


def is_collecting() -> bool:
    """Whether what this thread sends is kept for later."""
    return _collected.get() is not None


def in_canvas() -> bool:
    """Whether what this thread sends is part of a canvas, or follows from the end of a run."""
    collected = _collected.get()
    return collected is not None and not collected.alone


@contextmanager
def lending(conn: Any) -> Iterator[None]:
    """While active in this thread, what is sent goes into the transaction of `conn`."""
    token = _lent.set(conn)
    try:
        yield
    finally:
        _lent.reset(token)


def lent() -> Any:
    """Give the connection that is lent to what this thread sends."""
    return _lent.get()


def divert(jobs: list[NewJob], conn: Any = None) -> list[NewJob]:
    """Keep the jobs that belong to the end of a run or to a batch; give those to insert now."""
    running = _running.get()
    if running is not None:
        for job in jobs:
            if job.id == running.task_id and not job.parents:
                running.again = job
        jobs = [job for job in jobs if job is not running.again]
    collected = _collected.get()
    if collected is None:
        return jobs
    collected.extend(jobs)
    collected.conn = conn or collected.conn
    return []


def dispatch(call: Any, *args: Any, **options: Any) -> list[NewJob]:
    """Call something that sends, and give the jobs instead."""
    with collecting() as jobs:
        call(*args, **options)
    return jobs
