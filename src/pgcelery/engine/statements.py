"""The statements of a node, and the reading of their rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import IntEnum
from struct import Struct
from typing import NamedTuple

from pgcelery.engine.arrays import (
    BigintArray,
    BooleanArray,
    ByteaArray,
    DoubleArray,
    IntegerArray,
    SmallintArray,
    TextArray,
    TimestampArray,
)
from pgcelery.engine.database import load
from pgcelery.engine.job import Job, Lost, Outcome, State
from pgcelery.engine.link import Statement

_INT2, _INT4, _INT8, _FLOAT8, _TEXT, _JSONB = 21, 23, 20, 701, 25, 3802
_BYTEA, _TIMESTAMPTZ = 17, 1184
_JOB_COLUMNS = (
    TextArray.oid,
    IntegerArray.oid,
    SmallintArray.oid,
    TextArray.oid,
    ByteaArray.oid,
    TimestampArray.oid,
    DoubleArray.oid,
    TimestampArray.oid,
    SmallintArray.oid,
    DoubleArray.oid,
    IntegerArray.oid,
    SmallintArray.oid,
    TextArray.oid,
    TextArray.oid,
    DoubleArray.oid,
    TextArray.oid,
    TextArray.oid,
)
_ONE_JOB = (_TEXT, _INT4, _INT2, _TEXT, _BYTEA, _TIMESTAMPTZ, _INT2, _FLOAT8, _INT2)


class Kind(IntEnum):
    """First column of what a node's functions return."""

    CLAIM = 0
    LATE = 2
    CANCEL = 3
    NEXT_DUE = 4
    WAITER = 5
    MESSAGE = 6
    UPKEEP = 7
    QUEUE_WOKEN = 8
    UNKNOWN_WORKER = 9
    RUNS_STRUCK = 10


_KINDS = {int(kind): kind for kind in Kind}  # `Kind(number)` takes ten times as long
_CLAIM = Kind.CLAIM.to_bytes(4, "big")
_CLAIM_NUMBERS = Struct(">qiiii").unpack


class Flag(IntEnum):
    """Bits of a claim's flags."""

    AWAITED = 1
    GATED = 2
    PARENT_FAILED = 4
    CANCELLED = 8
    EXPIRED = 16
    LOST = 32
    NO_SLOT = 2048
    REPLACED = 4096


class Row(NamedTuple):
    """A decoded row of `step`, `maintain`, or one of the shorter ones padded with None."""

    kind: Kind
    job_id: str | None = None
    token: int | None = None
    queue_id: int | None = None
    name: str | None = None
    payload: bytes | None = None
    priority: int | None = None
    delivery: int | None = None
    flags: int | None = None
    fed_by: str | None = None
    worker: str | None = None  #: who had the run and fell silent
    pid: int | None = None  #: of that one

    @property
    def silence(self) -> str:
        """Say who fell silent."""
        if self.worker is None:
            return "its worker fell silent"
        return f"worker {self.worker} (pid {self.pid}) fell silent"


class Statements(NamedTuple):
    """What a node sends, for one schema."""

    step: Statement
    reschedule: Statement
    beat: Statement
    maintain: Statement
    register: Statement
    inform: Statement
    places: Statement
    leave: Statement
    reclaim: Statement
    unclaim: Statement
    await_end: Statement
    ended: Statement
    withhold: Statement
    draw: Statement
    tell: Statement
    outlive: Statement
    limit: Statement
    listen: Statement
    enqueue: Statement
    enqueue_one: Statement
    enqueue_led: Statement
    tell_of_one: Statement
    offer: Statement
    withdraw: Statement
    stand: Statement


def statements(schema: str) -> Statements:
    """Build the statements of a node, and those by which a client enqueues, for a schema."""

    def make(name: str, *oids: int) -> Statement:
        return Statement(name.encode(), load(f"nodes/{name}", schema), oids)

    def of_client(name: str, *oids: int) -> Statement:
        return Statement(name.encode(), _numbered(load(name, schema)), oids)

    quoted = schema.replace('"', '""')
    return Statements(
        step=make(
            "step",
            _INT4,
            _INT4,
            IntegerArray.oid,
            IntegerArray.oid,
            DoubleArray.oid,
            _TEXT,
            _FLOAT8,
            BigintArray.oid,
            TextArray.oid,
            SmallintArray.oid,
            ByteaArray.oid,
            DoubleArray.oid,
            BigintArray.oid,
            *_JOB_COLUMNS,
            BigintArray.oid,
            TextArray.oid,
        ),
        reschedule=make(
            "reschedule",
            _INT4,
            BigintArray.oid,
            TextArray.oid,
            SmallintArray.oid,
            ByteaArray.oid,
            IntegerArray.oid,
            SmallintArray.oid,
            TimestampArray.oid,
            DoubleArray.oid,
            TimestampArray.oid,
            BooleanArray.oid,
            ByteaArray.oid,
        ),
        beat=make("beat", _INT4, _FLOAT8),
        maintain=make("maintain", _INT4, _FLOAT8, _INT4),
        register=make("register", _TEXT, _TEXT, _INT4, TextArray.oid, _JSONB, _FLOAT8),
        inform=make("inform", _INT4, TextArray.oid, _JSONB),
        places=make("places", IntegerArray.oid, _TEXT, _INT8),
        leave=make("leave", _INT4),
        reclaim=make("reclaim", _INT4, BigintArray.oid),
        unclaim=make("unclaim", BigintArray.oid),
        await_end=make("await_end", _INT8),
        ended=make("ended", _TEXT, _INT8),
        withhold=make("withhold", BigintArray.oid, IntegerArray.oid, TextArray.oid),
        draw=make("draw", _INT4, IntegerArray.oid, IntegerArray.oid),
        tell=make("tell", _TEXT, _TEXT),
        outlive=make("outlive", _INT4, _INT8),
        limit=make("limit", _TEXT),
        listen=Statement(b"listen", f'listen "{quoted}"'.encode(), ()),
        enqueue=of_client("jobs/enqueue", *_JOB_COLUMNS),
        enqueue_one=of_client("jobs/enqueue_one", *_ONE_JOB),
        enqueue_led=of_client("jobs/enqueue_led", _TEXT, _INT4, *_JOB_COLUMNS),
        tell_of_one=of_client("jobs/tell_of_one", _TEXT, _TEXT, _TEXT),
        offer=make("offer", _INT4, _TEXT, IntegerArray.oid, _INT4, _FLOAT8),
        withdraw=make("withdraw", _INT4),
        stand=make("stand", _TEXT),
    )


