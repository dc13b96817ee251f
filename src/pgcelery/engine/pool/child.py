"""A pool child: one job after another, from a socket, by permits.

Frames and permits
------------------
The parent sends frames of jobs over a stream socket, and for each job one byte through the *permit
pipe*: ``1`` to run it, ``0`` to drop it. The child reads exactly one permit before it begins a job.
The parent holds the pipe's reading end too, so it can read permits back: the kernel decides which
of the two gets a byte, and whatever the parent gets back belongs to the jobs sent last, none of
which can begin any more. It then puts back zeros in their place.

What the child says comes back over the same socket: `HEAD`, then a body.

Going on
--------
When a job has completed that others wait for, and no permit lies in the pipe, the child tries to
record it and to claim the one that follows, by itself (`relay`). It says so before that begins. The
last one of such a row it records too. The parent knows from `SPARE`, or from what came with the
last claim, which token the next one will have.

Where children hold one job at a time, and the terms say so, it does the same after a short job that
nobody waits for, and claims the next one of the queues. Where nothing waits in the queues, the
first few children record short jobs by themselves: there is no company for an outcome to wait for.

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
import marshal
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
from functools import partial
from math import inf
from multiprocessing import process
from types import FrameType
from typing import NamedTuple, NoReturn

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.failpoint import failpoint
from pgcelery.engine.job import (
    Handler,
    Job,
    Outcome,
    Recorded,
    Run,
    State,
    Unrecorded,
    dump_outcome,
    load_jobs,
    load_outcome,
)
from pgcelery.engine.pool.page import Page
from pgcelery.engine.relay import AnswerLost, Relay, Step

logger = logging.getLogger(__name__)

HEAD = struct.Struct("!cIQ")  #: kind, length of the body, nanoseconds the job took
JOBS_HEAD = struct.Struct("!Q")  #: length of a frame of jobs
LIMITS = struct.Struct("!ddd")  #: monotonic start, then soft limit, hard limit; inf for none
TOKEN = struct.Struct("!Q")

READY = b"R"  #: the child takes jobs
OUTCOME = b"O"  #: a job's outcome
FAULT = b"F"  #: a job ended without one, with a traceback
STARTED = b"S"  #: a job with limits begins
SPARE = b"T"  #: the token under which the child may claim
WENT_ON = b"W"  #: a job's outcome is recorded, and the child begins what followed, if anything
UNSURE = b"U"  #: a job's outcome, which may be recorded, with a claim under the spare token
BYE = b"B"  #: the child will end, with the reason

RUN = ord("1")

_SHORT_NS = 20_000_000  # of a run: the way to the node and back is nothing beside a longer one
_ENDING = (
    4  # children that record by themselves what nobody waits for; each has a connection for it
)
_SETTLED = 3  # jobs after which a child does so, or it would connect for a few
_LEAVE_S = 0.1  # that claims are left to the node when there was none to be made

_PR_SET_PDEATHSIG = 1
# Loaded before any fork: the loader's lock may be held by another thread at that moment.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Birth(NamedTuple):
    """What a child is born with."""

    jobs: socket.socket  #: its end
    permits: int  #: reading end, non-blocking
    alive: int  #: reading end of the pipe that ends with the parent
    page: Page  #: shared with the parent
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
    handler: Handler,
    birth: Birth,
    wear: Wear,
    on_fork: Callable[[int, int], None] | None,
    relay: EngineConfig | None,
) -> NoReturn:
    """Live a child's life right after the fork; never returns."""
    code = 1
    try:
        _settle(birth)
        child = Child(handler, birth, wear, relay)
        if on_fork is not None:
            on_fork(birth.slot, birth.number)
        child.listen()
        handler.process_started()
        child.listen()  # once more: applications like to reset signals
        try:
            child.serve()
            code = 0
        finally:
            child.stop()
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

    def __init__(
        self, handler: Handler, birth: Birth, wear: Wear, relay: EngineConfig | None
    ) -> None:
        self._handler = handler
        self._socket = birth.jobs
        self._frames = birth.jobs.makefile("rb", buffering=65536)
        self._permits = birth.permits
        self._page = birth.page
        self._wear = wear
        self._pid = os.getpid()
        self._may_end = birth.slot < _ENDING
        self._token = 0  # of the run that began last
        self._followed = 0  # of the run that the child claimed last
        self._prepared: tuple[Job, Run] | None = None  # not claimed yet when it was opened
        self._frame: tuple[Step, bytes] | None = None  # what to say of a step once it is recorded
        self._serve_at = 0.0  # monotonic time from which it may claim from queues
        self._interrupted = 0
        self._done = 0
        self._running = False
        self._relay = None if relay is None else Relay(relay, self._say_spare)
        self._work_comes = select.poll()
        self._work_comes.register(birth.jobs, select.POLLIN)
        self._work_comes.register(birth.permits, select.POLLIN)
        self._permit_lies = select.poll()
        self._permit_lies.register(birth.permits, select.POLLIN)

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
                if self._permitted() and (reason := self._run(job)):
                    self._say(BYE, reason.encode())
                    return

    def stop(self) -> None:
        """Close what this child opened."""
        if self._relay is not None:
            self._relay.close()

    def _read_frame(self) -> bytes | None:
        if self._relay is not None and self._relay.wanted:
            self._relay.rest(self._work_comes)
        head = self._frames.read(JOBS_HEAD.size)
        if len(head) < JOBS_HEAD.size:
            return None
        (length,) = JOBS_HEAD.unpack(head)
        frame = self._frames.read(length)
        return frame if len(frame) == length else None

    def _permitted(self) -> bool:
        while True:
            try:
                return os.read(self._permits, 1)[0] == RUN
            except BlockingIOError:  # recalled at this moment; what replaces it is on its way
                self._permit_lies.poll()

    def _run(self, job: Job) -> str:
        """Run a job, and those that follow if the parent lets it; say why that was the last one."""
        following: Job | None = job
        while following is not None:
            job = following
            outcome, fault, took_ns = self._work(job)
            failpoint("child.ended")
            reason = self._worn_out()
            if outcome is None:
                self._say(FAULT, fault, took_ns)
                return reason
            following = None
            chained = job.awaited or job.token == self._followed
            alone = not chained and took_ns < _SHORT_NS and (self._serves() or self._ends())
            if isinstance(outcome, Recorded):
                self._say_step(Step(outcome.outcome, None, 0, outcome.news), took_ns)
            elif self._relay is not None and (chained or alone) and not reason:
                following = self._go_on(self._relay, job, outcome, took_ns)
            else:
                self._say(OUTCOME, dump_outcome(outcome), took_ns)
                failpoint("child.told")
        return reason

    def _go_on(self, relay: Relay, job: Job, outcome: Outcome, took_ns: int) -> Job | None:
        """Record an outcome and say what follows, or leave it to the parent."""
        relay.wanted = True
        kind, step = OUTCOME, None
        self._page.relaying = True
        if (
            outcome.state is State.COMPLETED
            and not (outcome.follow_ups or outcome.drops)
            and relay.ready
            and not self._permit_lies.poll(0)  # others wait here; and see `Page`
            and (terms := self._page.terms()) is not None
        ):
            failpoint("relay.begins")
            try:
                if job.awaited:
                    step = relay.step(job, outcome, terms, partial(self._prepare, took_ns))
                elif self._serves():
                    step = relay.serve(job, outcome, terms)
                    if step is None:
                        self._serve_at = time.monotonic() + _LEAVE_S
                ends = job.token == self._followed or self._ends()
                if step is None and ends and not job.awaited:
                    step = relay.end(job, outcome, terms)
            except AnswerLost:
                kind = UNSURE if job.awaited or terms.serves else OUTCOME
        if step is None:
            self._say(kind, dump_outcome(outcome), took_ns)
        else:
            failpoint("relay.committed")
            self._say_step(step, took_ns)
            failpoint("relay.told")
        self._page.relaying = False
        if step is None or step.job is None:
            return None
        if job.awaited:
            self._followed = step.job.token
        return step.job

    def _serves(self) -> bool:
        terms = self._page.terms()
        return terms is not None and terms.serves and time.monotonic() >= self._serve_at

    def _ends(self) -> bool:
        terms = self._page.terms()
        return self._may_end and self._done > _SETTLED and terms is not None and terms.ends

    def _prepare(self, took_ns: int, step: Step) -> None:
        """Open a job while its claim is committed; if that fails it fails once it is claimed."""
        assert step.job is not None
        self._frame = step, _frame(WENT_ON, dump_step(step), took_ns)
        with suppress(Exception):
            self._prepared = step.job, self._handler.open(step.job)

    def _work(self, job: Job) -> tuple[Outcome | Recorded | None, bytes, int]:
        """Run a job; its outcome or a traceback, and how long it took."""
        failpoint("child.opens")
        self._token = job.token
        began_ns = time.perf_counter_ns()
        outcome: Outcome | Recorded | None = None
        fault = b""
        try:
            prepared, self._prepared = self._prepared, None
            if prepared is not None and prepared[0] is job:
                run = prepared[1]
            else:
                run = self._handler.open(job)
            if run.soft_time_limit_s is not None or run.time_limit_s is not None:
                self._say_limits(run)
            ended = self._call(run)
            if not isinstance(ended, Unrecorded):
                outcome = ended
            elif os.getpid() == self._pid:
                outcome = ended.record()
        except BaseException:  # the handler broke its promise; the job still needs an end
            fault = traceback.format_exc().encode("utf-8", "backslashreplace")
        if os.getpid() != self._pid:  # the job forked, and its child came back from it
            os._exit(0)
        return outcome, fault, time.perf_counter_ns() - began_ns

    def _call(self, run: Run) -> Outcome | Unrecorded:
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
        wanted = self._page.interrupt
        if wanted == self._token != self._interrupted:
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

    def _say_spare(self, token: int) -> None:
        self._say(SPARE, TOKEN.pack(token))

    def _say_step(self, step: Step, took_ns: int) -> None:
        prepared, self._frame = self._frame, None
        if prepared is not None and prepared[0] is step:
            self._socket.sendall(prepared[1])
        else:
            self._say(WENT_ON, dump_step(step), took_ns)

    def _say(self, kind: bytes, body: bytes = b"", took_ns: int = 0) -> None:
        self._socket.sendall(_frame(kind, body, took_ns))


def _frame(kind: bytes, body: bytes, took_ns: int) -> bytes:
    return HEAD.pack(kind, len(body), took_ns) + body


def dump_step(step: Step) -> bytes:
    """Encode a step for the socket."""
    job = None if step.job is None else tuple(step.job)
    return marshal.dumps((dump_outcome(step.outcome), job, step.spare, step.news, step.more))


def load_step(data: bytes) -> Step:
    """Decode what `dump_step` made."""
    outcome, job, spare, news, more = marshal.loads(data)
    return Step(load_outcome(outcome), None if job is None else Job(*job), spare, news, more)


def _peak_memory_kib() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak


def _settle(birth: Birth) -> None:
    """Shed what was inherited: signal handlers, the mask, the terminal; and tie to the parent."""
    signal.set_wakeup_fd(-1)
    for signum in range(1, signal.NSIG):  # `valid_signals` makes objects of them all
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
    gc.collect()  # and no measure any more of how much garbage is worth a full collection


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
