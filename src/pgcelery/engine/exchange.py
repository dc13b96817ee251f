"""Statements over a lent connection by libpq itself, for what applications send all day.

The driver makes a cursor, adapts each parameter and drives generators for each statement. That is
right for all but the enqueue: its parameters are binary arrays already, its answer is two more, and
half of the sender's processor time went into what stands between them and libpq.

Promise P22 of docs/guarantees.md.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import psycopg
from psycopg import pq
from psycopg.rows import TupleRow

from pgcelery.engine.link import Rows, Statement, cells

_THROWN_AWAY = psycopg.errors.InvalidSqlStatementName  # prepared once, and gone
_TEXTUAL = (25,)  # types of parameters that are handed over as they are said: text
_CANCEL_S = 2.0

Request = tuple[Statement, Sequence[bytes | None]]


class Connection(psycopg.Connection[TupleRow]):
    """A connection that knows which of our statements are prepared on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known: set[bytes] = set()


def exchange(conn: Connection, first: Request, *others: Request, prepare: bool = True) -> Rows:
    """Run statements in one round trip, each in a transaction of its own; return the first's rows.

    Those after the first are asked for and not insisted on: their refusal is nobody's concern.

    Args:
        conn: Idle, in autocommit mode. It is closed if this is interrupted.
        first: A statement, and its parameters in binary, or as text where they are not arrays.
        others: More of them, run whether or not the first is refused.
        prepare: Whether to prepare them; not behind a transaction pooler.

    Raises:
        psycopg.Error: The first was refused, or the connection broke.
    """
    try:
        try:
            return _once(conn, (first, *others), prepare)
        except _THROWN_AWAY:
            return _once(conn, (first, *others), prepare)
    except BaseException as exc:
        if not isinstance(exc, psycopg.Error):  # Ctrl-C: what it asked for should not come true
            with suppress(psycopg.Error):
                conn.cancel_safe(timeout=_CANCEL_S)
            conn.close()
        raise


def _once(conn: Connection, requests: Sequence[Request], prepare: bool) -> Rows:
    pg = conn.pgconn
    if len(requests) == 1 and (not prepare or requests[0][0].name in conn.known):
        _send(conn, *requests[0], prepare)  # what a pipeline costs buys nothing here
        return _rows(conn, requests, _answers(pg, None))
    pg.enter_pipeline_mode()
    for statement, params in requests:
        _send(conn, statement, params, prepare)
        pg.pipeline_sync()
    answers = _answers(pg, len(requests))
    pg.exit_pipeline_mode()
    return _rows(conn, requests, answers)


def _rows(
    conn: Connection, requests: Sequence[Request], answers: list[list[pq.abc.PGresult]]
) -> Rows:
    """Give the rows of the first, or raise its refusal; note which statements are known now."""
    rows: Rows = []
    for place, results in enumerate(answers):
        for result in results:
            if result.status == pq.ExecStatus.COMMAND_OK:
                conn.known.add(requests[place][0].name)
            elif result.status == pq.ExecStatus.TUPLES_OK and place == 0:
                rows = cells(result)
            elif result.status == pq.ExecStatus.FATAL_ERROR:
                error = psycopg.errors.error_from_result(result, encoding=conn.info.encoding)
                if isinstance(error, _THROWN_AWAY):
                    conn.known.discard(requests[place][0].name)
                if place == 0:
                    raise error
    return rows


def _send(
    conn: Connection, statement: Statement, params: Sequence[bytes | None], prepare: bool
) -> None:
    pg, (name, _, oids) = conn.pgconn, statement
    formats = _formats(oids)
    if prepare:
        if name not in conn.known:
            pg.send_prepare(name, statement.text, oids)
        pg.send_query_prepared(name, params, formats, result_format=pq.Format.BINARY)
    else:
        pg.send_query_params(statement.text, params, oids, formats, result_format=pq.Format.BINARY)


@cache
def _formats(oids: tuple[int, ...]) -> list[int]:
    return [int(oid not in _TEXTUAL) for oid in oids]


def _answers(pg: pq.abc.PGconn, count: int | None) -> list[list[pq.abc.PGresult]]:
    """Send what is buffered, and gather results until every statement's transaction has ended.

    Args:
        pg: The connection.
        count: Statements in the pipeline; None for a single one without.
    """
    waiting = select.poll()
    waiting.register(pg.socket, select.POLLIN)
    answers: list[list[pq.abc.PGresult]] = [[]]
    while pg.flush():
        waiting.modify(pg.socket, select.POLLIN | select.POLLOUT)
        waiting.poll()
        pg.consume_input()
    waiting.modify(pg.socket, select.POLLIN)
    while True:
        while pg.is_busy():
            waiting.poll()
            pg.consume_input()
        result = pg.get_result()
        if result is None:
            if pg.status == pq.ConnStatus.BAD:
                raise psycopg.OperationalError(pg.get_error_message())
            if count is None:
                return answers
        elif result.status == pq.ExecStatus.PIPELINE_SYNC:
            if len(answers) == count:
                return answers
            answers.append([])
        else:
            answers[-1].append(result)
