"""The part of a client that wakes workers."""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import TYPE_CHECKING

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import load
from pgcelery.engine.exchange import Request
from pgcelery.engine.statements import Statements

_TELL_EVERY_S = 0.002  # an active worker polls after 5 ms, so more notifications buy nothing


class Telling:
    """What tells workers that something is ready; losing it costs a poll interval."""

    if TYPE_CHECKING:
        config: EngineConfig
        _sql: Statements
        _told_at: dict[int, float]

    def _tells(self, queue_ids: Collection[int], *, but_for: str | None = None) -> list[Request]:
        """Wake the workers of queues, but for those which this process woke a moment ago.

        None if the one job that the statement before enqueued, `but_for`, was handed to a worker.
        A transaction pooler may have sent that statement elsewhere.
        """
        now = time.monotonic()
        due = [one for one in queue_ids if now - self._told_at.get(one, 0.0) >= _TELL_EVERY_S]
        self._told_at.update(dict.fromkeys(due, now))
        channel = self.config.schema.encode()
        if but_for is None or not self.config.listen:
            return [(self._sql.tell, (channel, b"q%d" % queue_id)) for queue_id in due]
        tell, led = self._sql.tell_of_one, but_for.encode()
        return [(tell, (channel, b"q%d" % queue_id, led)) for queue_id in due]

    def _telling(self, queue_id: int) -> tuple[bytes, dict[str, str]]:
        params = {"channel": self.config.schema, "payload": f"q{queue_id}"}
        return load("queues/tell", self.config.schema), params
