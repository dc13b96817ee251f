"""Where a worker waits: for its pool, its connection, and whoever calls it."""

from __future__ import annotations

import os
import select
from collections.abc import Iterable
from contextlib import suppress
from math import ceil

from pgcelery.engine.link import Link, LinkState


class Watch:
    """One `select` for all of it. `alert` from any thread or signal handler; the rest from one."""

    def __init__(self) -> None:
        self._waker, self._alarm = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._alarm, False)
        # Not epoll: that forgets a descriptor that was closed and opened again under its number.
        self._poll = select.poll()
        self._poll.register(self._waker, select.POLLIN)
        self._watched: dict[int, int] = {}

    def alert(self) -> None:
        """End the `wait` that is on, or the next one."""
        with suppress(BlockingIOError, OSError):
            os.write(self._alarm, b"!")

    def follow(self, pool_fds: Iterable[int], link: Link) -> None:
        """Bring what is watched up to what the pool and the link want."""
        wanted = dict.fromkeys(pool_fds, select.POLLIN)
        if link.state is not LinkState.CLOSED:
            events = select.POLLIN
            if link.wants_write:
                # While connecting the socket is readable only when libpq waits for that.
                connecting = link.state is LinkState.CONNECTING
                events = select.POLLOUT if connecting else events | select.POLLOUT
            if (fd := link.fileno()) >= 0:
                wanted[fd] = events
        if wanted == self._watched:
            return
        for fd in self._watched:
            with suppress(KeyError):
                self._poll.unregister(fd)
        for fd, events in wanted.items():
            self._poll.register(fd, events)
        self._watched = wanted

    def wait(self, timeout_s: float) -> bool:
        """Wait until something is there to be read or written; whether it was an `alert`."""
        ready = self._poll.poll(ceil(max(0.0, timeout_s) * 1000))
        if self._waker not in [fd for fd, _ in ready]:
            return False
        with suppress(BlockingIOError):
            while os.read(self._waker, 4096):
                pass
        return True

    def close(self) -> None:
        """Close what is its own. An `alert` does nothing after this."""
        os.close(self._waker)
        alarm, self._alarm = self._alarm, -1
        os.close(alarm)
