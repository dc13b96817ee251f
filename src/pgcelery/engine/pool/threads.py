"""Jobs in threads of the node's process."""

from __future__ import annotations

import threading
import time

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.job import Handler, Outcome, State
from pgcelery.engine.pool.local import LocalPool
from pgcelery.engine.relay import Step

_JOIN_S = 10.0  #: how long a stop waits for running jobs
_PATIENCE = 3  #: windows that a job waits behind long ones before it goes back, for others to take


class ThreadPool(LocalPool):
    """Runs jobs in `size` daemon threads. Time limits are not enforced."""

    def __init__(
        self, size: int, *, chunk_window_s: float = 0.02, prefetch: int | None = None
    ) -> None:
        super().__init__(size, chunk_window_s=chunk_window_s, prefetch=prefetch)
        self._window_s = chunk_window_s
        self._threads: list[threading.Thread] = []
        self._named = 0

    @property
    def threads(self) -> int:
        """Count the threads, those included that are about to end."""
        return sum(thread.is_alive() for thread in self._threads)

    def capacity(self) -> int:
        """Count free slots, and room in the queue while jobs are short and a thread moves on."""
        return max(0, self.size - self._inside) if self._stuck() else super().capacity()

    def collect(self) -> list[Outcome | Step]:
        """Give the outcomes that are there, and back what has waited behind long jobs."""
        outcomes = super().collect()
        if self._inside > self.size and self._stuck():
            for job in self.recall(waiting_s=_PATIENCE * self._window_s):
                outcomes.append(Outcome(job.id, job.token, State.AVAILABLE))
        return outcomes

    def tick(self) -> float | None:
        """Ask to be looked at soon while jobs are queued."""
        soonest = super().tick()
        return self._window_s if soonest is None and self._inside > self.size else soonest

    def _stuck(self) -> bool:
        """Whether all threads are at jobs that turned out to be long."""
        before = time.monotonic() - self._window_s
        running = list(self._running.values())
        return len(running) >= self.size and all(
            one.started_monotonic_s < before for one in running
        )

    def start(self, handler: Handler, relay: EngineConfig | None = None) -> None:
        """Prepare this process and start the threads."""
        super().start(handler, relay)
        self._spawn(self.size)

    def grow(self, n: int) -> None:
        """Add `n` threads."""
        self.size += n
        self._spawn(n)

    def shrink(self, n: int) -> None:
        """End `n` threads, each after the job it has and those already queued.

        Raises:
            ValueError: No thread would be left.
        """
        if n >= self.size:
            raise ValueError("a pool keeps at least one slot")
        self.size -= n
        for _ in range(n):
            self._queue.put(None)

    def stop(self, *, kill: bool) -> None:
        """End the threads; with `kill`, or after ten seconds, busy ones are left to themselves."""
        queued = self._unqueue(lambda _, __: True)
        for _ in self._threads:
            self._queue.put(None)
        deadline = time.monotonic() + (0.0 if kill else _JOIN_S)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self._close()
        self.submit(queued)  # nobody runs these any more, but `recall` gives them

    def _spawn(self, n: int) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for _ in range(n):
            self._named += 1
            thread = threading.Thread(
                target=self._serve, name=f"pool-thread-{self._named}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self) -> None:
        while (item := self._queue.get()) is not None:
            self._run(item[0])
