"""The part of a client that sees whole queues: pause them, resume them, count what waits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg.rows import TupleRow

from pgcelery.engine.columns import check_name
from pgcelery.engine.database import Connections
from pgcelery.engine.errors import UnknownQueue


class Queues:
    """What a client does with whole queues. All of it is state in the database."""

    if TYPE_CHECKING:
        _connections: Connections

        def _run(self, name: str, params: Any = None) -> list[TupleRow]:
            """See `Client`."""

        def _telling(self, queue_id: int) -> tuple[bytes, dict[str, str]]:
            """See `Client`."""

        def intern(self, names: Collection[str]) -> dict[str, int]:
            """See `Client`."""

    def pause(self, queue: str, *, create: bool = False) -> None:
        """Have no worker claim anything of a queue, from the next claim on.

        What runs goes on, and jobs are enqueued as ever. Pausing twice changes nothing.

        Args:
            queue: Its name.
            create: Make the queue if there is none.

        Raises:
            UnknownQueue: There is none of that name.
        """
        check_name("queue", queue)
        if create:
            self.intern([queue])
        if not self._run("queues/pause", {"name": queue}):
            raise UnknownQueue(f"there is no queue {queue!r}")

    def resume(self, queue: str) -> bool:
        """Have a queue's jobs claimed again; whether it was paused. Wakes workers.

        Raises:
            UnknownQueue: There is none of that name.
        """
        rows = self._run("queues/resume", {"name": check_name("queue", queue)})
        if not rows:
            raise UnknownQueue(f"there is no queue {queue!r}")
        queue_id, was_paused = rows[0]
        self._connections.run(*self._telling(queue_id))
        return bool(was_paused)

    def paused(self) -> dict[str, datetime]:
        """List the queues that are paused, and since when."""
        return dict(self._run("queues/paused"))

    def waiting(self, queues: Sequence[str], most: int, only: Sequence[int] | None = None) -> int:
        """Count the jobs of queues that could be claimed now, no further than to `most`.

        Args:
            queues: Their names.
            most: Where to stop.
            only: `Worker.served_ids`: what that worker could claim; None for any worker.
        """
        params = {"names": list(queues), "most": most, "only": None if only is None else list(only)}
        return int(self._run("queues/waiting", params)[0][0])
