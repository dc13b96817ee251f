"""Why a job is where it is: the answer of `Client.why`. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, NamedTuple

from pgcelery.engine.job import State, Strategy

COUNTED = 1000  #: what is before a job is counted no further
_BYTES = ("payload", "result")


class Holder(NamedTuple):
    """A job that holds a slot of a line."""

    id: str
    name: str
    worker: str | None  #: None while it is let through and not claimed
    since: datetime | None  #: start of its run
    cancelled: bool  #: it was asked to end


class Parent(NamedTuple):
    """A job that another one waits for."""

    id: str
    name: str | None  #: None for a latch: something is still being sent
    state: State | None


class ServingWorker(NamedTuple):
    """A live worker, as seen from a job that waits."""

    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    running: int
    size: int | None  #: how many it can run at once, if it says so
    draining: bool  #: it claims nothing
    serves: bool  #: the job's queue
    suits: bool  #: it has the labels that the job requires
    rate: float | None = None  #: how many like the job it starts in a second; None for any number

    @property
    def full(self) -> bool:
        """Whether it runs as many as it can."""
        return self.size is not None and self.running >= self.size


class LineState(NamedTuple):
    """The line of a limit that a job waits in.

    Attributes:
        name: The limit's.
        key: The line's.
        kind: ``slots`` or ``rate``.
        slots: How many there are; None for as many as wanted.
        in_use: How many of them are.
        rate: Units that may start within `period_s` seconds.
        period_s: Seconds.
        opens_at: When a rate lets the head of the line through; None for now.
        turn_at: When it will come to this job, if all before it start as early as they may.
        ahead: Jobs before it in the line; `COUNTED` means that or more.
        set_at: When the limit was set at run time; None for one that jobs say.
        strategy: What happens to a job that finds no slot.
    """

    name: str
    key: str
    kind: str
    slots: int | None
    in_use: int
    rate: int | None
    period_s: float
    opens_at: datetime | None
    turn_at: datetime | None
    ahead: int
    set_at: datetime | None
    strategy: Strategy

    @property
    def full(self) -> bool:
        """Whether all of its slots are in use."""
        return self.kind == "slots" and self.slots is not None and self.in_use >= self.slots

    @property
    def label(self) -> str:
        """Name it for a person."""
        return f"limit {self.name!r}" + (f", key {self.key!r}" if self.key else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Why:
    """What keeps a job where it is. ``str()`` of it is the sentence.

    Attributes:
        id: The job's.
        reason: A word that stays the same: ``ended``, ``running``, ``silent`` (its worker is),
            ``parents``, ``parent_failed``, ``scheduled``, ``retry``, ``limit``, ``rate``,
            ``worker_rate``, ``paused``, ``expired``, ``cancelled``, ``no_slot`` and ``replaced``
            (it is being ended for its limit), ``no_worker``, ``no_suitable_worker``, ``draining``,
            ``busy``, ``queued``, ``next``, ``parked``, ``nowhere``.
        text: One sentence for a person.
        state: Where it is in its life; None when no job of the id is there, only something stored.
        at: Time of the look, by the database's clock, as all times are.
        name: What it is a call of.
        queue: Its queue.
        since: Since when the reason holds, where that is known.
        until: When it will be over, where that is known.
        worker: Name of the worker that runs it.
        host: That worker's.
        pid: That worker's process.
        retries: How often it was retried, where whoever reads its payload says so.
        delivery: Which run this is; more than 1 when earlier ones ended without an outcome.
        cancel_at: When it was asked to end; it has not obeyed yet.
        expires_at: When it expires, or did.
        parents: What it waits for still, the first ten.
        parents_total: How many there were at first.
        parents_pending: How many have not ended.
        parents_failed: How many ended otherwise than completed.
        line: The line of a limit it waits in, full or not.
        holders: Who holds the slots of the line, the first ten.
        ahead: Jobs that are before it in its queue; `COUNTED` means that or more.
        last_claim: When one of its queue that still runs was claimed last.
        workers: Live workers that could claim it; when there are none, all that live.
        wants: What it asks of a worker, encoded.
        payload: Of one that runs again: the beginning of what it is sent with.
        result: What is stored of one that was cancelled.
    """

    id: str
    reason: str
    text: str
    state: State | None
    at: datetime
    name: str | None = None
    queue: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    worker: str | None = None
    host: str | None = None
    pid: int | None = None
    delivery: int | None = None
    retries: int | None = None
    cancel_at: datetime | None = None
    expires_at: datetime | None = None
    parents: tuple[Parent, ...] = ()
    parents_total: int = 0
    parents_pending: int = 0
    parents_failed: int = 0
    line: LineState | None = None
    holders: tuple[Holder, ...] = ()
    ahead: int | None = None
    last_claim: datetime | None = None
    workers: tuple[ServingWorker, ...] = ()
    wants: str = ""
    payload: bytes | None = None
    result: bytes | None = None

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values, as JSON can say them; without `payload` and `result`."""
        names = (field.name for field in fields(self) if field.name not in _BYTES)
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, State | Strategy):
        return value.name.lower()
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {key: _plain(item) for key, item in value._asdict().items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
