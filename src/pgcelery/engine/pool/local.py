"""What pools inside the node's own process share: a queue, and a socket that wakes the node.

Time limits are not enforced here, as nothing can kill a thread; `terminate` reaches only jobs that
have not begun. `Handler.process_stopping` is not called: this process is not the pool's to end.
"""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import NamedTuple

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.job import Handler, Job, Lost, Outcome, Recorded, run_to_end
from pgcelery.engine.pool.base import ActiveJob, Pace
from pgcelery.engine.relay import Step, Terms

_AHEAD = 200  #: most jobs queued beyond the slots


class _Done(NamedTuple):
    job: Job
    run_s: float
    outcome: Outcome | Recorded | None
    fault: str  #: why there is no outcome


class LocalPool:
    """A pool whose jobs run in this process; subclasses bring the threads.

    Args:
        size: Slots.
        chunk_window_s: How much work is worth queueing ahead, in seconds.
        prefetch: Jobs a slot may hold, the running one included; None or 0 lets their pace decide.
    """

    #: what a handler's mistake may raise at most; anything beyond it leaves the pool
    _caught: type[BaseException] = BaseException

    def __init__(
        self, size: int, *, chunk_window_s: float = 0.02, prefetch: int | None = None
    ) -> None:
        assert size >= 1, "a pool needs a slot"
        self.size = size
        self._pace = Pace(chunk_window_s)
        self._prefetch = prefetch
        self._queue: queue.SimpleQueue[tuple[Job, float] | None] = queue.SimpleQueue()
        self._running: dict[int, ActiveJob] = {}
        self._done: deque[_Done] = deque()
        self._made: list[Outcome | Step] = []
        self._inside = 0
        self._handler: Handler | None = None
        self._wakes, self._waker = socket.socketpair()
        self._closing = threading.Lock()  # or a late thread could write to a reused descriptor
        self._wakes.setblocking(False)
        self._waker.setblocking(False)

    @property
    def idle(self) -> bool:
        """Whether no job is inside and no outcome waits to be collected."""
        return not self._inside and not self._made

    def start(self, handler: Handler, relay: EngineConfig | None = None) -> None:
        """Prepare this process; `process_started` is called here, once."""
        self._handler = handler
        handler.process_started()

    def allow(self, terms: Terms | None) -> None:
        """Do nothing: what follows a job comes by the node, which is in this process."""

    def spares(self) -> list[int]:
        """Name none: see `allow`."""
        return []

    def capacity(self) -> int:
        """Count free slots, and room in the queue while jobs are short."""
        most = (self._prefetch - 1) * self.size if self._prefetch else _AHEAD
        depth = self._pace.depth(_AHEAD)
        return max(0, self.size + (min(most, depth) if depth > 1 else 0) - self._inside)

    def free_at(self) -> float:
        """Expect nothing: threads are not told apart."""
        return inf

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue jobs."""
        now = time.monotonic()
        self._inside += len(jobs)
        for job in jobs:
            self._queue.put((job, now))

    def filenos(self) -> list[int]:
        """Name the descriptor that becomes readable with an outcome."""
        return [self._wakes.fileno()]

    def collect(self) -> list[Outcome | Step]:
        """Give the outcomes that are there."""
        with suppress(OSError):  # would block, or closed by stop
            while len(self._wakes.recv(65536)) == 65536:
                pass
        outcomes, self._made = self._made, []
        while self._done:
            done = self._done.popleft()
            self._inside -= 1
            self._pace.note(done.job.name, done.run_s)
            if isinstance(done.outcome, Recorded):
                outcomes.append(Step(done.outcome.outcome, None, 0, done.outcome.news))
            else:
                outcomes.append(
                    done.outcome or self._lose(done.job, Lost("child_lost", done.fault))
                )
        return outcomes

    def tick(self) -> float | None:
        """Ask to be collected from if outcomes were made meanwhile; there is nothing to mend."""
        return 0.0 if self._made else None

    def active(self) -> list[ActiveJob]:
        """List what is running."""
        return list(self._running.values())

    def recall(self, *, waiting_s: float = 0.0) -> list[Job]:
        """Take back queued jobs that were submitted longer than `waiting_s` ago."""
        before = time.monotonic() - waiting_s
        return self._unqueue(lambda _, since: since <= before)

    def terminate(self, job_id: str, signum: int) -> bool:
        """Cancel a job that has not begun; a running one cannot be stopped."""
        jobs = self._unqueue(lambda job, _: job.id == job_id)
        self._made += [self._lose(job, Lost("cancelled")) for job in jobs]
        return bool(jobs)

    def cut(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Do nothing: threads cannot be killed."""
        return []

    def _run(self, job: Job) -> None:
        """Run one job in the calling thread and post its outcome."""
        assert self._handler is not None, "start() comes first"
        me = threading.get_ident()
        began = time.monotonic()
        self._running[me] = ActiveJob(job, os.getpid(), began)
        outcome: Outcome | Recorded | None = None
        fault = ""
        try:
            outcome = run_to_end(self._handler.open(job))
        except self._caught:  # a handler that breaks its promise must not cost the slot
            fault = traceback.format_exc()
        del self._running[me]
        self._done.append(_Done(job, time.monotonic() - began, outcome, fault))
        with suppress(OSError), self._closing:  # full of wake-ups already, or closed
            self._waker.send(b"x")

    def _unqueue(self, wanted: Callable[[Job, float], bool]) -> list[Job]:
        """Take the wanted jobs out of the queue, keeping the order of the others."""
        taken, kept = [], []
        with suppress(queue.Empty):
            while True:
                item = self._queue.get_nowait()
                if item is not None and wanted(*item):
                    taken.append(item[0])
                else:
                    kept.append(item)
        for item in kept:
            self._queue.put(item)
        self._inside -= len(taken)
        return taken

    def _lose(self, job: Job, why: Lost) -> Outcome:
        assert self._handler is not None, "start() comes first"
        return self._handler.lost(job, why)

    def _close(self) -> None:
        with self._closing:
            self._wakes.close()
            self._waker.close()
