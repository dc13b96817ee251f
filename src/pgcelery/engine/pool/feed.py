"""Which child gets which jobs, and how many: the parent's backlog and the rules that empty it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from math import ceil, inf

from pgcelery.engine.job import Job
from pgcelery.engine.pool.base import Pace
from pgcelery.engine.pool.process import ChildProcess, Entry

_CHUNK_BYTES = 1024 * 1024  #: payload in one frame; a larger job counts as slow


class Feed:
    """Hands jobs to children in order, the least loaded child first.

    Args:
        window_s: Work sent ahead to a child: up to two windows of fast jobs, and one slow job last.
        max_chunk: Most jobs in one frame; two frames is most for a child.
        prefetch: Most jobs in a child, the running one included.
        max_jobs: Most jobs in the life of a child.
    """

    def __init__(
        self, *, window_s: float, max_chunk: int, prefetch: int | None, max_jobs: int | None
    ) -> None:
        self.pace = Pace(window_s)
        self.backlog: deque[Entry] = deque()
        self._window_s = window_s
        self._max_chunk = max_chunk
        self._most = min(prefetch or 2 * max_chunk, 2 * max_chunk)
        self._max_jobs = max_jobs

    def capacity(self, children: Sequence[ChildProcess], now: float) -> int:
        """Count the jobs that would find room now if they are like the recent ones."""
        depth = self.pace.depth(self._most)
        room = -len(self.backlog)
        for child in children:
            left = depth - len(child.entries)
            if left > 0:
                room += max(0, min(self._room(child, now), left))
        return max(0, room)

    def free_at(self, children: Sequence[ChildProcess], now: float) -> float:
        """Give the time by which the next of the children that hold one job is likely to be free.

        Infinity if children hold more than one, or if it is not known how long any will take. Those
        that went on by themselves are not waited for.
        """
        if self.pace.depth(self._most) > 1:
            return inf
        ends = [
            child.head_since + likely_s
            for child in children
            if len(child.entries) == 1
            and not child.goes_on
            and (likely_s := self.pace.likely(child.entries[0].job.name)) is not None
        ]
        return min((end for end in ends if end > now), default=inf)

    def take_back(self, entries: Sequence[Entry]) -> None:
        """Put recalled jobs before those that were never sent."""
        self.backlog.extendleft(reversed(entries))

    def withdraw(self, wanted: Callable[[Entry], bool]) -> list[Job]:
        """Take the wanted jobs out of the backlog."""
        taken = [entry.job for entry in self.backlog if wanted(entry)]
        if taken:
            self.backlog = deque(entry for entry in self.backlog if not wanted(entry))
        return taken

    def dispatch(self, children: Sequence[ChildProcess], now: float) -> list[ChildProcess]:
        """Send what there is room for.

        Returns:
            The children that got something.
        """
        if not self.backlog:
            return []
        heap = [(c.load_s, c.number, c) for c in children if self._room(c, now) > 0]
        heapify(heap)
        share = min(self._max_chunk, ceil(len(self.backlog) / max(1, len(heap))))
        fed = []
        while self.backlog and heap:
            child = heappop(heap)[2]
            chunk = self._chunk(child, min(share, self._room(child, now)))
            if chunk:
                child.send(chunk, now)
                fed.append(child)
                if self._room(child, now) > 0:
                    heappush(heap, (child.load_s, child.number, child))
        return fed

    def weigh(self, entry: Entry) -> bool:
        """Set what an entry is expected to take; whether its job is a fast one."""
        fast_s = self.pace.fast(entry.job.name)
        entry.weight_s = self._window_s if fast_s is None else fast_s
        return fast_s is not None

    def _room(self, child: ChildProcess, now: float) -> int:
        if not child.ready or child.leaving or child.exclusive:
            return 0
        if child.entries and now - child.head_since > self._window_s:
            return 0  # stuck behind a job that turned out to be long
        room = self._most - len(child.entries)
        return room if self._max_jobs is None else min(room, self._max_jobs - child.runs)

    def _chunk(self, child: ChildProcess, most: int) -> list[Entry]:
        """Cut the next frame for a child off the backlog; empty if its first job must wait."""
        chunk: list[Entry] = []
        load_s, size = child.load_s, 0
        while self.backlog and len(chunk) < most:
            entry = self.backlog[0]
            size += len(entry.job.payload)
            fast_s = self.pace.fast(entry.job.name) if size <= _CHUNK_BYTES else None
            if fast_s is None and ((chunk and size > _CHUNK_BYTES) or load_s > self._window_s):
                break
            if fast_s is not None and load_s + fast_s > 2 * self._window_s:
                break
            entry.weight_s = self._window_s if fast_s is None else fast_s
            load_s += entry.weight_s
            chunk.append(self.backlog.popleft())
            if fast_s is None:
                child.exclusive = True
                break
        return chunk
