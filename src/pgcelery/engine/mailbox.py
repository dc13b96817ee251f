"""Control messages for a process that runs no jobs."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import Connections, load


class Mailbox:
    """One address among the workers. For one thread.

    Raises (any method):
        DatabaseUnavailable: The server cannot be reached; trying again can help.
        SchemaMismatch: The database has no schema of this release.
    """

    def __init__(self, config: EngineConfig, name: str, info: Mapping[str, Any]) -> None:
        self._config = config
        self._name = name
        self._info = dict(info)
        self._connections = Connections(config)
        self._id: int | None = None
        self._renew_at = 0.0

    def take(self) -> list[tuple[bytes, str | None]]:
        """Take the messages that have come, as (body, whom to answer); stays known as alive."""
        now = time.monotonic()
        if now >= self._renew_at:
            self._renew()
            self._renew_at = now + self._config.heartbeat_s
        rows = self._connections.run(self._load("mailbox/take"), {"id": self._id})
        return [(row[0], row[1]) for row in rows]

    def _renew(self) -> None:
        lease = {"id": self._id, "lease_s": float(self._config.lease_s)}
        if self._id is not None and self._connections.run(self._load("mailbox/renew"), lease):
            return
        entry = {
            "name": self._name,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "info": json.dumps(self._info),
        }
        self._id = self._connections.run(self._load("mailbox/enter"), {**lease, **entry})[0][0]

    def close(self) -> None:
        """Leave. Usable again afterwards."""
        if self._id is not None:
            self._connections.run(self._load("mailbox/leave"), {"id": self._id})
            self._id = None
        self._renew_at = 0.0
        self._connections.close()

    def _load(self, name: str) -> bytes:
        return load(name, self._config.schema)
