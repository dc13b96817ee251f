"""The nouns of the engine: what goes in, what a worker gets, what comes back. No I/O.

A *job* is one call, waiting or running. The engine sees bytes, names and times; what a payload
means is its sender's business. Ids, names and queue names are the application's own strings.
"""

from __future__ import annotations

import marshal
from collections.abc import Callable
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


#: by number; `State(number)` takes ten times as long
STATES = {int(state): state for state in State}


class Strategy(IntEnum):
    """What a gate does about a job that finds no slot free; the numbers are stored."""

    WAIT = 0  #: it waits for its turn
    CANCEL_NEWEST = 1  #: it is cancelled
    CANCEL_IN_PROGRESS = 2  #: the oldest that runs is cancelled, and it waits for that one's slot
    REPLACE_WAITING = 3  #: it waits, and what waited before it is cancelled


class Gate(NamedTuple):
    """A limit that a job must pass before it can be claimed, and holds a place of while it runs.

    Either a limit on how many run at once (`slots`, or only a fair share of the workers without),
    or one on how many start within a time (`rate`). Newer jobs of a line overrule what older ones
    said of it, and `Client.set_limit` overrules all of them.

    Attributes:
        name: The limit's, at most 255 characters; what `Client.set_limit` goes by.
        key: Which of its lines: jobs with the same name and key share; at most 255 characters.
        slots: How many may be claimed at once; None for as many as there are.
        weight: Share of the workers' attention against other lines of the same queue; above 0.
        strategy: What happens when no slot is free.
        rate: Units that may start within `period_s`; None for a limit on slots.
        period_s: Seconds.
        burst: Units that may start at once after a pause, at least 1.
        fixed: Count within windows of `period_s` each, not sliding; one may be used up at once.
        units: What this job takes of a rate.
    """

    name: str
    key: str = ""
    slots: int | None = None
    weight: float = 1.0
    strategy: int = Strategy.WAIT
    rate: int | None = None
    period_s: float = 1.0
    burst: int = 1
    fixed: bool = False
    units: int = 1


class Unique(NamedTuple):
    """What keeps a second job like the first from being enqueued.

    Attributes:
        key: At most 255 characters; jobs with the same one are alike.
        until: ``done``: until the first has ended; ``started``: until it is claimed; ``time``: for
            `for_s` seconds, whatever becomes of it.
        for_s: Seconds after which it is over in any case; None for never.
    """

    key: str
    until: str = "done"
    for_s: float | None = None


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
        gates: Limits, all of which it must pass at the same moment; the first one on slots says
            whose share of the workers it comes out of.
        unique: It is not enqueued while there is another one like it.
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
        placement: Which workers may claim it or should, as `placement.encode` says it; "" for any.
        sticky: It should (1) or must (2) run on the worker that ended the last it waited for.
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
    gates: tuple[Gate, ...] = ()
    unique: Unique | None = None
    joins: tuple[str, ...] = ()
    awaited: bool = False
    again: bool = False
    lives_s: float | None = None
    workflow: str | None = None
    leads: bool = False
    placement: str = ""
    sticky: int = 0


_GATES, _UNIQUE = NewJob._fields.index("gates"), NewJob._fields.index("unique")


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
    gated: bool = False  #: it came through gates


class Lost(NamedTuple):
    """Why a run ended without its handler saying so."""

    #: worker_lost, child_lost, lease_lost, time_limit, terminated, shutdown, expired, cancelled,
    #: no_slot, replaced
    kind: str
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
            or `due_at`. AVAILABLE gives it back, after `delay_s` if that is set; it then counts as
            a delivery only if `counted`.
            WAITING parks it: the run is over, and a follow-up, of this outcome or of a later one,
            goes on with the id.
        result: Opaque bytes kept for whoever asks; None keeps none.
        payload: Replaces the job's payload (RETRYABLE, AVAILABLE); None keeps it.
        queue: Moves the job (RETRYABLE, AVAILABLE); None, or the one it is in, keeps its placement.
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


class Recorded(NamedTuple):
    """An outcome that the run has recorded itself, and whom that concerns."""

    outcome: Outcome
    #: kind, job id, queue id, name: rows of `statements.Kind` for the node to spread
    news: tuple[tuple[int, str | None, int | None, str | None], ...] = ()


class Unrecorded(NamedTuple):
    """What a run comes to that records its outcome itself."""

    #: does so, where nothing interrupts it any more; what it gives instead is recorded as usual
    record: Callable[[], Recorded | Outcome]


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

    def __call__(self) -> Outcome | Unrecorded:
        """Run the body. Must not raise; what the body raises becomes an outcome."""
        ...


def run_to_end(run: Callable[[], Outcome | Unrecorded]) -> Outcome | Recorded:
    """Call a run, and have it record its outcome if it does that itself."""
    ended = run()
    return ended.record() if isinstance(ended, Unrecorded) else ended


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

    def repeats(self, job: Job) -> bool:
        """Whether a job that has begun may begin once more elsewhere (in the node's process)."""
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
    if outcome.due_at is None and outcome.expires_at is None and not outcome.follow_ups:
        plain: tuple[Any, ...] = (outcome.id, outcome.token, int(outcome.state), *outcome[3:])
        return marshal.dumps(plain)
    row: list[Any] = [_flat_time(value) for value in outcome]
    row[2] = int(outcome.state)
    row[-1] = [_flat_job(job) for job in outcome.follow_ups]
    return marshal.dumps(row)


def load_outcome(data: bytes) -> Outcome:
    """Decode what `dump_outcome` made."""
    loaded = marshal.loads(data)
    if type(loaded) is tuple:  # it has nothing that marshal could not say
        id, token, state, *rest = loaded
        return Outcome(id, token, STATES[state], *rest)
    row: list[Any] = [_full_time(value) for value in loaded]
    row[2] = STATES[row[2]]
    row[-1] = tuple(_full_job(job) for job in row[-1])
    return Outcome(*row)


def _flat_job(job: NewJob) -> list[Any]:
    row: list[Any] = [_flat_time(value) for value in job]
    row[_GATES] = [tuple(gate._replace(strategy=int(gate.strategy))) for gate in job.gates]
    row[_UNIQUE] = None if job.unique is None else tuple(job.unique)
    return row


def _full_job(row: list[Any]) -> NewJob:
    full = [_full_time(value) for value in row]
    full[_GATES] = tuple(Gate(*gate) for gate in full[_GATES])
    full[_UNIQUE] = None if full[_UNIQUE] is None else Unique(*full[_UNIQUE])
    return NewJob(*full)


class _Mark:
    """Tags an ISO time in a marshalled row; no payload is ever a one-key dict."""

    KEY = "@"


def _flat_time(value: Any) -> Any:
    return {_Mark.KEY: value.isoformat()} if isinstance(value, datetime) else value


def _full_time(value: Any) -> Any:
    return datetime.fromisoformat(value[_Mark.KEY]) if isinstance(value, dict) else value
