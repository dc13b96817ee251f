"""The part of a client that enqueues, bit by bit, what others wait for as one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import TupleRow

from pgcelery.engine.arrays import TextArray
from pgcelery.engine.columns import QueueKey, check_name, queue_key
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import Connections, load
from pgcelery.engine.exchange import Connection
from pgcelery.engine.failpoint import failpoint
from pgcelery.engine.job import NewJob


class Latches:
    """What a client does with latches, which stand for parents whose number is not known yet."""

    config: EngineConfig

    if TYPE_CHECKING:
        _connections: Connections

        def _run(self, name: str, params: Any = None) -> list[TupleRow]:
            """See `Client`."""

        def _telling(self, queue_id: int) -> tuple[bytes, dict[str, str]]:
            """See `Client`."""

        def intern_places(self, keys: Collection[QueueKey]) -> dict[QueueKey, int]:
            """See `Client`."""

        def enqueue(
            self, jobs: Sequence[NewJob], *, conn: psycopg.Connection[Any] | None = None
        ) -> dict[str, str]:
            """See `Client`."""

    def open_latch(self, id: str) -> None:
        """Make something that jobs can be parents of, one call after the other (`NewJob.joins`).

        What waits for it goes on when it is closed and all that joined it have ended.
        """
        self._run("latches/open", {"id": check_name("id", id)})
        failpoint("latch.opened")

    def close_latch(self, id: str, jobs: Sequence[NewJob]) -> dict[str, str]:
        """Enqueue jobs, which may have the latch as their parent, and let nothing join any more.

        All or nothing; raises and returns what `enqueue` does.
        """
        self.intern_places({queue_key(job) for job in jobs})
        failpoint("latch.closes")
        query = load("latches/close", self.config.schema)

        def close(conn: Connection) -> tuple[dict[str, str], TupleRow | None]:
            return self.enqueue(jobs, conn=conn), conn.execute(query, {"id": id}).fetchone()

        existing, row = self._connections.transact(close)
        failpoint("latch.closed")
        for queue_id in row[0] if row else ():
            self._connections.run(*self._telling(queue_id))
        return existing

    def drop_latch(self, id: str) -> None:
        """Forget a latch that will not be closed; jobs that joined it run all the same."""
        self._run("latches/drop", {"id": id})

    def join(self, ids: Sequence[str], place: str) -> None:
        """Do at once what `NewJob.joins` does, for jobs to be enqueued later as `awaited`."""
        self._run("jobs/join", {"ids": TextArray.of(list(ids)), "place": place})
