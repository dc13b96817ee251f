"""A pool child: one job after another, from a socket, by permits.

Frames and permits
------------------
The parent sends frames of jobs over a stream socket, and for each job one byte through the *permit
pipe*: ``1`` to run it, ``0`` to drop it. The child reads exactly one permit before it begins a job.
The parent holds the pipe's reading end too, so it can read permits back: the kernel decides which
of the two gets a byte, and whatever the parent gets back belongs to the jobs sent last, none of
which can begin any more. It then puts back zeros in their place.

What the child says comes back over the same socket: `HEAD`, then a body.

A child never outlives its parent
---------------------------------
On Linux the kernel sees to it, so that a job blocked in C with the GIL held dies too: the reading
end of a pipe that only the parent holds open is set to deliver SIGKILL (``F_SETSIG``) when it
closes, and, where the main thread forked, ``PR_SET_PDEATHSIG`` as well (which would fire at the end
of the forking *thread*, and so serves no other). Elsewhere a thread waits for the pipe's end.
"""

from __future__ import annotations

import ctypes
import fcntl
import gc
import logging
import mmap
import os
import resource
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from math import inf
from multiprocessing import process
from types import FrameType
from typing import NamedTuple, NoReturn

from pgcelery.engine.job import Handler, Job, Outcome, Run, dump_outcome, load_jobs

logger = logging.getLogger(__name__)

HEAD = struct.Struct("!cIQ")  #: kind, length of the body, nanoseconds the job took
JOBS_HEAD = struct.Struct("!Q")  #: length of a frame of jobs
LIMITS = struct.Struct("!ddd")  #: monotonic start, then soft limit, hard limit; inf for none
SERIAL = struct.Struct("=Q")  #: number of the job to interrupt, in the shared page

READY = b"R"  #: the child takes jobs
OUTCOME = b"O"  #: a job's outcome
FAULT = b"F"  #: a job ended without one, with a traceback
STARTED = b"S"  #: a job with limits begins
BYE = b"B"  #: the child will end, with the reason

RUN = ord("1")

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the loader's lock may be held by another thread at that moment.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Birth(NamedTuple):
    """What a child is born with."""

    jobs: socket.socket  #: its end
    permits: int  #: reading end, non-blocking
    alive: int  #: reading end of the pipe that ends with the parent
    page: mmap.mmap  #: shared with the parent
    name: str
    slot: int  #: which of the pool's, from 0
    number: int  #: counts the pool's children, from 1
    parent_pid: int
    from_main_thread: bool


class Wear(NamedTuple):
    """When a child has done enough."""

    max_jobs: int | None = None
    max_memory_kib: int | None = None  #: of peak resident memory, looked at after each job


def main(
    handler: Handler, birth: Birth, wear: Wear, on_fork: Callable[[int, int], None] | None
) -> NoReturn:
    """Live a child's life right after the fork; never returns."""
    code = 1
    try:
        _settle(birth)
        child = Child(handler, birth, wear)
        if on_fork is not None:
            on_fork(birth.slot, birth.number)
        child.listen()
        handler.process_started()
        child.listen()  # once more: applications like to reset signals
        try:
            child.serve()
            code = 0
        finally:
            handler.process_stopping(code)
    except BaseException:
        code = 1
        logger.exception("pool process %d failed", os.getpid())
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        os._exit(code)


