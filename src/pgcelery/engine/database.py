"""Connections: opened when needed, kept for reuse, dropped after a fork.

A pool of our own and not psycopg_pool: that one connects in background threads and lets callers
wait for them, so a database that is down shows as a time-out after half a minute. Here the caller
connects, and is told at once.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from typing import Any

import psycopg
from psycopg import sql as pgsql
from psycopg.rows import TupleRow

from pgcelery.engine import arrays
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.errors import DatabaseUnavailable, NotPermitted, PoolTimeout, SchemaMismatch

Connection = psycopg.Connection[TupleRow]

_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
)
_NO_SCHEMA = (
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.InvalidSchemaName,
)


@cache
def load(name: str, schema: str) -> bytes:
    """Read ``sql/<name>.sql`` with its schema prefix replaced by the quoted name."""
    text = resources.files("pgcelery.engine.sql").joinpath(f"{name}.sql").read_text("utf-8")
    return text.replace("pgcelery.", pgsql.Identifier(schema).as_string(None) + ".").encode()


def connect(config: EngineConfig, *, autocommit: bool = True) -> Connection:
    """Open one connection.

    Raises:
        DatabaseUnavailable: The server cannot be reached or refuses; trying again can help.
    """
    try:
        conn = psycopg.connect(
            config.dsn,
            autocommit=autocommit,
            connect_timeout=max(1, round(config.connect_timeout_s)),
            application_name=config.application_name,
            # Behind a transaction pooler a statement prepared here may be unknown there.
            prepare_threshold=2 if config.listen else None,
        )
    except psycopg.OperationalError as exc:
        raise DatabaseUnavailable(str(exc).strip()) from exc
    except psycopg.ProgrammingError as exc:
        raise DatabaseUnavailable(f"not a usable database URL: {exc}") from exc
    arrays.register(conn.adapters)
    return conn


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into the engine's, and nothing else."""
    try:
        yield
    except _NO_SCHEMA as exc:
        raise SchemaMismatch(
            "the database has no pgcelery schema of this release; run `pgcelery db migrate`"
        ) from exc
    except psycopg.errors.InsufficientPrivilege as exc:
        raise NotPermitted(f"this role of the database may not do that: {exc}") from exc
    except _UNAVAILABLE as exc:
        raise DatabaseUnavailable(str(exc).strip()) from exc


def _both(
    conn: Connection, query: bytes, params: Any, after: bytes, after_params: Any
) -> list[TupleRow]:
    with conn.pipeline() as pipeline:
        cursor = conn.execute(query, params, binary=True)
        pipeline.sync()  # ends the first transaction; nothing waits for the second's
        conn.execute(after, after_params)
    return cursor.fetchall()


class Connections:
    """A bounded stack of connections; the one used last is used next. Thread-safe."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Connection] = []
        self._slots = threading.BoundedSemaphore(self._config.pool_size)
        self._inherited: list[Connection] = getattr(self, "_inherited", [])

    def _survive_fork(self) -> None:
        # A child must neither use nor close what it shares with its parent: closing sends a
        # goodbye on the parent's session. Keeping the objects alive keeps them from doing so.
        if self._pid != os.getpid():
            orphans = [*self._inherited, *self._idle]
            self._reset()
            self._inherited = orphans

    @contextmanager
    def lend(self) -> Iterator[Connection]:
        """Lend an autocommit connection; errors leave as the engine's.

        Raises:
            PoolTimeout: All are in use for `pool_timeout_s`.
            DatabaseUnavailable: Connecting failed, or the connection broke while lent.
        """
        self._survive_fork()
        if not self._slots.acquire(timeout=self._config.pool_timeout_s):
            raise PoolTimeout(
                f"all {self._config.pool_size} database connections were in use"
                f" for {self._config.pool_timeout_s} s"
            )
        slots, pid = self._slots, self._pid
        conn: Connection | None = None
        try:
            conn = self._take()
            with translated():
                yield conn
        finally:
            if pid == os.getpid():
                if conn is not None:
                    self._give_back(conn)
                slots.release()

    def _take(self) -> Connection:
        while self._idle:
            conn = self._idle.pop()
            if not conn.closed:
                return conn
        return connect(self._config)

    def _give_back(self, conn: Connection) -> None:
        if conn.closed:
            return
        status = conn.info.transaction_status
        if status == psycopg.pq.TransactionStatus.IDLE:
            self._idle.append(conn)
        else:
            conn.close()

    def run(
        self, query: bytes, params: Any = None, *, then: tuple[bytes, Any] | None = None
    ) -> list[TupleRow]:
        """Run one statement that is safe to repeat, in its own transaction; return its rows.

        A connection that went stale while it lay idle is replaced and the statement sent again.

        Args:
            query: The statement.
            params: Its parameters.
            then: A second statement, sent along in the same round trip, in a transaction of its
                own after the first has committed; not run if that fails.

        Raises:
            DatabaseUnavailable: Also on a new connection.
        """
        while True:
            self._survive_fork()
            reused = bool(self._idle)
            try:
                with self.lend() as conn:
                    if then is not None:
                        return _both(conn, query, params, *then)
                    cursor = conn.execute(query, params, binary=True)
                    return cursor.fetchall() if cursor.description else []
            except PoolTimeout:
                raise
            except DatabaseUnavailable:
                if not reused:
                    raise
                self.drop_idle()

    def drop_idle(self) -> None:
        """Close what lies idle; connections that are lent stay."""
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """Close idle connections. Usable again afterwards."""
        self._survive_fork()
        self.drop_idle()
