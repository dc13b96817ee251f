"""Heartbeats of a worker: the events by which monitors see that it lives.

Source: Celery 5.7, ``celery.worker.heartbeat`` (fields, every two seconds). Different on purpose: a
worker that sends no task events goes on only while somebody listens; it begins when it starts, and
whenever a receiver asks for a heartbeat, as they all do first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from pgcelery.compat.utils.sysinfo import load_average
from pgcelery.compat.worker.state import SOFTWARE_INFO, active_requests, all_total_count

__all__ = ("Heart",)


class Heart:
    """Sends heartbeats.

    Args:
        timer: Calls functions later.
        eventer: The worker's `EventDispatcher`.
        interval: Seconds between two of them; 0 or None is 2.
        active: Counts the tasks that run.
    """

    def __init__(
        self,
        timer: Any,
        eventer: Any,
        interval: float | None = None,
        *,
        active: Callable[[], int] = lambda: len(active_requests),
    ) -> None:
        self.timer = timer
        self.eventer = eventer
        self.interval = float(interval or 2.0)
        self.tref: Any = None
        self._active = active
        self._lock = threading.Lock()
        eventer.on_enabled.add(self.start)
        eventer.on_disabled.add(self.stop)

    def start(self) -> None:
        """Say that the worker is there, and go on to."""
        if self.eventer.enabled:
            self._send("worker-online")
            self._go_on()

    def wake(self) -> None:
        """Go on to send heartbeats: somebody has begun to listen."""
        if self.eventer.enabled:
            self._go_on()

    def stop(self) -> None:
        """Say that the worker goes."""
        self._rest()
        if self.eventer.enabled:
            self._send("worker-offline")

    def _go_on(self) -> None:
        with self._lock:
            if self.tref is None:
                self.tref = self.timer.call_repeatedly(self.interval, self._beat)

    def _rest(self) -> None:
        with self._lock:
            if self.tref is not None:
                self.timer.cancel(self.tref)
                self.tref = None

    def _beat(self) -> None:
        if self.eventer.sends("task") or self.eventer.app.event_writer.heard:
            self._send("worker-heartbeat")
        else:
            self._rest()

    def _send(self, event: str) -> None:
        self.eventer.send(
            event,
            freq=self.interval,
            active=self._active(),
            processed=all_total_count[0],
            loadavg=load_average(),
            **SOFTWARE_INFO,
        )
