"""Keeps a number of children alive and hears what they say."""

from __future__ import annotations

import logging
import selectors
import time
import weakref
from collections.abc import Callable
from math import inf
from typing import NoReturn

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.job import Handler, Job, Lost, load_outcome
from pgcelery.engine.pool import child as wire
from pgcelery.engine.pool.base import ActiveJob, Cut, Doubtful, Result, Unsure
from pgcelery.engine.pool.feed import Feed
from pgcelery.engine.pool.process import ChildProcess, Entry
from pgcelery.engine.relay import Step, Terms

logger = logging.getLogger(__name__)

_BLIND_S = 0.05  #: between two looks at a child that has no pidfd
_MAX_BACKOFF_S = 30.0  #: between two forks while children fail at their start
_ENDS = frozenset((wire.OUTCOME, wire.FAULT, wire.UNSURE, wire.WENT_ON))

# A child inherits the descriptors of every crew of its process, and must close them all.
_crews: weakref.WeakSet[Crew] = weakref.WeakSet()


class Crew:
    """The children of one pool.

    Args:
        feed: Gets back the jobs that a dead child had not begun.
        leave_s: How long a child that should end may take before it is killed.
    """

    def __init__(
        self,
        size: int,
        feed: Feed,
        *,
        name: str,
        wear: wire.Wear,
        on_fork: Callable[[int, int], None] | None,
        leave_s: float,
    ) -> None:
        self.size = size
        self.handler: Handler | None = None
        self.children: list[ChildProcess] = []
        self.outcomes: list[Result] = []
        self.relay: EngineConfig | None = None
        self.terms: Terms | None = None
        self.cut_off: list[ActiveJob] = []  #: what ran when the crew was dismissed
        self.dismissed = False  #: dead children are not replaced any more
        # Its own descriptor is readable when any of the children's has something to say.
        self._selector = selectors.DefaultSelector()
        self._feed = feed
        self._name = name
        self._wear = wear
        self._on_fork = on_fork
        self._leave_s = leave_s
        self._buffer = bytearray(256 * 1024)
        self._forks = 0
        self._failed_starts = 0
        self._fork_at = 0.0
        _crews.add(self)

    def fileno(self) -> int:
        """Name the descriptor that is readable when `poll` has something to do."""
        return self._selector.fileno()

    def poll(self) -> None:
        """Hear every child that has something to say, and bury the dead."""
        if not self.children:
            return
        for key, events in self._selector.select(0):
            child: ChildProcess = key.data
            if child.exitcode is not None:
                continue  # buried in this very round
            if key.fd == child.watch:
                if child.reap():
                    self._bury(child)
                continue
            if events & selectors.EVENT_WRITE:
                child.flush()
                self.await_room(child)
            if events & selectors.EVENT_READ:
                self.hear(child)
        for child in self.children.copy():
            if child.watch < 0 and child.reap():
                self._bury(child)

    def hear(self, child: ChildProcess) -> None:
        """Take in what one child has said."""
        now = time.monotonic()
        for kind, body, took_ns in child.receive(self._buffer):
            self._heed(child, kind, body, took_ns, now)
        if child.reads_end:  # it is about to end; or a job closed descriptors not its own
            self._unregister(child.socket)
            child.leaving = True
            child.leave_by = min(child.leave_by, now + self._leave_s)

    def await_room(self, child: ChildProcess) -> None:
        """Watch a child's socket for room while bytes for it are left."""
        writing = selectors.EVENT_WRITE if child.unsent else 0
        if not child.reads_end:
            self._selector.modify(child.socket, selectors.EVENT_READ | writing, child)

    def isolate(self, child: ChildProcess) -> Entry | None:
        """Leave a child nothing but the job it is at, so that nothing else can be hit.

        Returns:
            The one that has begun and, by what the child said so far, not ended. None as well
            while the child goes on with another one, about which it says so in a moment.
        """
        child.barred = True
        child.allow(None)
        self._feed.take_back(child.recall())
        relaying = child.relaying
        self.hear(child)
        return child.entries[0] if child.entries and not relaying else None

    def release(self, child: ChildProcess) -> None:
        """End what `isolate` began, for a child that lives on."""
        child.barred = False
        child.allow(self.terms)

    def allow(self, terms: Terms | None) -> None:
        """Say what children may claim by themselves."""
        if terms != self.terms:
            self.terms = terms
            for child in self.children:
                child.allow(terms)

    def retire(self, child: ChildProcess) -> None:
        """Let a child end after the job it is at."""
        self._feed.take_back(child.recall())
        child.retire()
        if not child.entries:
            child.leave_by = time.monotonic() + self._leave_s

    def replace(self, now: float) -> None:
        """Fork what is missing, later and later if children fail at their start."""
        while self.fork_due() <= now:
            try:
                self._fork()
            except OSError as error:
                logger.warning("cannot fork a pool process: %s", error)
                self._back_off(now)

    def fork_due(self) -> float:
        """Give the monotonic time of the next fork; infinity if none is missing."""
        if self.dismissed:
            return inf
        staying = len([child for child in self.children if not child.retired])
        return inf if staying >= self.size else self._fork_at

    def lose(self, job: Job, why: Lost, claim: int | None = None) -> None:
        """End a job that could not say its own outcome.

        Args:
            job: The job.
            why: What happened.
            claim: Token of what its process may have claimed.
        """
        assert self.handler is not None, "start() comes first"
        outcome = self.handler.lost(job, why)
        self.outcomes.append(outcome if claim is None else Unsure(outcome, claim))

    def report_interruption(self, entry: Entry) -> None:
        """Say, once a job, that its soft limit has passed."""
        assert self.handler is not None, "start() comes first"
        self.handler.interrupted(entry.job, entry.soft_s)
        entry.soft_s = inf

    def join(self, timeout_s: float) -> bool:
        """Wait for all children to end; False if some did not in time."""
        deadline = time.monotonic() + timeout_s
        while self.children and (left_s := deadline - time.monotonic()) > 0:
            self._selector.select(min(left_s, _BLIND_S))
            self.poll()
        return not self.children

    def close(self) -> None:
        """Close the parent's descriptors; children that live are killed by that."""
        self._selector.close()
        for child in self.children:
            child.close()
        self.children.clear()
        _crews.discard(self)

    def _heed(
        self, child: ChildProcess, kind: bytes, body: bytes, took_ns: int, now: float
    ) -> None:
        if kind in _ENDS:
            self._end(child, kind, body, took_ns, now)
        elif kind == wire.STARTED:
            child.limit(*wire.LIMITS.unpack(body))
        elif kind == wire.SPARE:
            (child.spare,) = wire.TOKEN.unpack(body)
        elif kind == wire.READY:
            child.ready = True
            self._failed_starts = 0
        elif kind == wire.BYE:
            logger.info("%s pid:%d ends: %s", child.name, child.pid, body.decode())
            child.leaving = True
            child.leave_by = now + self._leave_s

    def _end(self, child: ChildProcess, kind: bytes, body: bytes, took_ns: int, now: float) -> None:
        """Take the end of a child's first job."""
        if len(child.entries) == 1:
            self._feed.pace.note_way(now - child.head_since - took_ns / 1e9)
        child.goes_on = False
        entry = child.next_done(now)
        self._feed.pace.note(entry.job.name, took_ns / 1e9)
        if kind == wire.OUTCOME:
            self.outcomes.append(load_outcome(body))
        elif kind == wire.WENT_ON:
            self._follow(child, wire.load_step(body), now)
        elif kind == wire.UNSURE:
            assert child.spare is not None, "it said so before"
            self.outcomes.append(Unsure(load_outcome(body), child.spare))
            child.spare = None
        else:
            self.lose(entry.job, Lost("child_lost", body.decode(), child.pid))
        if entry.verdict is not None:  # it survived its signal, or that is still to come
            self.retire(child)
        elif child.leaving and not child.entries:
            child.leave_by = now + self._leave_s

    def _follow(self, child: ChildProcess, step: Step, now: float) -> None:
        """Note what a child recorded, and perhaps went on with, by itself."""
        self.outcomes.append(step)
        if step.job is None:
            return
        entry = Entry(step.job, now)
        if not self._feed.weigh(entry) and not child.entries:
            child.exclusive = True
        child.goes_on = True
        child.go_on(entry, now)
        child.spare = step.spare

    def _bury(self, child: ChildProcess) -> None:
        """Settle what a dead child leaves: its last words, the job it was at, those behind."""
        now = time.monotonic()
        self.hear(child)
        back = child.recall()
        claim = child.spare  # of what follows the first, if anything
        for entry in child.entries:
            if self.dismissed:
                self.cut_off.append(ActiveJob(entry.job, child.pid, child.head_since))
            else:
                why = entry.verdict or Lost("child_lost", child.how_it_ended())
                signum = -child.exitcode if child.exitcode and child.exitcode < 0 else None
                why = why._replace(pid=child.pid, signum=signum)
                if why.kind == "lease_lost":
                    self.outcomes.append(Cut(entry.job, why))
                elif claim is not None and child.relaying:
                    self.outcomes.append(Doubtful(entry.job, why, claim))
                else:
                    self.lose(entry.job, why, claim)
            claim = None
        child.entries.clear()
        self._feed.take_back(back)
        if child.exitcode and not self.dismissed:
            how = child.how_it_ended()
            logger.error("Process %r pid:%r exited with %r", child.name, child.pid, how)
        if not (child.ready or child.retired):
            self._back_off(now)
        self._unregister(child.socket)
        if child.watch >= 0:
            self._unregister(child.watch)
        self.children.remove(child)
        child.close()

    def _back_off(self, now: float) -> None:
        self._failed_starts += 1
        self._fork_at = now + min(_MAX_BACKOFF_S, 0.05 * 2.0 ** min(self._failed_starts, 20))

    def _fork(self) -> None:
        taken = {child.slot for child in self.children}
        slot = next(slot for slot in range(len(taken) + 1) if slot not in taken)
        self._forks += 1
        child = ChildProcess(slot, self._forks, f"{self._name}-{self._forks}")
        child.fork(self._live)
        child.allow(self.terms)
        self.children.append(child)
        self._selector.register(child.socket, selectors.EVENT_READ, child)
        if child.watch >= 0:
            self._selector.register(child.watch, selectors.EVENT_READ, child)

    def _live(self, birth: wire.Birth) -> NoReturn:
        """Become the child."""
        assert self.handler is not None
        for crew in list(_crews):
            crew.close()
        wire.main(self.handler, birth, self._wear, self._on_fork, self.relay)

    def _unregister(self, source: object) -> None:
        mapping = self._selector.get_map()
        if source in mapping:
            self._selector.unregister(source)  # type: ignore[arg-type]
