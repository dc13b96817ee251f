"""The producer process: `python -m bench.producer COMMAND ...` prints one line of JSON."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

from bench.app import library, noop


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


def _pace(n: int, rate: int) -> Iterator[int]:
    begin = time.perf_counter() + 0.2
    for k in range(n):
        wait = begin + k / rate - time.perf_counter()
        if wait > 0:
            time.sleep(wait)
        yield k


COMMANDS: dict[str, Callable[..., dict[str, Any]]] = {
    f.__name__: f for f in (enqueue, bulk, eta, paced, results)
}

if __name__ == "__main__":
    print(json.dumps(COMMANDS[sys.argv[1]](*map(int, sys.argv[2:]))))
