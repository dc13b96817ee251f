"""A worker, as its events describe it."""

from __future__ import annotations

import bisect
import logging
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

__all__ = ("Worker", "heartbeat_expires")

logger = logging.getLogger("celery.events.state")

#: percentage of the time between two heartbeats after which a worker is taken for dead
HEARTBEAT_EXPIRE_WINDOW = 200
#: seconds between an event's timestamp and its arrival that let clocks seem out of step
HEARTBEAT_DRIFT_MAX = 16

_drifting: set[str | None] = set()


def heartbeat_expires(
    timestamp: Any, freq: Any = 60, expire_window: float = HEARTBEAT_EXPIRE_WINDOW
) -> float:
    """Give the time after which a worker is dead that was heard of at `timestamp`.

    Args:
        timestamp: Seconds since 1970.
        freq: Seconds between two heartbeats.
        expire_window: Percentage of `freq`.
    """
    # Some serializers give decimals.
    return float(timestamp) + float(freq) * expire_window / 100


class Worker:
    """One worker. Two with the same hostname are equal.

    Attributes:
        heartbeats: When the last few events came, in seconds since 1970.
    """

    heartbeat_max = 4
    expire_window = HEARTBEAT_EXPIRE_WINDOW

    # fmt: off
    _fields = (
        "hostname", "pid", "freq", "heartbeats", "clock", "active", "processed", "loadavg",
        "sw_ident", "sw_ver", "sw_sys",
    )
    # fmt: on

    def __init__(
        self,
        hostname: str | None = None,
        pid: int | None = None,
        freq: float = 60,
        heartbeats: list[float] | None = None,
        clock: int | None = 0,
        active: int | None = None,
        processed: int | None = None,
        loadavg: Any = None,
        sw_ident: str | None = None,
        sw_ver: str | None = None,
        sw_sys: str | None = None,
    ) -> None:
        self.hostname = hostname
        self.pid = pid
        self.freq = freq
        self.heartbeats = [] if heartbeats is None else heartbeats
        self.clock = clock or 0
        self.active = active
        self.processed = processed
        self.loadavg = loadavg
        self.sw_ident = sw_ident
        self.sw_ver = sw_ver
        self.sw_sys = sw_sys

    def __eq__(self, other: object) -> bool:
        return self.hostname == other.hostname if isinstance(other, Worker) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.hostname)

    def event(
        self,
        type_: str | None,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: Mapping[str, Any] | None = None,
        max_drift: float = HEARTBEAT_DRIFT_MAX,
    ) -> None:
        """Take in an event, of whatever kind: it is a sign of life, but for ``offline``."""
        self.update(fields or {})
        if type_ == "offline":
            self.heartbeats.clear()
            return
        if not local_received or not timestamp:
            return
        drift = abs(int(local_received) - int(timestamp))
        if drift > max_drift:
            self._warn_of(drift, timestamp, local_received)
        if len(self.heartbeats) >= self.heartbeat_max:
            self.heartbeats.pop(0)
        bisect.insort(self.heartbeats, local_received)

    def _warn_of(self, drift: int, timestamp: float, received: float) -> None:
        if self.hostname not in _drifting:  # once a worker
            _drifting.add(self.hostname)
            logger.warning(
                "Substantial drift from %s may mean clocks are out of sync.  Current drift is "
                "%s seconds.  [orig: %s recv: %s]",
                self.hostname,
                drift,
                datetime.fromtimestamp(received),
                datetime.fromtimestamp(timestamp),
            )

    def update(self, f: Mapping[str, Any], **kw: Any) -> None:
        """Set attributes."""
        for name, value in {**f, **kw}.items():
            setattr(self, name, value)

    @property
    def heartbeat_expires(self) -> float:
        """When it is dead unless something is heard of it."""
        return heartbeat_expires(self.heartbeats[-1], self.freq, self.expire_window)

    @property
    def alive(self) -> bool:
        """Whether it was heard of lately."""
        return bool(self.heartbeats) and time.time() < self.heartbeat_expires

    @property
    def status_string(self) -> str:
        """``ONLINE`` or ``OFFLINE``."""
        return "ONLINE" if self.alive else "OFFLINE"

    @property
    def id(self) -> str:
        """Hostname and pid."""
        return f"{self.hostname}.{self.pid}"

    def __repr__(self) -> str:
        return f"<Worker: {self.hostname} ({self.status_string} clock:{self.clock})"

    def __reduce__(self) -> Any:
        return type(self), tuple(getattr(self, name) for name in self._fields)
