"""Connections: opened when needed, kept for reuse, dropped after a fork.

A pool of our own and not psycopg_pool: that one connects in background threads and lets callers
wait for them, so a database that is down shows as a time-out after half a minute. Here the caller
connects, and is told at once.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import resources
from math import inf
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, TypeVar

import psycopg
from psycopg import sql as pgsql
from psycopg.adapt import AdaptersMap
from psycopg.rows import TupleRow

from pgcelery.engine import arrays
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.errors import (
    DatabaseUnavailable,
    EngineError,
    NotPermitted,
    PoolTimeout,
    SchemaMismatch,
)
from pgcelery.engine.exchange import Connection, Request, exchange, settle
from pgcelery.engine.link import Rows
from pgcelery.engine.tcp import tcp_options

T = TypeVar("T")
ConnectionT = TypeVar("ConnectionT", bound=psycopg.Connection[TupleRow])

#: SQLSTATEs that say that this server, or this connection, is not the one to talk to: it goes down
#: or comes up, is full, or only reads because another one is the primary now
AWAY = ("08", "25006", "25P03", "25P04", "53300", "57P")
#: SQLSTATEs of a transaction that another one got in the way of: it is undone, and worth repeating
OVERTAKEN = ("40001", "40P01")

_UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.IdleInTransactionSessionTimeout,
    psycopg.errors.TransactionTimeout,
)
_TRIES = 10  # of a transaction that others got in the way of
_AWAY_S = (0.05, 10.0)  # first and slowest pause of who waits for a database that is away
_PAUSE_S = 0.02  # between the first two of them; then longer
_OPEN, _IDLE = psycopg.pq.ConnStatus.OK, psycopg.pq.TransactionStatus.IDLE
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
    return connect_as(Connection, config, autocommit=autocommit, adapters=_own_adapters())


def _adapters() -> AdaptersMap:
    """Make a map of what applications had the driver adapt until now, and of our arrays."""
    adapters = AdaptersMap(psycopg.adapters)
    arrays.register(adapters)
    return adapters


_own_adapters = cache(_adapters)  # one for all connections that no application sees


def connect_as(
    kind: type[ConnectionT],
    config: EngineConfig,
    *,
    autocommit: bool,
    adapters: AdaptersMap | None = None,
) -> ConnectionT:
    """Open one that is of a class made of psycopg's.

    Args:
        kind: The class.
        config: Where.
        autocommit: Whether each statement is a transaction.
        adapters: What it adapts; what applications want by now, unless given.

    Raises:
        DatabaseUnavailable: The server cannot be reached or refuses; trying again can help.
    """
    try:
        conn = kind.connect(
            config.dsn,
            autocommit=autocommit,
            connect_timeout=max(1, round(config.connect_timeout_s)),
            application_name=config.application_name,
            **tcp_options(config),
            # Behind a transaction pooler a statement prepared here may be unknown there.
            prepare_threshold=2 if config.listen else None,
            context=adapters or _adapters(),
        )
    except psycopg.OperationalError as exc:
        raise DatabaseUnavailable(str(exc).strip()) from exc
    except psycopg.ProgrammingError as exc:
        raise DatabaseUnavailable(f"not a usable database URL: {exc}") from exc
    return conn


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into the engine's, and nothing else."""
    try:
        yield
    except psycopg.Error as exc:
        error = _in_our_words(exc)
        if error is None:
            raise
        raise error from exc


def _in_our_words(exc: psycopg.Error) -> EngineError | None:
    if isinstance(exc, _NO_SCHEMA):
        return SchemaMismatch(
            "the database has no pgcelery schema of this release; run `pgcelery db migrate`"
        )
    if isinstance(exc, psycopg.errors.InsufficientPrivilege):
        return NotPermitted(f"this role of the database may not do that: {exc}")
    if isinstance(exc, _UNAVAILABLE):
        return DatabaseUnavailable(str(exc).strip())
    return None


def _overtaken(exc: DatabaseUnavailable) -> bool:
    return isinstance(exc.__cause__, psycopg.Error) and exc.__cause__.sqlstate in OVERTAKEN


def outlived(act: Callable[[], T], deadline: float | None) -> T:
    """Do something that only reads, again after pauses that grow while the database is away.

    Args:
        act: What to do.
        deadline: Monotonic time of the last try; None for never.

    Raises:
        DatabaseUnavailable: It still is at the deadline.
    """
    pause_s = _AWAY_S[0]
    while True:
        try:
            return act()
        except DatabaseUnavailable:
            left_s = inf if deadline is None else deadline - time.monotonic()
            if left_s <= 0:
                raise
            threading.Event().wait(min(left_s, pause_s * random.uniform(0.7, 1.0)))
            pause_s = min(pause_s * 2, _AWAY_S[1])


def unless_overtaken(act: Callable[[], T]) -> T:
    """Do something that the database undoes if it fails, again while deadlocks hit it."""
    for n in range(1, _TRIES + 1):
        try:
            return act()
        except DatabaseUnavailable as exc:
            if n == _TRIES or not _overtaken(exc):
                raise
        threading.Event().wait(_PAUSE_S * n * random.uniform(0.5, 1.5))
    raise AssertionError("the last try returns or raises")


def _settled(conn: Connection) -> bool:
    """Read what it still has to say; whether it is well."""
    try:
        settle(conn)
    except psycopg.Error:
        conn.close()
    return not conn.closed


