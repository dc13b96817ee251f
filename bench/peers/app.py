"""The application of the libraries that have Celery's API: `BENCH_LIBRARY` says which."""

from __future__ import annotations

import importlib
import os

from bench.marks import mark

library = importlib.import_module(os.environ["BENCH_LIBRARY"])

app = library.Celery("bench", broker=os.environ["BENCH_BROKER"])
if os.environ.get("BENCH_BACKEND"):
    app.conf.result_backend = os.environ["BENCH_BACKEND"]
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=os.environ.get("BENCH_STORED") == "0",
    worker_max_tasks_per_child=None,
)
if os.environ.get("BENCH_STRICT") == "1":
    app.conf.update(worker_prefetch_multiplier=1, task_acks_late=True)
if os.environ.get("BENCH_QUEUES"):
    from kombu import Queue

    names = [f"q{i}" for i in range(int(os.environ["BENCH_QUEUES"]))]
    app.conf.task_queues = [Queue(name) for name in names] if len(names) > 1 else None
if os.environ.get("BENCH_EXPIRES"):
    app.conf.result_expires = float(os.environ["BENCH_EXPIRES"])


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
