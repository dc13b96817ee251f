"""The nouns of the engine: what goes in, what a worker gets, what comes back. No I/O.

A *job* is one call, waiting or running. The engine sees bytes, names and times; what a payload
means is its sender's business. Ids, names and queue names are the application's own strings.
"""

from __future__ import annotations

import marshal
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple, Protocol


class State(IntEnum):
    """Where a job is in its life; the numbers are stored, so they never change."""

    SCHEDULED = 1  #: waits for a time
    AVAILABLE = 2  #: may be claimed
    RUNNING = 3  #: claimed by a live worker
    RETRYABLE = 4  #: asked to run again later
    WAITING = 5  #: waits for its parents in a workflow
    COMPLETED = 10
    FAILED = 11
    CANCELLED = 12

    @property
    def final(self) -> bool:
        """Whether nothing can follow this state."""
        return self >= State.COMPLETED


class NewJob(NamedTuple):
    """One job to enqueue.

    Attributes:
        id: The application's id, at most 255 characters; a second enqueue of it creates nothing.
        queue: Name of its queue, at most 255 characters; created on first use.
        name: What the job is a call of; for grouping and display.
        payload: Opaque bytes, handed back unchanged.
        priority: 0 is claimed first; 0 to 32767.
        due_at: Aware time before which it may not start; None is now.
        delay_s: Seconds from the database's now before which it may not start; wins over due_at.
        expires_at: Aware time after which it comes back flagged ``expired``.
        max_deliveries: How often it may be given to a worker without an outcome; 1: at most once.
        ttl_s: Seconds its result is kept after the end; None keeps it for ever.
        parents: Ids of jobs that must end before this one is available; empty for most.
        key: What it shares slots with, at most 255 characters; None for no limit.
        key_limit: How many jobs of its key may be claimed at once; a key's newest job decides.
        joins: Ids of open latches, or of waiting jobs, which are to wait for this one too; for a
            job that has not ended, whoever waits for that does. None of them in the same call.
        awaited: Others will wait for it that are not enqueued with it; implied by `joins`.
        again: If its id has been used by a run that has ended, it runs anew, and what that left is
            forgotten; but the same id with the same payload is the same job.
        lives_s: Seconds from the end of its last parent to its expiry; for a job with parents, in
            place of `expires_at`.
        workflow: Id of what it is part of, at most 255 characters; a follow-up without one is part
            of what its run is.
        leads: Its workflow is listed by it; one job of each.
    """

    id: str
    queue: str
    name: str
    payload: bytes
    priority: int = 0
    due_at: datetime | None = None
    delay_s: float | None = None
    expires_at: datetime | None = None
    max_deliveries: int = 1
    ttl_s: float | None = 86400.0
    parents: tuple[str, ...] = ()
    key: str | None = None
    key_limit: int = 1
    joins: tuple[str, ...] = ()
    awaited: bool = False
    again: bool = False
    lives_s: float | None = None
    workflow: str | None = None
    leads: bool = False


class Job(NamedTuple):
    """A claimed job. Every write about this run must carry its `token`, which is never reused."""

    id: str
    token: int
    queue: str
    name: str
    payload: bytes
    priority: int
    delivery: int  #: 1 for the first; more when earlier runs ended without an outcome
    expired: bool = False  #: its `expires_at` passed before it was claimed
    lost: bool = False  #: earlier runs used up `max_deliveries`; it must not run, only be ended
    parent_failed: bool = False  #: a parent did not complete
    #: id, state and result of its one parent, if that ended here just now
    fed: tuple[str, int, bytes | None] | None = None
    awaited: bool = False  #: others wait for its end


class Lost(NamedTuple):
    """Why a run ended without its handler saying so."""

    kind: str  #: worker_lost, child_lost, time_limit, terminated, expired, cancelled
    detail: str = ""  #: one sentence for a person
    pid: int | None = None
    signum: int | None = None
    limit_s: float | None = None  #: the hard limit that was passed, for ``time_limit``


