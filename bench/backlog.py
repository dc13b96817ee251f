"""Millions of waiting tasks in a minute: copies of one that was sent, inserted by SQL.

They differ from it by id, number, place in the order and, if asked for, queue, and lie where an
enqueue would have put them: a row in jobs, a row in ready. Only the wake-up is left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

FIRST, NUMBERS = 100_000, 900_000  #: numbers have six digits, as the template's, and come round
TEMPLATE = 123_456  #: the number of the task that is copied
_AT_ONCE = 200_000


def keep_template(dsn: str) -> None:
    """Take the one task that waits out of its tables, and remember it."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("create schema bench")
        for table in ("ready", "jobs"):
            conn.execute(f"create table bench.{table} as table pgcelery.{table}")
            conn.execute(f"delete from pgcelery.{table}")


def fill(dsn: str, n: int, queues: Sequence[int] = ()) -> None:
    """Have `n` copies of the template wait, with numbers from `FIRST` on.

    Args:
        queues: Ids of those they are dealt out to; none: that of the template.
    """
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set synchronous_commit = off")
        for start in range(0, n, _AT_ONCE):
            conn.execute(_statement(conn, queues, start, min(start + _AT_ONCE, n)))


def _statement(
    conn: psycopg.Connection[Any], queues: Sequence[int], start: int, end: int
) -> sql.Composed:
    queue: sql.Composable = sql.SQL("t.queue_id")
    if queues:
        listed = sql.Literal(list(queues))
        queue = sql.SQL("({}::int[])[1 + g.i % {}]").format(listed, sql.Literal(len(queues)))
    jobs: dict[str, sql.Composable] = {
        "id": sql.SQL("g.name"),
        "seq": sql.SQL("nextval(pg_get_serial_sequence('pgcelery.jobs', 'seq'))"),
        "queue_id": queue,
        "payload": _payload(conn),
        "created_at": sql.SQL("now()"),
    }
    ready: dict[str, sql.Composable] = {
        "seq": sql.SQL("b.seq"),
        "queue_id": sql.SQL("b.queue_id"),
        "job_id": sql.SQL("b.id"),
    }
    return sql.SQL("""
        with born as (
            insert into pgcelery.jobs ({}) overriding system value
            select {}
            from bench.jobs t,
                 (select i, gen_random_uuid()::text as name, ({} + i % {})::text as number
                  from generate_series({}, {}) i) as g
            returning *
        )
        insert into pgcelery.ready ({}) select {} from born b, bench.ready t
    """).format(
        *_columns(conn, "jobs", jobs),
        *map(sql.Literal, (FIRST, NUMBERS, start, end - 1)),
        *_columns(conn, "ready", ready),
    )


def _columns(
    conn: psycopg.Connection[Any], table: str, made: dict[str, sql.Composable]
) -> tuple[sql.Composable, sql.Composable]:
    """Names, and a value for each: what is made, else the template's."""
    found = conn.execute(f"select * from bench.{table} limit 0").description or []
    names = [column.name for column in found]
    values = [made.get(name, sql.SQL("t.") + sql.Identifier(name)) for name in names]
    comma = sql.SQL(", ")
    return comma.join(map(sql.Identifier, names)), comma.join(values)


def _payload(conn: psycopg.Connection[Any]) -> sql.Composable:
    """The template's bytes with its id and number replaced, as an expression."""
    row = conn.execute("select id, payload from bench.jobs").fetchone()
    assert row is not None
    one, payload = row[0].encode(), bytes(row[1])
    parts = re.split(b"(%s|%d)" % (re.escape(one), TEMPLATE), payload)
    assert parts.count(str(TEMPLATE).encode()) >= 1, "the task has not its number in its payload"
    made = [
        sql.SQL("convert_to(g.name, 'UTF8')")
        if part == one
        else sql.SQL("convert_to(g.number, 'UTF8')")
        if part == str(TEMPLATE).encode()
        else sql.Literal(part)
        for part in parts
    ]
    return sql.SQL(" || ").join(made)
