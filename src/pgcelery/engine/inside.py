"""Jobs enqueued in a transaction of the sender's: on its connection, by its driver.

What can be wrong with the jobs or the connection is found out before anything is changed, so that a
refusal leaves the sender's transaction as it was. What the server refuses then aborts it, as any
failing statement does.

Promise P3 of docs/guarantees.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.rows import tuple_row

from pgcelery.engine import arrays
from pgcelery.engine.arrays import Array, TextArray
from pgcelery.engine.columns import QueueKey, columns, queue_key
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import Connections, load, translated
from pgcelery.engine.errors import DatabaseUnavailable, SchemaMismatch, WrongDatabase
from pgcelery.engine.job import NewJob

_Place = tuple[str, int, str]  # host, port and database, as libpq has them
_NO_SCHEMA = ("42P01", "42883", "3F000")  # as in database._NO_SCHEMA, for psycopg2


def is_driver_connection(conn: object) -> bool:
    """Whether it is a connection of psycopg, or of psycopg2."""
    return isinstance(conn, psycopg.Connection) or _is_psycopg2(conn)


def _is_psycopg2(conn: object) -> bool:
    if not hasattr(conn, "cursor"):
        return False
    return any(base.__module__.partition(".")[0] == "psycopg2" for base in type(conn).__mro__)


class Inside:
    """Enqueues on connections that are not the engine's own. Thread-safe, as far as those are."""

    def __init__(self, config: EngineConfig, connections: Connections) -> None:
        self._config = config
        self._connections = connections
        self._home: _Place | None = None
        self._same: set[_Place] = set()  # other ways to the same database

    def check(self, conn: Any) -> None:
        """Refuse a connection that cannot be used.

        Raises:
            TypeError: It is not one of psycopg or psycopg2.
            DatabaseUnavailable: It is closed, or the engine's own database cannot be reached.
            WrongDatabase: It is connected to another database than the engine.
        """
        if not is_driver_connection(conn):
            raise TypeError(
                f"conn must be a connection of psycopg or psycopg2, not {type(conn).__name__}"
            )
        if conn.closed:
            raise DatabaseUnavailable("conn is closed")
        place = _place(conn)
        if self._home is None:
            with self._connections.lend() as own:
                self._home = _place(own)
        if place == self._home or place in self._same:
            return
        query = load("jobs/home", self._config.schema)
        there, here = _fetch(conn, query, []), self._connections.run(query)[0]
        if there[2] is None or tuple(there) != tuple(here):
            lacks = f", which has no {self._config.schema} schema" if there[2] is None else ""
            raise WrongDatabase(
                f"conn is connected to database {place[2]!r} at {place[0]}:{place[1]}{lacks};"
                f" jobs are sent in database {self._home[2]!r} at {self._home[0]}:{self._home[1]}"
            )
        self._same.add(place)

    def enqueue(
        self, conn: Any, jobs: Sequence[NewJob], queue_ids: Mapping[QueueKey, int]
    ) -> tuple[list[str], list[str]]:
        """Insert jobs that were checked; gives what ``enqueue_v4`` does.

        Workers are told by the commit, which holds a lock of the whole server until it is on disk,
        as every commit does that notifies.
        """
        told = {f"q{queue_ids[queue_key(job)]}" for job in jobs if not job.parents}
        if any(gate.strategy for job in jobs for gate in job.gates):
            told.add("c")  # full workers, too, have to look who gives way to whom
        heard = self._config.listen and self._config.notify_inside
        params = [
            self._config.schema,
            TextArray.of(sorted(told) if heard else []),
            *columns(jobs, queue_ids),
        ]
        existing, holders, _ = _fetch(
            conn, load("jobs/enqueue_inside", self._config.schema), params
        )
        return existing, holders


def _place(conn: Any) -> _Place:
    info = conn.info
    return info.host or "", int(info.port or 0), info.dbname


def _fetch(conn: Any, query: bytes, params: Sequence[Any]) -> Sequence[Any]:
    """Run a statement of one row."""
    if isinstance(conn, psycopg.Connection):
        # Not what `conn.cursor` makes: that has the application's rows, and may bind by itself.
        with translated(), psycopg.Cursor(conn, row_factory=tuple_row) as cursor:
            arrays.register(cursor.adapters)
            row = cursor.execute(query, params, binary=True).fetchone()
    else:
        values = [arrays.literal(one) if isinstance(one, Array) else one for one in params]
        with _translated2(), conn.cursor() as cursor:
            cursor.execute(query, values)
            row = cursor.fetchone()
    assert row is not None
    return tuple(row.values()) if isinstance(row, Mapping) else tuple(row)


@contextmanager
def _translated2() -> Iterator[None]:
    """Do for psycopg2, which need not be installed, what `translated` does."""
    try:
        yield
    except Exception as exc:
        if getattr(exc, "pgcode", None) in _NO_SCHEMA:
            raise SchemaMismatch(
                "the database has no pgcelery schema of this release; run `pgcelery db migrate`"
            ) from exc
        if {base.__name__ for base in type(exc).__mro__} & {"OperationalError", "InterfaceError"}:
            raise DatabaseUnavailable(str(exc).strip()) from exc
        raise
