"""The application under fault; settings come from the environment, for worker and sender alike."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any, NoReturn

from pgcelery import Celery, Concurrency
from pgcelery.compat.app.handler import TaskHandler
from pgcelery.engine import Job, Outcome
from tests.faults.suite.oracle import Pen

PRIME = 1_000_003

app = Celery("faults", broker=os.environ["FAULTS_DSN"], backend=os.environ["FAULTS_DSN"])
app.conf.update(json.loads(os.environ.get("FAULTS_SETTINGS", "{}")))
PEN = Pen(os.environ["FAULTS_ORACLE"])
_now = threading.local()


class Noting:
    """A run that lets the body know its token: nothing that a task sees tells it."""

    def __init__(self, run: Any, job: Job) -> None:
        self._run, self._job = run, job
        self.soft_time_limit_s, self.time_limit_s = run.soft_time_limit_s, run.time_limit_s

    def __call__(self) -> Outcome:
        _now.job = self._job
        return self._run()


_open = TaskHandler.open
TaskHandler.open = lambda self, job: Noting(_open(self, job), job)  # type: ignore[method-assign]


def note(what: str, task: Any, tag: str, given: Any = None) -> None:
    job = _now.job
    PEN.note(
        what,
        id=job.id,
        token=job.token,
        delivery=job.delivery,
        tag=tag,
        attempt=task.request.retries,
        node=task.request.hostname,
        given=given,
    )


def value_of(given: Any) -> int:
    """What a task makes of a number, or of a list of numbers; depends on their order."""
    if isinstance(given, list):
        number = 7
        for item in given:
            number = (number * 31 + item) % PRIME
        return number
    return (given * 3 + 1) % PRIME


def rest(seconds: float) -> None:
    threading.Event().wait(seconds)


LATE = {"acks_late": True, "reject_on_worker_lost": True, "bind": True}


@app.task(name="work", **LATE)
def work(self: Any, given: Any, tag: str, seconds: float = 0.0) -> int:
    note("begun", self, tag, given)
    rest(seconds)
    note("ended", self, tag)
    return value_of(given)


@app.task(name="early", bind=True)
def early(self: Any, given: Any, tag: str, seconds: float = 0.0) -> int:
    note("begun", self, tag, given)
    rest(seconds)
    note("ended", self, tag)
    return value_of(given)


@app.task(name="again", max_retries=5, **LATE)
def again(self: Any, given: Any, tag: str, seconds: float = 0.0) -> int:
    """Ask for two retries, then return."""
    note("begun", self, tag, given)
    rest(seconds)
    note("ended", self, tag)
    if self.request.retries < 2:
        raise self.retry(countdown=0.3)
    return value_of(given)


@app.task(name="keyed", concurrency=Concurrency("key:{key}", limit=2), **LATE)
def keyed(self: Any, given: Any, tag: str, seconds: float = 0.0, key: int = 0) -> int:
    note("begun", self, tag, given)
    rest(seconds)
    note("ended", self, tag)
    return value_of(given)


MARKS = os.open(os.environ["FAULTS_ORACLE"] + ".marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND)


@app.task(name="mark", ignore_result=True)
def mark() -> None:
    """As little as a task can do, and be counted."""
    os.write(MARKS, b".")


@app.task(name="fragile", **LATE)
def fragile(self: Any, given: Any, tag: str, seconds: float = 0.0) -> int:
    """One in twenty kills its process, the first time."""
    note("begun", self, tag, given)
    if given % 20 == 0 and _now.job.delivery == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    note("ended", self, tag)
    return value_of(given)


@app.task(name="bad", **LATE)
def bad(self: Any, given: Any, tag: str, how: str) -> NoReturn:
    """End its own process, or try to."""
    note("begun", self, tag, given)
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(3)
    elif how == "SystemExit":
        sys.exit(3)
    elif how == "KeyboardInterrupt":
        raise KeyboardInterrupt
    raise AssertionError(how)


@app.task(name="hang", time_limit=3, **LATE)
def hang(self: Any, given: Any, tag: str) -> None:
    """Sleep in C with the GIL held, deaf to SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    note("begun", self, tag, given)
    ctypes.PyDLL(None).sleep(60)


@app.task(name="block", **LATE)
def block(self: Any, given: Any, tag: str, seconds: int, holding: bool) -> int:
    """Sleep in C, without the GIL or, the first time, with it."""
    note("begun", self, tag, given)
    holding = holding and _now.job.delivery == 1
    if not holding and _now.job.delivery > 1:
        seconds = 0
    (ctypes.PyDLL if holding else ctypes.CDLL)(None).sleep(seconds)
    note("ended", self, tag)
    return value_of(given)


LEAK: list[bytearray] = []


@app.task(name="leak", **LATE)
def leak(self: Any, given: Any, tag: str, megabytes: int = 20) -> int:
    note("begun", self, tag, given)
    LEAK.append(bytearray(os.urandom(1024)) * (megabytes * 1024))
    note("ended", self, tag)
    return value_of(given)
