"""A thread that calls functions at their time; ``worker.timer`` is one.

Source: Celery 5.7, ``celery.utils.timer2`` (methods that steps and custom commands use).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ("Entry", "Timer")

logger = logging.getLogger("celery.worker.timer")


class Entry:
    """A call to come; `cancel` calls it off."""

    __slots__ = ("args", "cancelled", "fun", "kwargs")

    def __init__(
        self,
        fun: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.fun = fun
        self.args = args
        self.kwargs = kwargs or {}
        self.cancelled = False

    def __call__(self) -> Any:
        """Call it now."""
        return self.fun(*self.args, **self.kwargs)

    def cancel(self) -> None:
        """Do not call it (again)."""
        self.cancelled = True


class Timer:
    """Calls functions later, in a thread that starts with the first of them.

    An error of one is logged and does not stop the others.
    """

    def __init__(self, **kwargs: Any) -> None:
        self._queue: list[tuple[float, int, Entry, float | None]] = []
        self._count = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._stopping = False

    def call_after(
        self,
        secs: float,
        fun: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        priority: int = 0,
    ) -> Entry:
        """Call once, in so many seconds."""
        return self._add(time.monotonic() + secs, Entry(fun, args, kwargs), None)

    def call_at(
        self,
        eta: float,
        fun: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        priority: int = 0,
    ) -> Entry:
        """Call once, at a time given in seconds since 1970."""
        return self.call_after(eta - time.time(), fun, args, kwargs, priority)

    def call_repeatedly(
        self,
        secs: float,
        fun: Callable[..., Any],
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
        priority: int = 0,
    ) -> Entry:
        """Call every so many seconds, for the first time after as many."""
        return self._add(time.monotonic() + secs, Entry(fun, args, kwargs), secs)

    def cancel(self, entry: Entry) -> None:
        """Call an entry off."""
        entry.cancel()

    def clear(self) -> None:
        """Call everything off."""
        with self._changed:
            self._queue.clear()

    def stop(self) -> None:
        """Call everything off and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5)

    def _add(self, due: float, entry: Entry, every_s: float | None) -> Entry:
        with self._changed:
            heapq.heappush(self._queue, (due, next(self._count), entry, every_s))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="Timer", daemon=True)
                self._thread.start()
            self._changed.notify()
        return entry

    def _run(self) -> None:
        while (due := self._next_due()) is not None:
            _, _, entry, every_s = due
            if entry.cancelled:
                continue
            try:
                entry()
            except Exception:
                # The application's function; the thread serves others too.
                logger.exception("Error in timer: %r", entry.fun)
            if every_s is not None and not entry.cancelled and not self._stopping:
                self._add(time.monotonic() + every_s, entry, every_s)

    def _next_due(self) -> tuple[float, int, Entry, float | None] | None:
        with self._changed:
            while not self._stopping:
                wait_s = self._queue[0][0] - time.monotonic() if self._queue else None
                if wait_s is not None and wait_s <= 0:
                    return heapq.heappop(self._queue)
                self._changed.wait(wait_s)
        return None
