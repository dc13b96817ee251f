"""`python bench/stepper.py DSN JOBS BATCH`: drain plain jobs by whichever release is on the path.

Prints microseconds a job of enqueue, of step, and of processor time of the latter's backend, in one
line of JSON.

Not part of the package, so that it can be run against an older checkout: it asks for no more than
what both have.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from contextlib import suppress
from typing import Any

import psutil
import psycopg

from pgcelery.engine import Client, EngineConfig, NewJob, Outcome, State, arrays, outbox
from pgcelery.engine.database import load


def main(dsn: str, count: int, batch: int) -> None:
    client = Client(EngineConfig(dsn=dsn))
    client.migrate()
    queue = client.intern(["q"])["q"]
    params: list[Any] = [arrays.IntegerArray.of([queue])]
    extra: list[Any] = []
    with suppress(ModuleNotFoundError):  # there are no places before limits
        module = importlib.import_module("pgcelery.engine.territory")
        territory = module.Territory({"worker": "w"}, 1)
        territory.serve({"q": queue})
        params, extra = territory.params(0), [60.0]
    conn = psycopg.connect(dsn, autocommit=True)
    arrays.register(conn.adapters)
    conn.execute("set synchronous_commit = off")
    cursor = psycopg.RawCursor(conn)
    me = cursor.execute(
        load("nodes/register", "pgcelery"),
        ["w", "h", 1, arrays.TextArray.of(["q"]), "{}", 3600.0],
    ).fetchone()[0]
    jobs = [NewJob(f"j{i}", "q", "t", b"x" * 100) for i in range(count)]
    begin = time.perf_counter()
    for start in range(0, count, 1000):
        client.enqueue(jobs[start : start + 1000])
    enqueued = time.perf_counter() - begin
    conn.execute("vacuum analyze")
    conn.execute("checkpoint")
    statement = load("nodes/step", "pgcelery")
    backend = psutil.Process(conn.info.backend_pid)
    done, held = 0, []
    begin, before = time.perf_counter(), sum(backend.cpu_times()[:2])
    while done < count:
        ended = outbox.ended_params(held, lambda key: queue)
        rows = cursor.execute(statement, [me, batch, *params, *extra, *ended]).fetchall()
        done += len(held)
        held = sorted(
            (Outcome(row[1], row[2], State.COMPLETED) for row in rows if row[0] == 0),
            key=lambda one: one.token,
        )
    took, cpu = time.perf_counter() - begin, sum(backend.cpu_times()[:2]) - before
    measured = {"enqueue": enqueued, "step": took, "step_cpu": cpu}
    print(json.dumps({name: 1e6 * value / count for name, value in measured.items()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
