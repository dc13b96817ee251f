"""One pool child as its parent sees it. Nothing here blocks, and nothing decides."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from math import inf
from typing import NoReturn

from pgcelery.engine.job import Job, Lost, dump_jobs
from pgcelery.engine.pool.child import HEAD, JOBS_HEAD, Birth
from pgcelery.engine.pool.page import Page
from pgcelery.engine.relay import Terms

_MAX_READ = 8 * 1024 * 1024  #: bytes taken from one child before the others have their turn


class Entry:
    """A job inside the pool."""

    __slots__ = (
        "hard_at",
        "hard_s",
        "job",
        "sent_at",
        "soft_again_s",
        "soft_at",
        "soft_s",
        "verdict",
        "waiting_since",
        "weight_s",
    )

    def __init__(self, job: Job, waiting_since: float) -> None:
        self.job = job
        self.waiting_since = waiting_since  #: monotonic time at which the pool got it
        self.sent_at = 0.0
        self.weight_s = 0.0  #: what it is expected to take
        self.soft_at = inf  #: monotonic time of the next request to interrupt it
        self.soft_again_s = 0.25
        self.soft_s = inf  #: the soft limit itself, until it has passed
        self.hard_at = inf
        self.hard_s = inf  #: the hard limit itself
        self.verdict: Lost | None = None  #: why it was killed, if it was


class ChildProcess:
    """A forked child: its jobs, its descriptors, and what can be done to it."""

    def __init__(self, slot: int, number: int, name: str) -> None:
        self.slot = slot
        self.number = number
        self.name = name
        self.pid = 0
        self.exitcode: int | None = None  #: negative for a signal; None while it lives
        self.ready = False
        self.leaving = False  #: gets no more jobs
        self.retired = False  #: leaves for good, as the pool shrank
        self.leave_by = inf  #: monotonic time after which it is killed
        self.exclusive = False  #: its last job is slow: nothing goes behind it
        self.entries: deque[Entry] = deque()  #: begun or not, in order; the first may be running
        self.load_s = 0.0  #: sum of their weights
        self.head_since = 0.0  #: monotonic time since which the first may have been running
        self.sent = 0  #: jobs ever sent, recalled ones too
        self.runs = 0  #: jobs sent and not recalled
        self.watch = -1  #: pidfd, readable when the child has ended; -1 where there is none
        self.reads_end = False  #: the socket is at its end
        self.spare: int | None = None  #: token under which it may claim what follows its job
        self.goes_on = False  #: it claimed by itself what it is at
        self.barred = False  #: it may claim nothing
        self._unsent: deque[memoryview] = deque()
        self._got = bytearray()

    # -- birth ---------------------------------------------------------------------------------

    def fork(self, live: Callable[[Birth], NoReturn]) -> None:
        """Fork; the child lives in `live`, where it first has to close what is not its own.

        Raises:
            OSError: No descriptors, memory or processes are left; nothing is kept.
        """
        with ExitStack() as undo:
            self.socket, theirs = socket.socketpair()
            undo.callback(self.socket.close)
            undo.callback(theirs.close)
            self._permits_back, self._permits = _pipe(undo)
            alive, self._alive = _pipe(undo)
            self._page = Page()
            birth = Birth(
                theirs,
                self._permits_back,
                alive,
                self._page,
                self.name,
                self.slot,
                self.number,
                os.getpid(),
                threading.current_thread() is threading.main_thread(),
            )
            for stream in (sys.stdout, sys.stderr):
                with suppress(Exception):  # or the child would flush it once more
                    stream.flush()
            # No handler of the parent's may run in the child before the child has shed them.
            handled = [n for n in range(1, signal.NSIG) if callable(signal.getsignal(n))]
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, handled)
            try:
                self.pid = os.fork()
                if not self.pid:
                    self._be_child(birth, live)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            undo.pop_all()
        theirs.close()
        os.close(alive)
        self.socket.setblocking(False)
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):
                self.watch = os.pidfd_open(self.pid)

    def _be_child(self, birth: Birth, live: Callable[[Birth], NoReturn]) -> NoReturn:
        try:
            self.socket.close()
            os.close(self._permits)
            os.close(self._alive)
            live(birth)
        finally:
            os._exit(1)

    # -- jobs ----------------------------------------------------------------------------------

    @property
    def unsent(self) -> bool:
        """Whether bytes wait until the socket takes more."""
        return bool(self._unsent)

    def send(self, entries: list[Entry], now: float) -> None:
        """Queue jobs in the child, with a permit for each."""
        if not self.entries:
            self.head_since = now
        for entry in entries:
            self.sent += 1
            entry.sent_at = now
            self.load_s += entry.weight_s
        self.runs += len(entries)
        self.entries += entries
        body = dump_jobs([entry.job for entry in entries])
        self._unsent.append(memoryview(JOBS_HEAD.pack(len(body)) + body))
        # Permits first: a child that waits is woken by the frame alone, once, and finds them there.
        os.write(self._permits, b"1" * len(entries))
        self.flush()

    def go_on(self, entry: Entry, now: float) -> None:
        """Note the job that it went on with by itself, before those that wait in it."""
        entry.sent_at = now
        self.load_s += entry.weight_s
        self.sent += 1
        self.runs += 1
        self.entries.appendleft(entry)

    def allow(self, terms: Terms | None) -> None:
        """Say what it may claim by itself, unless it is barred or leaves."""
        self._page.allow(None if self.barred or self.leaving else terms)

    @property
    def relaying(self) -> bool:
        """Whether it may be going on by itself at this moment, so that its job has ended."""
        return self._page.relaying

    def flush(self) -> None:
        """Send what the socket takes now."""
        try:
            while self._unsent:
                frame = self._unsent[0]
                sent = self.socket.send(frame)
                if sent < len(frame):
                    self._unsent[0] = frame[sent:]
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            pass
        except OSError:  # it died; the pool hears of that by other ways
            self._unsent.clear()

    def receive(self, buffer: bytearray) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield the whole frames that are there: kind, body, nanoseconds.

        Args:
            buffer: Room to read into, shared by all children.
        """
        view = memoryview(buffer)
        taken = 0
        while taken < _MAX_READ or self.exitcode is not None:
            try:
                n = self.socket.recv_into(buffer)
            except BlockingIOError:
                return
            except OSError:
                n = 0
            if not n:
                self.reads_end = True
                return
            taken += n
            self._got += view[:n]
            yield from self._frames()
            if n < len(buffer):
                return

    def _frames(self) -> Iterator[tuple[bytes, bytes, int]]:
        got, at = self._got, 0
        with memoryview(got) as view:
            frames = []
            while len(got) - at >= HEAD.size:
                kind, length, took_ns = HEAD.unpack_from(got, at)
                end = at + HEAD.size + length
                if end > len(got):
                    break
                frames.append((kind, bytes(view[at + HEAD.size : end]), took_ns))
                at = end
        if at:
            del got[:at]
        return iter(frames)

    def next_done(self, now: float) -> Entry:
        """Take out the first entry, which has ended."""
        entry = self.entries.popleft()
        self.head_since = now
        self.load_s -= entry.weight_s
        if not self.entries:
            self.load_s, self.exclusive = 0.0, False
        return entry

    def recall(self) -> list[Entry]:
        """Take back the jobs that have not begun, in order; the child drops them."""
        try:
            permits = os.read(self._permits_back, 65536)
        except BlockingIOError:
            return []
        os.write(self._permits, b"0" * len(permits))
        back = [self.entries.pop() for _ in range(permits.count(b"1"))]
        self.load_s = sum(entry.weight_s for entry in self.entries)
        self.runs -= len(back)
        self.exclusive = self.exclusive and bool(self.entries)
        return back[::-1]

    # -- end -----------------------------------------------------------------------------------

    def limit(self, started: float, soft_s: float, hard_s: float) -> None:
        """Note the limits of the first job, in seconds from its monotonic start."""
        head = self.entries[0]
        self.head_since = started
        head.soft_at, head.hard_at = started + soft_s, started + hard_s
        head.soft_s, head.hard_s = soft_s, hard_s

    def interrupt(self, entry: Entry, now: float) -> None:
        """Ask for the soft limit's error in one job, and again later should that go unheard.

        The signal may hit between two bytecodes where nothing can be raised; in another job, or
        in one that has had the error, nothing happens.
        """
        self._page.interrupt = entry.job.token
        self.kill(signal.SIGUSR1)
        entry.soft_at = now + entry.soft_again_s
        entry.soft_again_s *= 2

    def kill(self, signum: int) -> None:
        """Send a signal, never to another process that got the same pid."""
        if self.exitcode is None:
            with suppress(ProcessLookupError):
                if self.watch >= 0:
                    signal.pidfd_send_signal(self.watch, signum)
                else:
                    os.kill(self.pid, signum)

    def retire(self) -> None:
        """Let it end by itself once it has done what it has begun."""
        self.leaving = True
        self.allow(None)
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def reap(self) -> bool:
        """Tell whether it has ended; `exitcode` is known from then on."""
        if self.exitcode is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else waited for it
                self.exitcode = 255
            else:
                self.exitcode = os.waitstatus_to_exitcode(status) if pid else None
        return self.exitcode is not None

    def close(self) -> None:
        """Close every descriptor; a child that lives is killed by that."""
        self.socket.close()
        self._page.close()
        for fd in (self._permits, self._permits_back, self._alive, self.watch):
            if fd >= 0:
                os.close(fd)

    def how_it_ended(self) -> str:
        """Describe the exit status as Celery's users know it."""
        code = self.exitcode or 0
        if code >= 0:
            return f"exitcode {code}"
        try:
            return f"signal {-code} ({signal.Signals(-code).name})"
        except ValueError:
            return f"signal {-code}"


def _pipe(undo: ExitStack) -> tuple[int, int]:
    ends = os.pipe()
    for fd in ends:
        undo.callback(os.close, fd)
        os.set_blocking(fd, False)
    return ends
