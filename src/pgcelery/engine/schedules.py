"""Schedules: how they stand, and firing one slot of one of them, once among any number of firers.

What a schedule is due for is not known here. Who fires asks to `claim` it, decides by how it
stands and what time it is in the database, and fires or leaves it.

Promise P19 of docs/guarantees.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import NamedTuple, TypeVar

import psycopg

from pgcelery.engine.arrays import BigintArray, TextArray, TimestampArray
from pgcelery.engine.client import Client
from pgcelery.engine.database import Connections, load, unless_overtaken
from pgcelery.engine.errors import DatabaseUnavailable, EngineError
from pgcelery.engine.exchange import Connection
from pgcelery.engine.failpoint import failpoint
from pgcelery.engine.job import NewJob

T = TypeVar("T")

_WAIT_S = 1.0  # for another process that fires the same schedule


class SlotHeldError(EngineError):
    """Another process is firing this schedule; ask again soon."""


class Standing(NamedTuple):
    """How far a schedule has come."""

    last_run_at: datetime  #: aware
    total_run_count: int


class Slot:
    """A claimed schedule; nobody else fires it until the claim ends.

    Attributes:
        standing: How it stands.
        now: What time it is in the database.
    """

    def __init__(
        self,
        client: Client,
        conn: Connection,
        key: dict[str, str],
        standing: Standing,
        now: datetime,
    ) -> None:
        self.standing = standing
        self.now = now
        self.queues: set[str] = set()
        self._client = client
        self._conn = conn
        self._key = key

    def fire(self, jobs: Sequence[NewJob], last_run_at: datetime) -> dict[str, str]:
        """Enqueue jobs and count the slot as done, both when the claim ends without an error.

        Args:
            jobs: None at all gives the slot up.
            last_run_at: What it stands at from now on; aware.

        Returns:
            Jobs that were not created, as `Client.enqueue` does.

        Raises:
            InvalidJob: Nothing was done; the slot can still be given up.
        """
        failpoint("schedule.fires")
        existing = self._client.enqueue(jobs, conn=self._conn)
        query = load("schedules/fire", self._client.config.schema)
        self._conn.execute(query, {**self._key, "last_run_at": last_run_at})
        self.queues = {job.queue for job in jobs}
        failpoint("schedule.fired")
        return existing


class Schedules:
    """The schedules of one book. For one thread.

    Raises (any method):
        DatabaseUnavailable: The server cannot be reached; trying again can help.
        SchemaMismatch: The database has no schema of this release.
    """

    def __init__(self, client: Client, book: str) -> None:
        self._client = client
        self._book = book
        # Of its own: a claim holds one while the client may need another.
        self._connections = Connections(client.config)

    def clock(self) -> datetime:
        """Give the database's time."""
        found: datetime = self._connections.run(self._load("schedules/clock"))[0][0]
        return found

    def enter(self, standings: Mapping[str, Standing]) -> dict[str, Standing]:
        """Make these the schedules of the book, and give how they stand.

        Args:
            standings: By name: how a schedule stands that is new, or had been taken out before.
        """
        params = {
            "book": self._book,
            "names": TextArray.of(list(standings)),
            "last_runs": TimestampArray.of_times([one.last_run_at for one in standings.values()]),
            "counts": BigintArray.of([one.total_run_count for one in standings.values()]),
        }
        rows = self._connections.run(self._load("schedules/enter"), params)
        return {row[0]: Standing(*row[1:]) for row in rows}

    def insisting(self, act: Callable[[], T]) -> T:
        """Do what claims and fires; from the start again when a deadlock has undone it."""
        return unless_overtaken(act)

    @contextmanager
    def claim(self, name: str, standing: Standing) -> Iterator[Slot]:
        """Hold one schedule for the length of a transaction; an error undoes what was done in it.

        Args:
            name: Which.
            standing: How it stands if it is not known yet.

        Raises:
            SlotHeldError: Another process has held it for a second.
        """
        self.clock()  # a connection that went stale is replaced here, where it can be
        key = {"book": self._book, "name": name}
        params = {**key, **standing._asdict(), "wait_s": _WAIT_S}
        with self._connections.lend() as conn, conn.transaction():
            try:
                row = conn.execute(self._load("schedules/claim"), params, binary=True).fetchone()
            except psycopg.errors.LockNotAvailable as exc:
                raise SlotHeldError(f"schedule {name!r} is held by another process") from exc
            assert row is not None
            slot = Slot(self._client, conn, key, Standing(row[0], row[1]), row[2])
            yield slot
        failpoint("schedule.committed")
        if not self._client.config.notify_inside:  # else the commit has told them
            with suppress(DatabaseUnavailable):  # workers look by themselves, only later
                self._wake(slot.queues)

    def _wake(self, queues: set[str]) -> None:
        schema = self._client.config.schema
        for queue_id in self._client.intern(queues).values():
            told = {"channel": schema, "payload": f"q{queue_id}"}
            self._connections.run(self._load("queues/tell"), told)

    def close(self) -> None:
        """Close the connection. Usable again afterwards."""
        self._connections.close()

    def _load(self, name: str) -> bytes:
        return load(name, self._client.config.schema)