class Child:
    """Takes jobs from the socket, runs those with a permit, says what became of them."""

    def __init__(self, handler: Handler, birth: Birth, wear: Wear) -> None:
        self._handler = handler
        self._socket = birth.jobs
        self._frames = birth.jobs.makefile("rb", buffering=65536)
        self._permits = birth.permits
        self._page = birth.page
        self._wear = wear
        self._pid = os.getpid()
        self._serial = 0  # of the job whose permit was read last
        self._interrupted = 0
        self._done = 0
        self._running = False

    def listen(self) -> None:
        """Let SIGUSR1 interrupt a job; between jobs it does nothing."""
        signal.signal(signal.SIGUSR1, self._interrupt)

    def serve(self) -> None:
        """Run jobs until the parent closes its end, or the child is worn out."""
        self._say(READY)
        while (frame := self._read_frame()) is not None:
            jobs = deque(load_jobs(frame))
            del frame
            while jobs:
                job = jobs.popleft()
                if self._permitted():
                    self._work(job)
                    if reason := self._worn_out():
                        self._say(BYE, reason.encode())
                        return

    def _read_frame(self) -> bytes | None:
        head = self._frames.read(JOBS_HEAD.size)
        if len(head) < JOBS_HEAD.size:
            return None
        (length,) = JOBS_HEAD.unpack(head)
        frame = self._frames.read(length)
        return frame if len(frame) == length else None

    def _permitted(self) -> bool:
        self._serial += 1
        while True:
            try:
                return os.read(self._permits, 1)[0] == RUN
            except BlockingIOError:  # recalled at this moment; what replaces it is on its way
                waiting = select.poll()
                waiting.register(self._permits, select.POLLIN)
                waiting.poll()

    def _work(self, job: Job) -> None:
        began_ns = time.perf_counter_ns()
        try:
            run = self._handler.open(job)
            if run.soft_time_limit_s is not None or run.time_limit_s is not None:
                self._say_limits(run)
            kind, body = OUTCOME, dump_outcome(self._call(run))
        except BaseException:  # the handler broke its promise; the job still needs an end
            kind, body = FAULT, traceback.format_exc().encode("utf-8", "backslashreplace")
        if os.getpid() != self._pid:  # the job forked, and its child came back from it
            os._exit(0)
        self._say(kind, body, time.perf_counter_ns() - began_ns)

    def _call(self, run: Run) -> Outcome:
        self._running = True
        try:
            return run()
        finally:
            self._running = False

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        """Raise in the running job if it is the one the parent means; signals may come late.

        In `_call` itself the job has not begun or has just ended; the parent asks again.
        """
        if not self._running or (frame is not None and frame.f_code is Child._call.__code__):
            return
        (wanted,) = SERIAL.unpack_from(self._page)
        if wanted == self._serial != self._interrupted:
            self._interrupted = wanted
            raise self._handler.soft_limit_error()

    def _worn_out(self) -> str:
        self._done += 1
        most = self._wear.max_memory_kib
        if most is not None and (used := _peak_memory_kib()) > most:
            return f"it used {used} KiB of memory, more than {most}"
        if self._wear.max_jobs is not None and self._done >= self._wear.max_jobs:
            return f"it ran {self._done} jobs"
        return ""

    def _say_limits(self, run: Run) -> None:
        soft_s, hard_s = (
            inf if s is None else s for s in (run.soft_time_limit_s, run.time_limit_s)
        )
        self._say(STARTED, LIMITS.pack(time.monotonic(), soft_s, hard_s))

    def _say(self, kind: bytes, body: bytes = b"", took_ns: int = 0) -> None:
        self._socket.sendall(HEAD.pack(kind, len(body), took_ns) + body)


def _peak_memory_kib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def _settle(birth: Birth) -> None:
    """Shed what was inherited: signal handlers, the mask, the terminal; and tie to the parent."""
    signal.set_wakeup_fd(-1)
    for signum in signal.valid_signals():
        if callable(signal.getsignal(signum)):
            signal.signal(signum, signal.SIG_DFL)
    for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(signum, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _die_with_parent(birth)
    with open(os.devnull, "rb") as null:
        os.dup2(null.fileno(), 0, inheritable=True)
    process.current_process().name = birth.name  # logging's processName
    gc.freeze()  # what was inherited is not walked any more, so its pages stay shared


def _die_with_parent(birth: Birth) -> None:
    if _LIBC is not None:
        if birth.from_main_thread:
            _LIBC.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        fcntl.fcntl(birth.alive, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(birth.alive, fcntl.F_SETSIG, signal.SIGKILL)
        flags = fcntl.fcntl(birth.alive, fcntl.F_GETFL)
        fcntl.fcntl(birth.alive, fcntl.F_SETFL, flags | os.O_ASYNC)
    else:
        threading.Thread(target=_watch_parent, args=(birth.alive,), daemon=True).start()
    if os.getppid() != birth.parent_pid:  # it was quicker
        os._exit(1)


def _watch_parent(alive: int) -> None:
    os.read(alive, 1)
    os.kill(os.getpid(), signal.SIGKILL)
