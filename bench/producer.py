"""The producer process: `python -m bench.producer COMMAND ...` prints one line of JSON."""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.app import add, library, noop, total


def enqueue(start: int, n: int) -> dict[str, Any]:
    """`.delay()` one after the other."""
    begin = time.perf_counter()
    for i in range(start, start + n):
        noop.delay(i)
    return {"seconds": time.perf_counter() - begin}


def bulk(start: int, n: int, size: int = 1000) -> dict[str, Any]:
    """Groups of `size`, as Celery's documentation sends many at once."""
    begin = time.perf_counter()
    for i in range(start, start + n, size):
        library.group(noop.s(k) for k in range(i, min(i + size, start + n))).apply_async()
    return {"seconds": time.perf_counter() - begin}


def keyed(start: int, n: int, keys: int, first: int = 0, slots: int = 1) -> dict[str, Any]:
    """`bulk`, with a limit: each job passes one of `keys` lines, from number `first` on."""
    from pgcelery.engine import Client, Gate, NewJob

    send = Client.enqueue
    gates = itertools.cycle((Gate("bench", str(first + k), slots=slots),) for k in range(keys))

    def gated(self: Client, jobs: list[NewJob], **options: Any) -> dict[str, str]:
        return send(self, [job._replace(gates=next(gates)) for job in jobs], **options)

    Client.enqueue = gated  # type: ignore[method-assign]
    return bulk(start, n) | {"sent": time.time_ns()}


def eta(start: int, n: int, countdown: int, size: int = 1000) -> dict[str, Any]:
    """`n` tasks that wait for a time far away."""
    begin = time.perf_counter()
    for i in range(start, start + n, size):
        members = range(i, min(i + size, start + n))
        library.group(noop.s(k).set(countdown=countdown) for k in members).apply_async()
    return {"seconds": time.perf_counter() - begin}


def paced(start: int, n: int, rate: int) -> dict[str, Any]:
    """`.delay()` at a fixed rate; `sent` is when each call began, in ns since the epoch."""
    sent = []
    for k in _pace(n, rate):
        sent.append(time.time_ns())
        noop.delay(start + k)
    return {"sent": sent}


def results(start: int, n: int, rate: int) -> dict[str, Any]:
    """`.delay().get()` at a fixed rate; `took` is nanoseconds until the caller has the result."""
    took = []
    for k in _pace(n, rate):
        begin = time.perf_counter_ns()
        value = noop.delay(start + k).get(timeout=30)
        took.append(time.perf_counter_ns() - begin)
        if value != start + k:
            raise RuntimeError(f"task {start + k} returned {value!r}")
    return {"took": took}


def chain(size: int, warm: int, n: int) -> dict[str, Any]:
    """Chains of `size` tasks, each step given what the one before returned."""

    def run() -> int:
        steps = library.chain(noop.s(size), *(noop.s() for _ in range(size - 1)))
        return int(steps.apply_async().get(timeout=60))

    return _timed(run, size, warm, n)


def group(size: int, warm: int, n: int) -> dict[str, Any]:
    """Groups of `size` tasks."""

    def run() -> list[int]:
        return list(library.group(noop.s(i) for i in range(size)).apply_async().get(timeout=60))

    return _timed(run, list(range(size)), warm, n)


def chord(size: int, warm: int, n: int) -> dict[str, Any]:
    """Chords of `size` tasks and a body that adds up what they return."""

    def run() -> int:
        return int(library.chord(noop.s(i) for i in range(size))(total.s()).get(timeout=60))

    return _timed(run, sum(range(size)), warm, n)


def big_chord(size: int, timeout_s: int) -> dict[str, Any]:
    """One chord whose header comes from a generator."""
    before, begin = _peak_rss(), time.perf_counter()
    result = library.chord(add.s(i, i) for i in range(size))(total.s())
    sent = time.perf_counter() - begin
    value = result.get(timeout=timeout_s)
    took = time.perf_counter() - begin
    if value != size * (size - 1):
        raise RuntimeError(f"the body returned {value!r}, not {size * (size - 1)}")
    return {"sent": sent, "took": took, "rss_before": before, "rss": _peak_rss()}


def _timed(run: Callable[[], Any], wanted: Any, warm: int, n: int) -> dict[str, Any]:
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


def _peak_rss() -> float:
    """The most memory this process ever had, in MB (Linux only).

    Not `getrusage`: its figure starts at what the process had that started this one.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def _pace(n: int, rate: int) -> Iterator[int]:
    begin = time.perf_counter() + 0.2
    for k in range(n):
        wait = begin + k / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        yield k


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    f.__name__: f
    for f in (enqueue, bulk, keyed, eta, paced, results, chain, group, chord, big_chord)
}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*map(int, sys.argv[2:]))))
