"""A run whose SQL commits together with its completion, on a connection of the pool process.

The run does its SQL on `Transaction.connection`, and `Transaction.record` ends it there: the fenced
delete of its running row, its result, what follows from it, and then the commit. Whoever has lost
the lease meanwhile finds that its token is not current any more, and nothing it did is there.

Nothing of the engine's is locked before that: heartbeats, cancelling and reclaiming go on while a
body works. From then to the commit the server ends a session whose client falls silent.

Promise P11 of docs/guarantees.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Self

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow, tuple_row

from pgcelery.engine.client import Client
from pgcelery.engine.columns import QueueKey
from pgcelery.engine.database import connect_as, load
from pgcelery.engine.errors import DatabaseUnavailable, NotCurrent
from pgcelery.engine.job import Job, Outcome, Recorded
from pgcelery.engine.outbox import ended_params
from pgcelery.engine.statements import Kind

_HOLD = 0.2  # of the lease: how long the running row may be locked by a client that is silent
_CANCEL_S = 1.0  # to ask the server to give up a statement that was left in the middle
_CAN_ROLL_BACK = (TransactionStatus.INTRANS, TransactionStatus.INERROR)


class RunConnection(psycopg.Connection[TupleRow]):
    """A psycopg connection whose transaction is a run's: the body does not end it.

    Raises:
        psycopg.ProgrammingError: `commit`, `rollback` and `close` while the run is on.
    """

    in_run = False

    def commit(self) -> None:
        """Refuse while a run is on."""
        self._not_in_run("committed")
        super().commit()

    def rollback(self) -> None:
        """Refuse while a run is on."""
        self._not_in_run("rolled back")
        super().rollback()

    def close(self) -> None:
        """Refuse while a run is on."""
        self._not_in_run("closed")
        super().close()

    def _not_in_run(self, what: str) -> None:
        if self.in_run:
            raise psycopg.ProgrammingError(
                f"the connection of a run cannot be {what} by its body: what it did commits with"
                " its completion, and is rolled back if it raises; `with connection.transaction():`"
                " makes a savepoint"
            )


class Transactions:
    """Makes transactions for runs; keeps their connections for the next ones.

    Thread-safe; survives a fork. A transaction itself is for one thread.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        name = f"{client.config.application_name} run"  # so that an operator can tell them apart
        self.config = replace(client.config, application_name=name)
        self._pid = os.getpid()
        self._idle: list[RunConnection] = []
        self._inherited: list[RunConnection] = []

    def begin(self, token: int = 0) -> Transaction:
        """Begin the transaction of a run; one without a token records nothing.

        Raises:
            DatabaseUnavailable: The server cannot be reached; nothing was begun.
        """
        if self._pid != os.getpid():  # the parent's are neither used nor closed here
            self._pid = os.getpid()
            self._inherited += self._idle
            self._idle = []
        while True:
            try:
                conn, reused = self._idle.pop(), True
            except IndexError:
                conn, reused = self._connect(), False
            try:
                with _unavailable(conn):
                    conn.execute(load("runs/begin", self.config.schema), [str(token)])
            except DatabaseUnavailable:
                conn.close()
                if not reused:
                    raise
                continue
            conn.in_run = True
            return Transaction(self, conn)

    def _connect(self) -> RunConnection:
        conn = connect_as(RunConnection, self.config, autocommit=False)
        conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        return conn

    def record_params(self, job: Job, outcome: Outcome) -> list[Any]:
        """Build the arguments of ``record_v1``. Queues are made in transactions of their own."""

        def intern(key: QueueKey) -> int:
            return self._client.intern_places([key])[key]

        hold_ms = max(1, round(self.config.lease_s * _HOLD * 1000))
        after = ended_params([outcome], intern)[5:]
        return [job.token, job.id, outcome.result, outcome.ttl_s, hold_ms, *after]

    def give_back(self, conn: RunConnection) -> None:
        """Keep a connection whose transaction is over; close any other."""
        if self._pid != os.getpid():  # the body forked, and this is the copy
            self._inherited.append(conn)
            return
        conn.in_run = False
        status = conn.info.transaction_status
        with suppress(psycopg.Error):
            if status in _CAN_ROLL_BACK:
                conn.rollback()
                status = conn.info.transaction_status
            elif status is TransactionStatus.ACTIVE:
                conn.cancel_safe(timeout=_CANCEL_S)
        if status is not TransactionStatus.IDLE:
            conn.close()
            return
        conn.row_factory, conn.cursor_factory = tuple_row, psycopg.Cursor
        self._idle.append(conn)

    def close(self) -> None:
        """Close what lies idle. Usable again afterwards."""
        while self._pid == os.getpid() and self._idle:
            self._idle.pop().close()


class Transaction:
    """One run's transaction; `close` undoes it, unless it was committed."""

    def __init__(self, owner: Transactions, connection: RunConnection) -> None:
        self.connection = connection  #: for the body; refuses to be committed by it
        self._owner = owner
        self._over = False

    @property
    def broken(self) -> bool:
        """Whether its connection is lost, and what was done on it with that."""
        return self.connection.closed

    def record(self, job: Job, outcome: Outcome) -> Recorded:
        """Record that the run completed, and commit; `close` still has to be called.

        Raises:
            NotCurrent: The token is not current any more. Nothing the run did is there.
            DatabaseUnavailable: The answer is missing, or the server refused for a passing reason.
                If the commit took place all the same, nothing can be recorded for the token again.
            psycopg.Error: The server refused. Nothing the run did is there.
        """
        params = self._owner.record_params(job, outcome)
        query = load("runs/record", self._owner.config.schema)
        with _unavailable(self.connection):
            cursor = psycopg.RawCursor(self.connection, row_factory=tuple_row)
            try:
                rows = cursor.execute(query, params).fetchall()
            except psycopg.errors.InvalidTransactionState as exc:
                message = f"{exc.diag.message_primary}; what it did before that is there"
                raise psycopg.ProgrammingError(message) from None
            if any(kind == Kind.LATE for kind, *_ in rows):
                raise NotCurrent(f"run {job.token} of job {job.id} is not current any more")
            self.commit()
        return Recorded(outcome, tuple(rows))

    def commit(self) -> None:
        """Commit what the run did."""
        self.connection.in_run = False
        self.connection.commit()

    def close(self) -> None:
        """Roll back what was not committed; the connection may serve another run."""
        if not self._over:
            self._over = True
            self._owner.give_back(self.connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


@contextmanager
def _unavailable(conn: RunConnection) -> Iterator[None]:
    """Turn what trying again can mend into the engine's error."""
    try:
        yield
    except psycopg.Error as exc:
        if conn.closed or isinstance(exc, psycopg.OperationalError | psycopg.InterfaceError):
            raise DatabaseUnavailable(str(exc).strip()) from exc
        raise
