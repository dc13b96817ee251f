"""Jobs in forked children, fed in chunks, none of which can hold back another job for long.

Short jobs are queued ahead in the children, so that these do not idle while the node talks to the
database. `child` tells how jobs that have not begun are taken back when the one before them turns
out to be long, or when a child dies; `feed` tells who gets what; `crew` keeps the children alive.
"""

from __future__ import annotations

import gc
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from typing import NamedTuple

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.job import Handler, Job, Lost
from pgcelery.engine.pool.base import ActiveJob, Result
from pgcelery.engine.pool.child import Wear
from pgcelery.engine.pool.crew import Crew
from pgcelery.engine.pool.feed import Feed
from pgcelery.engine.pool.process import ChildProcess, Entry
from pgcelery.engine.relay import Relay, Terms

_BLIND_S = 0.05  #: between two looks at a child that has no pidfd
_LEASE_LOST = "the worker could not renew its lease in time"
_PATIENCE = 3  #: windows that a job waits in a child before it is taken back


class ChildInfo(NamedTuple):
    """One child, as statistics see it."""

    pid: int
    sent: int  #: jobs it ever got
    held: int  #: jobs in it that have not ended


class PreforkPool:
    """Runs jobs in `size` forked children and keeps that many alive.

    Args:
        size: Children.
        max_jobs_per_child: A child is replaced after so many jobs.
        max_memory_per_child_kib: A child is replaced after the job that took its peak resident
            memory over this.
        chunk_window_s: How much work, in seconds, is queued ahead in a child, and how long a job
            may hold back those behind it.
        max_chunk: Most jobs in one frame; a child holds two frames at most.
        prefetch: Jobs a child may hold, the running one included; 1 queues nothing ahead.
        child_name: Children are called this, a dash and a number, in logs.
        on_fork: Called in a new child before `Handler.process_started`, with the child's slot
            (from 0) and number (from 1).
        stop_timeout_s: How long a child that should end may take before it is killed.
    """

    def __init__(
        self,
        size: int,
        *,
        max_jobs_per_child: int | None = None,
        max_memory_per_child_kib: int | None = None,
        chunk_window_s: float = 0.02,
        max_chunk: int = 100,
        prefetch: int | None = None,
        child_name: str = "ForkPoolWorker",
        on_fork: Callable[[int, int], None] | None = None,
        stop_timeout_s: float = 10.0,
    ) -> None:
        assert size >= 1, "a pool needs a slot"
        self.size = size
        self._window_s = chunk_window_s
        self._one_each = prefetch == 1
        self._stop_timeout_s = stop_timeout_s
        self._feed = Feed(
            window_s=chunk_window_s,
            max_chunk=max_chunk,
            prefetch=prefetch,
            max_jobs=max_jobs_per_child,
        )
        self._crew = Crew(
            size,
            self._feed,
            name=child_name,
            wear=Wear(max_jobs_per_child, max_memory_per_child_kib),
            on_fork=on_fork,
            leave_s=stop_timeout_s,
        )

    @property
    def idle(self) -> bool:
        """Whether no job is inside and no outcome waits to be collected."""
        crew = self._crew
        if crew.outcomes or self._feed.backlog:
            return False
        return not [child for child in crew.children if child.entries]

    def children(self) -> list[ChildInfo]:
        """List the children, those included that are about to end."""
        return [ChildInfo(c.pid, c.sent, len(c.entries)) for c in self._crew.children]

    def start(self, handler: Handler, relay: EngineConfig | None = None) -> None:
        """Fork the children; each adds to `capacity` once it has prepared itself."""
        self._crew.handler = handler
        self._crew.relay = relay
        if relay is not None:
            Relay(relay, lambda token: None)  # what it reads and makes is kept, for each child's
        gc.freeze()  # what is there now stays; walking it would part its pages from the children's
        gc.collect()  # of the little that is left, so that this is what later ones go by
        self._crew.replace(time.monotonic())

    def allow(self, terms: Terms | None) -> None:
        """Say what children may claim by themselves from now on; None, as at first: nothing."""
        if terms is not None and not self._one_each:  # the parent claims many at a time, for less
            terms = terms._replace(serves=False)
        self._crew.allow(terms)

    def spares(self) -> list[int]:
        """List the tokens under which children may have claimed what was not told of yet."""
        return [child.spare for child in self._crew.children if child.spare is not None]

    def capacity(self) -> int:
        """Count the jobs that children would take now, if those are like the recent ones."""
        return self._feed.capacity(self._crew.children, time.monotonic())

    def free_at(self) -> float:
        """Give the monotonic time by which another child is likely to be idle."""
        return self._feed.free_at(self._crew.children, time.monotonic())

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs; those that no child has room for wait in the parent."""
        now = time.monotonic()
        self._feed.backlog.extend([Entry(job, now) for job in jobs])
        self._dispatch(now)

    def filenos(self) -> list[int]:
        """Name the one descriptor that stands for those of all children."""
        return [self._crew.fileno()]

    def collect(self) -> list[Result]:
        """Give the outcomes that are there, and refill the children from the backlog."""
        self._crew.poll()
        now = time.monotonic()
        self._crew.replace(now)
        self._dispatch(now)
        outcomes, self._crew.outcomes = self._crew.outcomes, []
        return outcomes

    def tick(self) -> float | None:
        """Enforce limits, free jobs that are stuck behind a long one, replace dead children."""
        crew, now = self._crew, time.monotonic()
        due = self._next_due()
        if due <= now:
            crew.poll()  # what a child has said by now counts
            for child in crew.children.copy():
                self._enforce(child, now)
            crew.replace(now)
        if due <= now or self._feed.backlog:
            self._dispatch(now)
            due = self._next_due()
        if crew.outcomes:
            return 0.0
        if any(child.watch < 0 for child in crew.children):
            due = min(due, now + _BLIND_S)
        return None if due == inf else max(0.0, due - now)

    def active(self) -> list[ActiveJob]:
        """List the first job of each child, and since when it may have been running."""
        found = self._crew.cut_off.copy()
        for child in self._crew.children.copy():
            with suppress(IndexError):  # idle; or just become so, as any thread may ask this
                found.append(ActiveJob(child.entries[0].job, child.pid, child.head_since))
        return found

    def recall(self, *, waiting_s: float = 0.0) -> list[Job]:
        """Take back jobs that have not begun and were submitted over `waiting_s` ago."""
        for child in reversed(self._crew.children):
            self._feed.take_back(child.recall())
        before = time.monotonic() - waiting_s
        return self._feed.withdraw(lambda entry: entry.waiting_since <= before)

    def terminate(self, job_id: str, signum: int) -> bool:
        """Signal the child that runs a job, or cancel the job if it has not begun.

        SIGUSR1 does not kill: it raises the soft limit's error in the job.
        """
        self._crew.poll()
        for child in self._crew.children:
            if any(entry.job.id == job_id for entry in child.entries):
                running = self._crew.isolate(child)
                if running is not None and running.job.id == job_id:
                    self._strike(child, running, signum)
                    return True
                self._crew.release(child)
        jobs = self._feed.withdraw(lambda entry: entry.job.id == job_id)
        for job in jobs:
            self._crew.lose(job, Lost("cancelled"))
        return bool(jobs)

    def cut(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Kill the children at wanted jobs, now."""
        self._crew.poll()
        cut = []
        for child in self._crew.children:
            if not child.entries or child.entries[0].verdict is not None:
                continue
            if not wanted(child.entries[0].job):
                continue
            running = self._crew.isolate(child)
            if running is not None and wanted(running.job):
                self._condemn(child, running, Lost("lease_lost", _LEASE_LOST), signal.SIGKILL)
                cut.append(running.job)
            else:
                self._crew.release(child)  # it says in a moment what it is at
        return cut

    def grow(self, n: int) -> None:
        """Add `n` children."""
        self.size = self._crew.size = self.size + n
        self._crew.replace(time.monotonic())

    def shrink(self, n: int) -> None:
        """Let `n` children end, idle ones first, busy ones after their job.

        Raises:
            ValueError: No child would be left.
        """
        if n >= self.size:
            raise ValueError("a pool keeps at least one slot")
        self.size = self._crew.size = self.size - n
        staying = [child for child in self._crew.children if not child.retired]
        staying.sort(key=lambda child: (bool(child.entries), -child.number))
        for child in staying[: max(0, len(staying) - self.size)]:
            child.retired = True
            self._crew.retire(child)

    def restart(self) -> None:
        """Replace every child, a busy one after its job; never more than `size` at a time."""
        for child in self._crew.children:
            self._crew.retire(child)

    def stop(self, *, kill: bool) -> None:
        """End the children, at once with `kill`, and wait until they are gone."""
        crew = self._crew
        crew.dismissed = True
        for child in reversed(crew.children):
            crew.retire(child)
        if kill or not crew.join(self._stop_timeout_s):
            for child in crew.children:
                child.kill(signal.SIGKILL)
            crew.join(self._stop_timeout_s)
        crew.close()

    def _dispatch(self, now: float) -> None:
        for child in self._feed.dispatch(self._crew.children, now):
            if child.unsent:
                self._crew.await_room(child)

    def _next_due(self) -> float:
        """Give the monotonic time at which there is something to enforce or to mend."""
        return min([self._crew.fork_due(), *map(self._due, self._crew.children)])

    def _due(self, child: ChildProcess) -> float:
        """Give the monotonic time at which `_enforce` has something to do."""
        if not child.entries:
            return child.leave_by
        head = child.entries[0]
        return min(child.leave_by, head.soft_at, head.hard_at, self._stuck_at(child))

    def _stuck_at(self, child: ChildProcess) -> float:
        """Give the monotonic time at which the jobs behind a child's first one are taken back."""
        if len(child.entries) < 2:
            return inf
        patience = child.entries[1].sent_at + _PATIENCE * self._window_s
        return min(child.head_since + self._window_s, patience)

    def _enforce(self, child: ChildProcess, now: float) -> None:
        if now >= child.leave_by:
            child.kill(signal.SIGKILL)
            child.leave_by = inf
        if now >= self._stuck_at(child):
            self._feed.take_back(child.recall())
        if not child.entries:
            return
        head = child.entries[0]
        if now >= head.hard_at:
            if self._crew.isolate(child) is head:
                self._condemn(child, head, Lost("time_limit", limit_s=head.hard_s), signal.SIGKILL)
            else:
                head.hard_at = now + _BLIND_S  # it has ended, if the child does not say otherwise
                self._crew.release(child)
        elif now >= head.soft_at:
            if now >= child.head_since + head.soft_s:
                self._crew.report_interruption(head)
            child.interrupt(head, now)

    def _strike(self, child: ChildProcess, entry: Entry, signum: int) -> None:
        if signum == signal.SIGUSR1:
            child.interrupt(entry, time.monotonic())
            self._crew.release(child)
        else:
            self._condemn(child, entry, Lost("terminated"), signum)

    def _condemn(self, child: ChildProcess, entry: Entry, why: Lost, signum: int) -> None:
        """Kill a child for the one job it is left with."""
        child.leaving = True
        entry.verdict = why
        entry.soft_at = entry.hard_at = inf
        child.kill(signum)
