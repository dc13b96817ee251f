"""The part of a client that inserts jobs while their sender still makes others.

Promise P4 of docs/guarantees.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pgcelery.engine import exchange
from pgcelery.engine.arrays import TextArray
from pgcelery.engine.columns import QueueKey, check, columns, queue_key
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import Connections
from pgcelery.engine.exchange import Connection, Request
from pgcelery.engine.job import NewJob
from pgcelery.engine.statements import Statements


class Parts:
    """Jobs on their way.

    Attributes:
        existing: As `Client.enqueue` returns; known when all is committed.
        queue_ids: Where they go.
    """

    def __init__(self, client: InParts, conn: Connection) -> None:
        self.existing: dict[str, str] = {}
        self.queue_ids: set[int] = set()
        self._client = client
        self._parts = exchange.Parts(conn)

    def add(self, jobs: Sequence[NewJob]) -> None:
        """Have some inserted; those that they wait for must be among them."""
        client = self._client
        for job in jobs:
            check(job, client.config.max_payload_bytes)
        queue_ids = client.intern_places({queue_key(job) for job in jobs})
        self.queue_ids.update(queue_ids.values())
        self._parts.send((client._sql.enqueue, columns(jobs, queue_ids)))

    def commit(self) -> None:
        """Let all of them be there."""
        for ((existing, holders),) in self._parts.commit():
            pairs = TextArray.read(existing or b""), TextArray.read(holders or b"")
            self.existing.update(zip(*pairs, strict=True))


class InParts:
    """What makes them."""

    config: EngineConfig

    if TYPE_CHECKING:
        _connections: Connections
        _sql: Statements

        def intern_places(self, keys: Collection[QueueKey]) -> Mapping[QueueKey, int]:
            """See `Client`."""

        def _tells(self, queue_ids: Collection[int]) -> list[Request]:
            """See `Telling`."""

    @contextmanager
    def in_parts(self) -> Iterator[Parts]:
        """Insert the jobs that are added in the block, all or none, and wake workers then.

        For many without gates, and not behind a transaction pooler: then see `Client.enqueue`.

        Raises:
            InvalidJob: Nothing was written.
            DatabaseUnavailable: Nothing was written, or, if the connection broke in the commit,
                everything was; sending the same jobs again is safe.
        """
        with self._connections.lend() as conn:
            done = False
            try:
                parts = Parts(self, conn)
                yield parts
                parts.commit()
                done = True
            finally:
                if not done:
                    conn.close()
        for tell in self._tells(parts.queue_ids):
            self._connections.ask(tell)