class Outcome(NamedTuple):
    """What became of one run; written whole in one transaction, or not at all.

    Attributes:
        id: The job's.
        token: The run's; when it is no longer current the outcome is refused and kept as *late*.
        state: COMPLETED, FAILED or CANCELLED end the job. RETRYABLE reschedules it by `delay_s`
            or `due_at`. AVAILABLE gives it back; it then counts as a delivery only if `counted`.
            WAITING parks it: the run is over, and a follow-up, of this outcome or of a later one,
            goes on with the id.
        result: Opaque bytes kept for whoever asks; None keeps none.
        payload: Replaces the job's payload (RETRYABLE, AVAILABLE); None keeps it.
        queue: Moves the job (RETRYABLE, AVAILABLE); None keeps it.
        priority: Changes it (RETRYABLE, AVAILABLE); None keeps it.
        due_at: Aware time of the retry.
        delay_s: Seconds from the database's now to the retry; wins over due_at.
        expires_at: New expiry of a retry; None keeps it.
        counted: Whether giving back counts as a delivery.
        ttl_s: Seconds to keep the result; None keeps the job's own.
        note: For `Handler.finished`, stored nowhere: plain values that marshal can say.
        drops: Ids of jobs downstream in its workflow that still wait: they are forgotten in the
            same transaction, as if never sent. Who waits for one finds that it did not complete,
            unless a follow-up brings the id back.
        follow_ups: Jobs enqueued in the same transaction, if and only if the outcome is accepted.
    """

    id: str
    token: int
    state: State
    result: bytes | None = None
    payload: bytes | None = None
    queue: str | None = None
    priority: int | None = None
    due_at: datetime | None = None
    delay_s: float | None = None
    expires_at: datetime | None = None
    counted: bool = False
    ttl_s: float | None = None
    note: tuple[Any, ...] | None = None
    drops: tuple[str, ...] = ()
    follow_ups: tuple[NewJob, ...] = ()


class StoredResult(NamedTuple):
    """What is known of a job that has a result row."""

    id: str
    state: State
    result: bytes | None
    finished_at: datetime | None  #: aware; None while the job is not at its end


class Run(Protocol):
    """One opened job, in the process or thread that will run it."""

    #: seconds after which `Handler.soft_limit_error` is raised in it; None for never
    soft_time_limit_s: float | None
    #: seconds after which its process is killed; None for never
    time_limit_s: float | None

    def __call__(self) -> Outcome:
        """Run the body. Must not raise; what the body raises becomes an outcome."""
        ...


class Handler(Protocol):
    """What the application brings. One instance a worker; the pool calls it where noted."""

    def received(self, jobs: list[Job]) -> None:
        """Hear of claimed jobs before they go to the pool (in the node's process)."""

    def hears_first(self) -> bool:
        """Whether `received` must have heard of a job before that begins (in the node's process).

        Else it hears of a job that followed another one in the same pool process a moment later.
        """
        ...

    def open(self, job: Job) -> Run:
        """Decode a job for running (in the pool's process or thread). Must not raise.

        It may not run after all.
        """
        ...

    def lost(self, job: Job, why: Lost) -> Outcome:
        """End a run that could not say its own outcome (in the node's process)."""
        ...

    def interrupted(self, job: Job, limit_s: float) -> None:
        """Hear that a run's soft time limit has passed, once a run (in the node's process)."""

    def late(self, outcome: Outcome, reason: str) -> None:
        """Hear that an outcome was refused (in the node's process)."""

    def finished(self, outcome: Outcome) -> None:
        """Hear that an outcome was recorded, or its job given up (in the node's process)."""

    def process_started(self) -> None:
        """Prepare a pool process, right after the fork, before its first job."""

    def process_stopping(self, exitcode: int) -> None:
        """Clean up in a pool process that is about to end."""

    def soft_limit_error(self) -> BaseException:
        """Give the exception to raise when a soft time limit has passed."""
        ...


def dump_jobs(jobs: list[Job]) -> bytes:
    """Encode jobs for a pipe between two processes of one worker."""
    return marshal.dumps([tuple(job) for job in jobs])


def load_jobs(data: bytes) -> list[Job]:
    """Decode what `dump_jobs` made."""
    return [Job(*row) for row in marshal.loads(data)]


def dump_outcome(outcome: Outcome) -> bytes:
    """Encode an outcome for a pipe between two processes of one worker."""
    row: list[Any] = [_flat_time(value) for value in outcome]
    row[2] = int(outcome.state)
    row[-1] = [[_flat_time(value) for value in job] for job in outcome.follow_ups]
    return marshal.dumps(row)


def load_outcome(data: bytes) -> Outcome:
    """Decode what `dump_outcome` made."""
    row: list[Any] = [_full_time(value) for value in marshal.loads(data)]
    row[2] = State(row[2])
    row[-1] = tuple(NewJob(*[_full_time(value) for value in job]) for job in row[-1])
    return Outcome(*row)


class _Mark:
    """Tags an ISO time in a marshalled row; no payload is ever a one-key dict."""

    KEY = "@"


def _flat_time(value: Any) -> Any:
    return {_Mark.KEY: value.isoformat()} if isinstance(value, datetime) else value


def _full_time(value: Any) -> Any:
    return datetime.fromisoformat(value[_Mark.KEY]) if isinstance(value, dict) else value
