"""The application under test: the same code for both libraries, chosen by `BENCH_LIBRARY`."""

from __future__ import annotations

import importlib
import os

from bench.marks import mark

library = importlib.import_module(os.environ["BENCH_LIBRARY"])

app = library.Celery(
    "bench", broker=os.environ["BENCH_BROKER"], backend=os.environ["BENCH_BACKEND"]
)
app.conf.broker_connection_retry_on_startup = True


@app.task
def noop(i: int) -> int:
    """Say that it ran."""
    return mark(i)


@app.task
def add(x: int, y: int) -> int:
    """Member of the big chord: too many to have a slot each."""
    return x + y


@app.task
def total(values: list[int]) -> int:
    """Body of the chords."""
    return sum(values)