def _numbered(text: bytes) -> bytes:
    """Say ``$1``, ``$2``... where the driver's ``%s`` stands."""
    first, *rest = text.split(b"%s")
    return first + b"".join(b"$%d%s" % numbered for numbered in enumerate(rest, start=1))


def _int(cell: bytes | None) -> int | None:
    return None if cell is None else int.from_bytes(cell, "big", signed=True)


def _str(cell: bytes | None) -> str | None:
    return None if cell is None else cell.decode()


def _kind(cell: bytes | None) -> Kind:
    return _KINDS[_int(cell) or 0]


def wide_row(cells: list[bytes | None]) -> Row:
    """Read a row of step_v4."""
    kind, job_id, token, queue_id, name, payload, priority, delivery, flags, fed_by = cells
    if (
        kind == _CLAIM
        and job_id
        and token
        and queue_id
        and name
        and priority
        and delivery
        and flags
    ):
        # As below, in half the time.
        run, queue, level, nth, bits = _CLAIM_NUMBERS(
            token + queue_id + priority + delivery + flags
        )
        fed = None if fed_by is None else fed_by.decode()
        return Row(
            Kind.CLAIM, job_id.decode(), run, queue, name.decode(), payload, level, nth, bits, fed
        )
    return Row(
        _kind(kind),
        _str(job_id),
        _int(token),
        _int(queue_id),
        _str(name),
        payload,
        _int(priority),
        _int(delivery),
        _int(flags),
        _str(fed_by),
    )


def upkeep_row(cells: list[bytes | None]) -> Row:
    """Read a row of maintain_v2."""
    *wide, worker, pid = cells
    return wide_row([*wide, None])._replace(worker=_str(worker), pid=_int(pid))


def outcome_row(cells: list[bytes | None]) -> Row:
    """Read a row of reschedule_v2."""
    kind, job_id, queue_id, name = cells
    return Row(_kind(kind), _str(job_id), None, _int(queue_id), _str(name))


def outcome_rows(
    news: Iterable[tuple[int, str | None, int | None, str | None]],
) -> list[Row]:
    """Read what a run has heard that records its outcome itself: rows like those."""
    return [Row(Kind(kind), id, None, queue_id, name) for kind, id, queue_id, name in news]


def beat_row(cells: list[bytes | None]) -> Row:
    """Read a row of beat_v2."""
    kind, job_id, token, name, payload, priority, flags = cells
    what = _kind(kind)
    return Row(
        what,
        _str(job_id),
        _int(token),
        _int(flags) if what is Kind.QUEUE_WOKEN else None,
        _str(name),
        payload,
        _int(priority),
        None,
        _int(flags),
    )


def ended_outcome(job: Job, cells: list[bytes | None]) -> Outcome:
    """Read what a run is recorded to have come to."""
    state, result = cells
    return Outcome(job.id, job.token, State(_int(state) or 0), result)


def job(row: Row, queue: str, ended: Mapping[str, Outcome] | None = None) -> Job:
    """Make the job of a claim; `ended` are the outcomes that came before it in its step."""
    assert row.job_id is not None
    assert row.token is not None
    assert row.name is not None
    assert row.payload is not None
    flags = row.flags or 0
    parent = (ended or {}).get(row.fed_by or "")
    priority, delivery = row.priority or 0, row.delivery or 1
    if not flags and parent is None:  # nearly always
        return Job(row.job_id, row.token, queue, row.name, row.payload, priority, delivery)
    return Job(
        row.job_id,
        row.token,
        queue,
        row.name,
        row.payload,
        priority,
        delivery,
        expired=bool(flags & Flag.EXPIRED),
        lost=bool(flags & Flag.LOST),
        parent_failed=bool(flags & Flag.PARENT_FAILED),
        fed=None if parent is None else (parent.id, int(parent.state), parent.result),
        awaited=bool(flags & Flag.AWAITED),
        gated=bool(flags & Flag.GATED),
    )


def lost(job: Job, row: Row) -> Lost | None:
    """Say why the job of a claim is to be ended and not run; None for one that is to run."""
    flags = row.flags
    if not flags:
        return None
    if flags & Flag.CANCELLED:
        return Lost("cancelled", "cancelled")
    if job.lost:
        return Lost("worker_lost", row.silence, row.pid)
    if flags & Flag.NO_SLOT:
        return Lost("no_slot", "no slot of its limit was free")
    if flags & Flag.REPLACED:
        return Lost("replaced", "a newer one took its place")
    if job.expired:
        return Lost("expired", "it expired before it began")
    return None