class _Loan:
    """What `Connections.lend` gives: plain methods, as a generator costs every statement more."""

    def __init__(self, owner: Connections) -> None:
        self._owner = owner

    def __enter__(self) -> Connection:
        self._pid = os.getpid()
        self._slots, self._conn = self._owner._borrow()
        return self._conn

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        error = _in_our_words(exc) if isinstance(exc, psycopg.Error) else exc
        if self._pid == os.getpid():
            if isinstance(error, DatabaseUnavailable):
                self._conn.close()  # another one may reach a server that is well
            self._owner._give_back(self._conn)
            self._slots.put(None)
        if error is not None and error is not exc:
            raise error from exc


class Connections:
    """A bounded stack of connections; the one used last is used next. Thread-safe."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._idle: list[Connection] = []
        # A queue of tokens: unlike threading's semaphores it is written in C.
        self._slots: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._config.pool_size):
            self._slots.put(None)
        self._inherited: list[Connection] = getattr(self, "_inherited", [])

    def _survive_fork(self) -> None:
        # A child must neither use nor close what it shares with its parent: closing sends a
        # goodbye on the parent's session. Keeping the objects alive keeps them from doing so.
        if self._pid != os.getpid():
            orphans = [*self._inherited, *self._idle]
            self._reset()
            self._inherited = orphans

    def lend(self) -> _Loan:
        """Lend an autocommit connection for a ``with`` block; errors leave as the engine's.

        Raises:
            PoolTimeout: All are in use for `pool_timeout_s`.
            DatabaseUnavailable: Connecting failed, or the connection broke while lent.
        """
        return _Loan(self)

    def _borrow(self) -> tuple[SimpleQueue[None], Connection]:
        if self._pid != os.getpid():
            self._survive_fork()
        slots, timeout_s = self._slots, self._config.pool_timeout_s
        try:
            slots.get(timeout=None if timeout_s is None else max(0.0, timeout_s))
        except Empty:
            raise PoolTimeout(
                f"all {self._config.pool_size} database connections were in use for {timeout_s} s"
            ) from None
        try:
            while self._idle:
                conn = self._idle.pop()
                if conn.pgconn.status == _OPEN and (not conn.owed or _settled(conn)):
                    return slots, conn
            return slots, connect(self._config)
        except BaseException:
            slots.put(None)
            raise

    def _give_back(self, conn: Connection) -> None:
        status = conn.pgconn.transaction_status
        if status == _IDLE or (conn.owed and not conn.closed):
            self._idle.append(conn)
        else:
            conn.close()

    def run(self, query: bytes, params: Any = None) -> list[TupleRow]:
        """Run one statement that is safe to repeat, in its own transaction; return its rows.

        A connection that went stale while it lay idle is replaced and the statement sent again; so
        it is when another transaction got in its way (a deadlock).

        Raises:
            DatabaseUnavailable: Also on a new connection.
        """

        def execute(conn: Connection) -> list[TupleRow]:
            cursor = conn.execute(query, params, binary=True)
            return cursor.fetchall() if cursor.description else []

        return self._insisting(execute)

    def ask(self, first: Request, *others: Request) -> Rows:
        """Do the same by `exchange`, for what is sent all day."""
        prepare = self._config.listen
        if self._pid != os.getpid():
            self._survive_fork()
        reused = bool(self._idle)
        try:  # at first with as few frames as can be
            with _Loan(self) as conn:
                return exchange(conn, first, *others, prepare=prepare)
        except PoolTimeout:
            raise
        except DatabaseUnavailable as exc:
            if not _overtaken(exc):
                if not reused:
                    raise
                self.drop_idle()
        return self._insisting(lambda conn: exchange(conn, first, *others, prepare=prepare))

    def ask_both(self, first: Request, second: Request) -> tuple[Rows, Rows]:
        """Do so and wait for the second as well, of which there are no rows if it is refused."""
        prepare = self._config.listen

        def both(conn: Connection) -> tuple[Rows, Rows]:
            rows = exchange(conn, first, second, prepare=prepare)
            return rows, settle(conn)[0]

        return self._insisting(both)

    def _insisting(self, act: Callable[[Connection], T]) -> T:
        while True:
            self._survive_fork()
            reused = bool(self._idle)
            try:
                return self._unless_overtaken(act)
            except PoolTimeout:
                raise
            except DatabaseUnavailable:
                if not reused:
                    raise
                self.drop_idle()

    def once(self, act: Callable[[Connection], T]) -> T:
        """Do something by a connection that lies idle, else by one that is closed after it.

        Raises:
            DatabaseUnavailable: As `run`.
        """
        self._survive_fork()
        if self._idle:
            return self._insisting(act)
        with connect(self._config) as conn, translated():
            return act(conn)

    def transact(self, act: Callable[[Connection], T]) -> T:
        """Do something in one transaction, from the start again when others got in its way.

        Raises:
            DatabaseUnavailable: Nothing was done; or, if the connection broke in the commit, all.
        """

        def whole(conn: Connection) -> T:
            with conn.transaction():
                return act(conn)

        return self._unless_overtaken(whole)

    def _unless_overtaken(self, act: Callable[[Connection], T]) -> T:
        def lent() -> T:
            with self.lend() as conn:
                return act(conn)

        return unless_overtaken(lent)

    def drop_idle(self) -> None:
        """Close what lies idle; connections that are lent stay."""
        while self._idle:
            self._idle.pop().close()

    def close(self) -> None:
        """Close idle connections. Usable again afterwards."""
        self._survive_fork()
        self.drop_idle()
