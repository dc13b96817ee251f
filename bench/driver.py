"""What a peer's producer process does; the standard library is all it needs.

A peer's script hands its `Adapter` to `main`, which reads a command and prints one line of JSON.
The loops are the same for all: an adapter that blocks is called outside of any event loop, one
that is asynchronous inside its own.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bench.marks import SLOTS

WARM = 20  #: uncounted calls before a timed loop, the same for every peer
_SPARE = SLOTS - 1  #: the slot they write to

T = TypeVar("T")
Maybe = T | Awaitable[T]
Answer = dict[str, Any]


class Adapter:
    """How one library is told to do what is measured. Any method may be a coroutine's."""

    blocking = True

    def open(self) -> Maybe[None]:
        """Connect."""

    def close(self) -> Maybe[None]:
        """Disconnect."""

    def setup(self) -> Maybe[None]:
        """Make the tables in an empty database."""

    def enqueue(self, i: int) -> Maybe[None]:
        """One task, the ordinary way; returns when the broker has it."""
        raise NotImplementedError

    def bulk(self, numbers: Sequence[int]) -> Maybe[list[str]]:
        """Many, the library's best way; the ids, if results can be read by them."""
        raise NotImplementedError

    def later(self, numbers: Sequence[int], delay_s: int) -> Maybe[None]:
        """Many that are not due before `delay_s` have passed."""
        raise NotImplementedError

    def result(self, i: int) -> Maybe[int]:
        """One task, and what it returned."""
        raise NotImplementedError

    def results(self, ids: Sequence[str]) -> Maybe[list[Any]]:
        """What tasks returned that have ended."""
        raise NotImplementedError


async def _of(value: Maybe[T]) -> T:
    return await value if inspect.isawaitable(value) else value


async def _send(adapter: Adapter, start: int, n: int) -> None:
    for i in range(start, start + n):
        sent = adapter.enqueue(i)
        if sent is not None:
            await sent


async def setup(adapter: Adapter) -> Answer:
    """Make the tables."""
    await _of(adapter.setup())
    return {}


async def enqueue(adapter: Adapter, start: int, n: int) -> Answer:
    """One after the other."""
    for _ in range(WARM):
        await _of(adapter.enqueue(_SPARE))
    begin = time.perf_counter()
    await _send(adapter, start, n)
    return {"seconds": time.perf_counter() - begin}


async def put(adapter: Adapter, start: int, n: int) -> Answer:
    """One after the other, without any before."""
    await _send(adapter, start, n)
    return {}


async def bulk(adapter: Adapter, start: int, n: int, size: int = 1000) -> Answer:
    """So many a call, connected already."""
    await _of(adapter.bulk([_SPARE]))
    begin = time.perf_counter()
    for i in range(start, start + n, size):
        await _of(adapter.bulk(range(i, min(i + size, start + n))))
    return {"seconds": time.perf_counter() - begin}


async def fill(adapter: Adapter, start: int, n: int, size: int = 1000) -> Answer:
    """The same without any before; the ids of all."""
    ids: list[str] = []
    for i in range(start, start + n, size):
        ids += await _of(adapter.bulk(range(i, min(i + size, start + n))))
    return {"ids": ids}


async def check(adapter: Adapter, start: int, n: int) -> Answer:
    """How many of the ids that standard input lists returned their number."""
    ids = json.load(sys.stdin)
    wrong, right = [], 0
    for at in range(0, len(ids), 1000):
        values = await _of(adapter.results(ids[at : at + 1000]))
        for i, value in enumerate(values, start + at):
            right += value == i
            if value != i:
                wrong.append([i, repr(value)])
    return {"right": right, "wrong": wrong[:5], "wanted": n}


async def eta(adapter: Adapter, start: int, n: int, delay_s: int, size: int = 1000) -> Answer:
    """`n` tasks that wait for a time far away."""
    begin = time.perf_counter()
    for i in range(start, start + n, size):
        await _of(adapter.later(range(i, min(i + size, start + n)), delay_s))
    return {"seconds": time.perf_counter() - begin}


async def paced(adapter: Adapter, start: int, n: int, rate: int) -> Answer:
    """At a fixed rate; `sent` is when each call began, in ns since the epoch."""
    sent = []
    async for k in _pace(adapter, n, rate):
        sent.append(time.time_ns())
        await _of(adapter.enqueue(start + k))
    return {"sent": sent}


async def results(adapter: Adapter, start: int, n: int, rate: int) -> Answer:
    """At a fixed rate; `took` is nanoseconds until the caller has the result."""
    took = []
    async for k in _pace(adapter, n, rate):
        begin = time.perf_counter_ns()
        value = await _of(adapter.result(start + k))
        took.append(time.perf_counter_ns() - begin)
        if value != start + k:
            raise RuntimeError(f"task {start + k} returned {value!r}")
    return {"took": took}


async def _pace(adapter: Adapter, n: int, rate: int) -> AsyncIterator[int]:
    begin = time.perf_counter() + 0.2
    for k in range(n):
        wait = begin + k / rate - time.perf_counter()
        if wait > 0 and adapter.blocking:
            time.sleep(wait)
        elif wait > 0:
            await asyncio.sleep(wait)
        yield k


COMMANDS: dict[str, Callable[..., Coroutine[Any, Any, Answer]]] = {
    f.__name__: f for f in (setup, enqueue, put, bulk, fill, check, eta, paced, results)
}


def timed(run: Callable[[], Any], wanted: Any, warm: int, n: int) -> Answer:
    """Nanoseconds of `n` calls, one after the other, that follow `warm` uncounted ones."""
    took = []
    for k in range(warm + n):
        begin = time.perf_counter_ns()
        value = run()
        if k >= warm:
            took.append(time.perf_counter_ns() - begin)
        if value != wanted:
            raise RuntimeError(f"got {value!r}, not {wanted!r}")
    return {"took": took}


def peak_rss() -> float:
    """The most memory this process ever had, in MB (Linux only).

    Not `getrusage`: its figure starts at what the process had that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def main(adapter: Adapter) -> None:
    """Do the command of the command line, and print what it answers."""
    command, *rest = sys.argv[1:]
    numbers = [int(x) for x in rest]

    async def run() -> Answer:
        await _of(adapter.open())
        try:
            own = getattr(adapter, f"do_{command}", None)
            return own(*numbers) if own else await COMMANDS[command](adapter, *numbers)
        finally:
            await _of(adapter.close())

    answer = _drive(run()) if adapter.blocking else asyncio.run(run())
    print("\n" + json.dumps(answer), flush=True)


def _drive(work: Coroutine[Any, Any, Answer]) -> Answer:
    """Run what never waits for an event loop."""
    try:
        work.send(None)
    except StopIteration as end:
        answer: Answer = end.value
        return answer
    raise RuntimeError("an adapter that says it blocks has waited for an event loop")
