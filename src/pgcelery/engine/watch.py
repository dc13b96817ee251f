"""Where a worker waits: for its pool, its connection, and whoever calls it."""

from __future__ import annotations

import os
import selectors
from collections.abc import Iterable
from contextlib import suppress

from pgcelery.engine.link import Link, LinkState


class Watch:
    """One `select` for all of it. `alert` from any thread or signal handler; the rest from one."""

    def __init__(self) -> None:
        self._waker, self._alarm = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._alarm, False)
        # Not epoll: that forgets a descriptor that was closed and opened again under its number.
        self._selector = selectors.PollSelector()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._watched: dict[int, int] = {}

    def alert(self) -> None:
        """End the `wait` that is on, or the next one."""
        with suppress(BlockingIOError, OSError):
            os.write(self._alarm, b"!")

    def follow(self, pool_fds: Iterable[int], link: Link) -> None:
        """Bring what is watched up to what the pool and the link want."""
        wanted = dict.fromkeys(pool_fds, selectors.EVENT_READ)
        if link.state is not LinkState.CLOSED:
            events = selectors.EVENT_READ
            if link.wants_write:
                # While connecting the socket is readable only when libpq waits for that.
                connecting = link.state is LinkState.CONNECTING
                events = selectors.EVENT_WRITE if connecting else events | selectors.EVENT_WRITE
            if (fd := link.fileno()) >= 0:
                wanted[fd] = events
        if wanted == self._watched:
            return
        for fd in self._watched:
            with suppress(KeyError, ValueError, OSError):
                self._selector.unregister(fd)
        for fd, events in wanted.items():
            self._selector.register(fd, events)
        self._watched = wanted

    def wait(self, timeout_s: float) -> bool:
        """Wait until something is there to be read or written; whether it was an `alert`."""
        ready = self._selector.select(max(0.0, timeout_s))
        if not any(key.fd == self._waker for key, _ in ready):
            return False
        with suppress(BlockingIOError):
            while os.read(self._waker, 4096):
                pass
        return True

    def close(self) -> None:
        """Close what is its own. An `alert` does nothing after this."""
        self._selector.close()
        os.close(self._waker)
        alarm, self._alarm = self._alarm, -1
        os.close(alarm)
