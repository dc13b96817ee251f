"""The statements of a node, and the reading of their rows."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
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
from pgcelery.engine.job import Job, Outcome
from pgcelery.engine.link import Statement

_INT4, _INT8, _FLOAT8, _TEXT, _JSONB = 23, 20, 701, 25, 3802
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
    withhold: Statement
    draw: Statement
    tell: Statement
    listen: Statement


def statements(schema: str) -> Statements:
    """Build the statements of a node for a schema."""

    def make(name: str, *oids: int) -> Statement:
        return Statement(name.encode(), load(f"nodes/{name}", schema), oids)

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
        withhold=make("withhold", BigintArray.oid, IntegerArray.oid, TextArray.oid),
        draw=make("draw", _INT4, IntegerArray.oid, IntegerArray.oid),
        tell=make("tell", _TEXT, _TEXT),
        listen=Statement(b"listen", f'listen "{quoted}"'.encode(), ()),
    )


def _int(cell: bytes | None) -> int | None:
    return None if cell is None else int.from_bytes(cell, "big", signed=True)


def _str(cell: bytes | None) -> str | None:
    return None if cell is None else cell.decode()


def wide_row(cells: list[bytes | None]) -> Row:
    """Read a row of step_v3 or, without its last column, maintain_v1."""
    kind, job_id, token, queue_id, name, payload, priority, delivery, flags, *fed_by = cells
    return Row(
        Kind(_int(kind) or 0),
        _str(job_id),
        _int(token),
        _int(queue_id),
        _str(name),
        payload,
        _int(priority),
        _int(delivery),
        _int(flags),
        _str(fed_by[0]) if fed_by else None,
    )


def outcome_row(cells: list[bytes | None]) -> Row:
    """Read a row of reschedule_v1."""
    kind, job_id, queue_id, name = cells
    return Row(Kind(_int(kind) or 0), _str(job_id), None, _int(queue_id), _str(name))


def beat_row(cells: list[bytes | None]) -> Row:
    """Read a row of beat_v2."""
    kind, job_id, token, name, payload, priority, flags = cells
    what = Kind(_int(kind) or 0)
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


def job(row: Row, queue: str, ended: Mapping[str, Outcome] | None = None) -> Job:
    """Make the job of a claim; `ended` are the outcomes that came before it in its step."""
    assert row.job_id is not None
    assert row.token is not None
    assert row.name is not None
    assert row.payload is not None
    flags = row.flags or 0
    parent = (ended or {}).get(row.fed_by or "")
    return Job(
        row.job_id,
        row.token,
        queue,
        row.name,
        row.payload,
        row.priority or 0,
        row.delivery or 1,
        expired=bool(flags & Flag.EXPIRED),
        lost=bool(flags & Flag.LOST),
        parent_failed=bool(flags & Flag.PARENT_FAILED),
        fed=None if parent is None else (parent.id, int(parent.state), parent.result),
        awaited=bool(flags & Flag.AWAITED),
        gated=bool(flags & Flag.GATED),
    )
