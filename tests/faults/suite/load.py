"""What is sent while a fault is on, and what must come of it."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Any

from kombu.exceptions import OperationalError

from pgcelery import chain, chord, group
from tests.faults.suite.history import Call, Send

Made = tuple[Any, dict[str, Call]]  #: a signature, and what must come of it, by tag

#: One of each is sent in turn.
MIX = ("quick", "slow", "early", "retry", "chain", "early_slow", "group", "chord", "quick")
SEND_AGAIN_S = 0.3


class Maker:
    """Makes signatures of the tasks of `app`; a tag names one call of one send."""

    def __init__(self, tasks: Any, seed: int = 7) -> None:
        self.tasks = tasks
        self._random = Random(seed)

    def make(self, kind: str, number: int) -> Made:
        make: Callable[[str], Made] = getattr(self, f"_{kind}")
        return make(str(number))

    def single(self, name: str, tag: str, seconds: float = 0.0, **expected: Any) -> Made:
        """One call of a task of the application."""
        task = getattr(self.tasks, name)
        given = self._random.randrange(1000)
        options = {"seconds": seconds} if seconds else {}
        call = Call(given, self.tasks.value_of(given), **expected)
        return task.s(given, tag, **options), {tag: call}

    def _quick(self, tag: str) -> Made:
        return self.single("work", tag)

    def _slow(self, tag: str) -> Made:
        return self.single("work", tag, self._random.uniform(0.1, 0.6))

    def _long(self, tag: str) -> Made:
        return self.single("work", tag, self._random.uniform(2.5, 3.5))

    def _endless(self, tag: str) -> Made:
        return self.single("work", tag, 8.0)

    def _early(self, tag: str) -> Made:
        return self.single("early", tag, early=True)

    def _early_slow(self, tag: str) -> Made:
        return self.single("early", tag, self._random.uniform(0.1, 0.6), early=True)

    def _early_long(self, tag: str) -> Made:
        return self.single("early", tag, 1.5, early=True)

    def _retry(self, tag: str) -> Made:
        return self.single("again", tag, attempts=3)

    def _keyed(self, tag: str) -> Made:
        signature, calls = self.single("keyed", tag, self._random.uniform(0, 0.02))
        signature.kwargs["key"] = self._random.randrange(20)
        return signature, calls

    def _eta(self, tag: str) -> Made:
        signature, calls = self.single("work", tag)
        return signature.set(countdown=self._random.uniform(0.5, 5)), calls

    def _leak(self, tag: str) -> Made:
        return self.single("leak", tag)

    def _chain(self, tag: str) -> Made:
        return self._row(tag, 3)

    def _slow_chain(self, tag: str) -> Made:
        return self._row(tag, 6, 0.1)

    def _row(self, tag: str, steps: int, seconds: float = 0.0) -> Made:
        work, value_of = self.tasks.work, self.tasks.value_of
        value = self._random.randrange(1000)
        calls: dict[str, Call] = {}
        parts = []
        for place in range(steps):
            mine = f"{tag}.{place}"
            options = {"tag": mine, "seconds": seconds}
            parts.append(work.s(value, **options) if place == 0 else work.s(**options))
            after = (f"{tag}.{place - 1}",) if place else ()
            calls[mine] = Call(value, value_of(value), after=after)
            value = value_of(value)
        return chain(*parts), calls

    def _group(self, tag: str) -> Made:
        members, calls = self._members(tag, 5)
        return group(members), calls

    def _chord(self, tag: str) -> Made:
        return self.chord(tag, 6)

    def chord(self, tag: str, size: int, seconds: float = 0.05, header: str = "work") -> Made:
        """A header of so many tasks, and a body."""
        members, calls = self._members(tag, size, seconds, header)
        values = [call.value for call in calls.values()]
        body = f"{tag}.body"
        after = tuple(calls)
        calls[body] = Call(values, self.tasks.value_of(values), after=after)
        return chord(members, self.tasks.work.s(tag=body)), calls

    def _members(self, tag: str, size: int, seconds: float = 0.05, name: str = "work") -> Made:
        task, value_of = getattr(self.tasks, name), self.tasks.value_of
        given = [self._random.randrange(1000) for _ in range(size)]
        tags = [f"{tag}.{place}" for place in range(size)]
        members = [
            task.s(value, mine, seconds=self._random.uniform(0, seconds))
            for value, mine in zip(given, tags, strict=True)
        ]
        return members, {t: Call(v, value_of(v)) for t, v in zip(tags, given, strict=True)}


class Load:
    """Sends at a steady rate, in a thread. A single task that raised is sent again, by its id."""

    def __init__(self, mix: Sequence[str] = MIX, rate: float = 12.0, *, senders: int = 1) -> None:
        sys.modules.pop("tests.faults.suite.app", None)
        self.tasks: Any = importlib.import_module("tests.faults.suite.app")
        self.maker = Maker(self.tasks)
        self.sends: list[Send] = []
        self.raised = 0  #: calls that did
        self.slowest_s = 0.0  #: call
        self._kinds = self._turns(mix)
        self._rate = rate / senders
        self._senders = senders
        self._number = 0
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._threads: list[threading.Thread] = []

    @staticmethod
    def _turns(mix: Sequence[str]) -> Iterator[str]:
        while True:
            yield from mix

    def start(self) -> None:
        """Begin to send."""
        for _ in range(self._senders):
            self._threads.append(threading.Thread(target=self._go, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """Send no more."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def _go(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + 1 / self._rate, time.monotonic() - 1)
            with self._lock:
                kind = next(self._kinds)
            self.send(kind)

    def next_number(self) -> int:
        with self._lock:
            self._number += 1
            return self._number

    def adopt(self, kind: str, calls: Mapping[str, Call]) -> None:
        """Note what was sent by somebody else."""
        self.sends.append(Send(0, kind, calls, time.monotonic()))

    def send(self, kind: str, made: Made | None = None, *, number: int = 0, **options: Any) -> Send:
        """Send one, or what was `made`; noted as acknowledged once that did not raise."""
        number = number or self.next_number()
        signature, calls = made or self.maker.make(kind, number)
        if len(calls) == 1:
            options["task_id"] = f"single-{number}"
        with self._lock:
            place = len(self.sends)
            self.sends.append(Send(number, kind, calls, None))
        while True:
            began = time.monotonic()
            try:
                signature.clone().apply_async(**options)
            except OperationalError:
                self.raised += 1
                if len(calls) > 1:  # a canvas may be there now, whole, or not
                    return self.sends[place]
            else:
                self.sends[place] = self.sends[place]._replace(acked=time.monotonic())
                return self.sends[place]
            finally:
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            if self._over.wait(SEND_AGAIN_S):
                return self.sends[place]
