"""One job at a time in a thread that the owner lends, usually the main thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

from pgcelery.engine.pool.local import LocalPool

_LOOK_S = 0.2  #: between two looks at the condition that ends `serve`
_JOIN_S = 10.0  #: how long a stop waits for the running job


class SoloPool(LocalPool):
    """Runs jobs in whichever thread calls `serve`, so that the node's thread stays free to beat.

    What a signal handler raises in `serve` leaves it; the job it hit stays in `active` as cut off.
    """

    _caught = Exception

    def __init__(self, *, chunk_window_s: float = 0.02, prefetch: int | None = None) -> None:
        super().__init__(1, chunk_window_s=chunk_window_s, prefetch=prefetch)
        self._stopped = False
        self._server: int | None = None  # the thread in `serve`
        self._served = threading.Event()

    def serve(self, until: Callable[[], bool]) -> None:
        """Run jobs in the calling thread until the condition holds or the pool is stopped.

        The condition is asked between jobs and a few times a second.
        """
        self._served.clear()
        self._server = threading.get_ident()
        try:
            while not self._stopped and not until():
                self.run_next(timeout_s=_LOOK_S)
        finally:
            self._server = None
            self._served.set()

    def run_next(self, timeout_s: float = 0.0) -> bool:
        """Run the next job in the calling thread; False if none came in time."""
        try:
            item = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return False
        if item is not None:
            self._run(item[0])
        return item is not None

    def grow(self, n: int) -> None:
        """Refuse.

        Raises:
            ValueError: Always; there is one thread.
        """
        raise ValueError("a solo pool has one slot")

    def shrink(self, n: int) -> None:
        """Refuse.

        Raises:
            ValueError: Always; there is one thread.
        """
        raise ValueError("a solo pool has one slot")

    def stop(self, *, kill: bool) -> None:
        """Let `serve` return after the job it is at, and wait ten seconds for that, or not."""
        queued = self._unqueue(lambda _, __: True)
        self._stopped = True
        self._queue.put(None)  # wakes serve
        self.submit(queued)  # not to be run any more, but `recall` gives them
        if not kill and self._server not in (None, threading.get_ident()):
            self._served.wait(_JOIN_S)
        self._close()
