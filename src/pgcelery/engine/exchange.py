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

# Enumerations' members, which take longer to look up where they are used.
_BAD, _BINARY = pq.ConnStatus.BAD, pq.Format.BINARY
_TUPLES, _DONE = pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK
_FATAL, _SYNC = pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.PIPELINE_SYNC

Request = tuple[Statement, Sequence[bytes | None]]


class Connection(psycopg.Connection[TupleRow]):
    """A connection that knows which of our statements are prepared on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.known: set[bytes] = set()
        #: sent, and their answers not read: `settle` comes before anything else
        self.owed: tuple[Request, ...] = ()


def exchange(conn: Connection, first: Request, *others: Request, prepare: bool = True) -> Rows:
    """Run statements in a row, each in a transaction of its own; return the first's rows.

    It returns when the first is done. Those after it are asked for and not insisted on: their
    refusal is nobody's concern, and their answers wait for `settle`.

    Args:
        conn: Idle, settled and in autocommit mode. It is closed if this is interrupted.
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
            settle(conn)
            return _once(conn, (first, *others), prepare)
    except BaseException as exc:
        _interrupted(conn, exc)
        raise


class Parts:
    """Statements in one transaction, each run while its caller makes the next.

    Args:
        conn: As for `exchange`. To be closed unless `commit` returns, which undoes everything.
    """

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        conn.pgconn.enter_pipeline_mode()

    def send(self, request: Request) -> None:
        """Have a statement run; it is prepared."""
        conn = self._conn
        _send(conn, *request, True)
        conn.known.add(request[0].name)
        if conn.pgconn.flush():
            _flush(conn.pgconn)

    def commit(self) -> list[Rows]:
        """Give the rows of all.

        Raises:
            psycopg.Error: One was refused, or the connection broke.
        """
        pg = self._conn.pgconn
        pg.pipeline_sync()
        (results,) = _answers(pg, 1)
        for result in results:
            if result.status == _FATAL:
                raise psycopg.errors.error_from_result(result, encoding=self._conn.info.encoding)
        pg.exit_pipeline_mode()
        return [cells(result) for result in results if result.status == _TUPLES]


def settle(conn: Connection) -> list[Rows]:
    """Read the answers that an `exchange` did not wait for. Closes it if this is interrupted.

    Returns:
        The rows of each; none of one that was refused.

    Raises:
        psycopg.Error: The connection broke.
    """
    if not conn.owed:
        return []
    try:
        answers = _answers(conn.pgconn, len(conn.owed))
        conn.pgconn.exit_pipeline_mode()
    except BaseException as exc:
        _interrupted(conn, exc)
        raise
    owed, conn.owed = conn.owed, ()
    return [_read(conn, *pair)[0] for pair in zip(owed, answers, strict=True)]


def _interrupted(conn: Connection, exc: BaseException) -> None:
    if not isinstance(exc, psycopg.Error):  # Ctrl-C: what it asked for should not come true
        with suppress(psycopg.Error):
            conn.cancel_safe(timeout=_CANCEL_S)
        conn.close()


def _once(conn: Connection, requests: tuple[Request, ...], prepare: bool) -> Rows:
    pg, first = conn.pgconn, requests[0]
    if len(requests) == 1 and (not prepare or first[0].name in conn.known):
        _send(conn, *first, prepare)  # what a pipeline costs buys nothing here
        (results,) = _answers(pg, None)
    else:
        pg.enter_pipeline_mode()
        for request in requests:
            _send(conn, *request, prepare)
            pg.pipeline_sync()
        (results,) = _answers(pg, 1)
        conn.owed = requests[1:]
        if not conn.owed:
            pg.exit_pipeline_mode()
    rows, error = _read(conn, first, results)
    if error is not None:
        raise error
    return rows


def _read(
    conn: Connection, request: Request, results: list[pq.abc.PGresult]
) -> tuple[Rows, psycopg.Error | None]:
    """Give the rows of a statement, or its refusal; note whether it is prepared now."""
    rows: Rows = []
    for result in results:
        status = result.status
        if status == _TUPLES:
            alone = result.ntuples == result.nfields == 1  # as what is asked all day answers
            rows = [[result.get_value(0, 0)]] if alone else cells(result)
        elif status == _DONE:
            conn.known.add(request[0].name)
        elif status == _FATAL:
            error = psycopg.errors.error_from_result(result, encoding=conn.info.encoding)
            if isinstance(error, _THROWN_AWAY):
                conn.known.discard(request[0].name)
            return [], error
    return rows, None


def _send(
    conn: Connection, statement: Statement, params: Sequence[bytes | None], prepare: bool
) -> None:
    pg, (name, _, oids) = conn.pgconn, statement
    formats = _formats(oids)
    if prepare:
        if name not in conn.known:
            pg.send_prepare(name, statement.text, oids)
        pg.send_query_prepared(name, params, formats, result_format=_BINARY)
    else:
        pg.send_query_params(statement.text, params, oids, formats, result_format=_BINARY)


@cache
def _formats(oids: tuple[int, ...]) -> list[int]:
    return [int(oid not in _TEXTUAL) for oid in oids]


def _answers(pg: pq.abc.PGconn, count: int | None) -> list[list[pq.abc.PGresult]]:
    """Send what is buffered, and gather results until the transactions of statements have ended.

    Args:
        pg: The connection.
        count: Of how many statements in the pipeline; None for a single one without.
    """
    answers: list[list[pq.abc.PGresult]] = [[]]
    if pg.flush():
        _flush(pg)
    waiting = None
    while True:
        while pg.is_busy():
            if waiting is None:
                waiting = select.poll()
                waiting.register(pg.socket, select.POLLIN)
            waiting.poll()
            pg.consume_input()
        result = pg.get_result()
        if result is None:
            if pg.status == _BAD:
                raise psycopg.OperationalError(pg.get_error_message())
            if count is None:
                return answers
        elif result.status == _SYNC:
            if len(answers) == count:
                return answers
            answers.append([])
        else:
            answers[-1].append(result)


def _flush(pg: pq.abc.PGconn) -> None:
    """Send what the socket does not take at once, reading what comes meanwhile."""
    waiting = select.poll()
    waiting.register(pg.socket, select.POLLIN | select.POLLOUT)
    while pg.flush():
        waiting.poll()
        pg.consume_input()
