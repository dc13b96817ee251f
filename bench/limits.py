"""What limits cost PostgreSQL itself: `python -m bench.limits`, a server of its own, no workers.

    python -m bench.limits --keys 100,1000,10000,100000,1000000
    python -m bench.limits --against ../older/src    # steps without gates, and an older checkout's

A connection calls the statements of a node, 100 jobs a step. Printed is, a job: the time of its
enqueue, the time of the steps that let it through, start it, end it and give its slot back, and
of that what PostgreSQL's process computed; medians of interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
from psycopg.conninfo import conninfo_to_dict
from tests.support.nodes import SimNode, connect

from bench.services import Postgres, postgres_server
from pgcelery.engine import Client, Gate, NewJob, Outcome, State

BATCH = 100
STEPPER = Path(__file__).with_name("stepper.py")
Cost = dict[str, float]


def drained(client: Client, jobs: list[NewJob]) -> Cost:
    """Send jobs, have them all run by one node; microseconds a job."""
    count = len(jobs)
    with closing(connect(client.config.dsn)) as conn:
        node = SimNode(client, conn, "n", ["q"])
        begin = time.perf_counter()
        for start in range(0, count, 1000):
            client.enqueue(jobs[start : start + 1000])
        enqueued = time.perf_counter() - begin
        conn.execute("vacuum analyze")
        conn.execute("checkpoint")
        conn.execute("set synchronous_commit = off")
        backend = psutil.Process(conn.info.backend_pid)
        done, held = 0, []
        begin, before = time.perf_counter(), sum(backend.cpu_times()[:2])
        while done < count:
            ended = [Outcome(run.job_id, run.token, State.COMPLETED) for run in held]
            held = node.step(BATCH, ended).claims
            done += len(ended)
        took, cpu = time.perf_counter() - begin, sum(backend.cpu_times()[:2]) - before
    return {
        "enqueue": 1e6 * enqueued / count,
        "steps": 1e6 * took / count,
        "computed": 1e6 * cpu / count,
    }


def over_keys(postgres: Postgres, keys: int, count: int) -> Cost:
    """Drain jobs whose keys are drawn from so many, all of which have a line already."""
    client = postgres.migrated_database()
    with closing(client):
        if keys:
            with closing(connect(client.config.dsn)) as conn:
                conn.execute(
                    "insert into pgcelery.lines (name, key, own, slots, weight, strategy, period_s,"
                    " burst, fixed) select 'k', i::text, row('k', i::text, 1, 1, 0, null, 1, 1,"
                    " false, 1)::pgcelery.gate, 1, 1, 0, 1, 1, false"
                    " from generate_series(1, %s) i",
                    [keys],
                )
        draw = random.Random(1)
        return drained(
            client,
            [
                NewJob(
                    f"j{i}",
                    "q",
                    "t",
                    b"x" * 100,
                    gates=(Gate("k", str(draw.randint(1, keys)), slots=1),) if keys else (),
                )
                for i in range(count)
            ],
        )


def stepper(postgres: Postgres, source: Path, count: int, batch: int) -> Cost:
    """The same without gates, by the release of a checkout, in a process of its own."""
    client = postgres.migrated_database()
    client.close()
    with postgres.connect() as conn:  # a schema of that release, not of this one
        name = conninfo_to_dict(client.config.dsn)["dbname"]
        conn.execute(f"drop database {name} with (force)")
        conn.execute(f"create database {name}")
    done = subprocess.run(
        [sys.executable, str(STEPPER), client.config.dsn, str(count), str(batch)],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    )
    cost: Cost = json.loads(done.stdout)
    return cost


def measure(rounds: int, subjects: dict[str, Callable[[], Cost]]) -> None:
    """Measure all of them in each round; print medians, as rows of a table."""
    costs: dict[str, list[Cost]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, subject in subjects.items():
            costs[name].append(subject())
            print("...", name, costs[name][-1], file=sys.stderr, flush=True)
    shown = list(next(iter(costs.values()))[0])
    print("| |", " | ".join(shown), "|")
    print("|---" * (len(shown) + 1) + "|")
    for name, found in costs.items():
        middle = (statistics.median(cost[what] for cost in found) for what in shown)
        print("|", name, "|", " | ".join(f"{value:.1f} µs" for value in middle), "|")


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.limits", description=__doc__)
    parser.add_argument("--keys", default="100,1000,10000,100000,1000000")
    parser.add_argument("--against", type=Path, help="the src folder of another checkout")
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with postgres_server() as postgres:
        if options.against:
            here = Path(__file__).parents[1] / "src"
            measure(
                options.rounds,
                {
                    f"{name}, {batch} a step": lambda source=source, batch=batch: stepper(
                        postgres, source, options.jobs, batch
                    )
                    for batch in (1, BATCH)
                    for name, source in (("this", here), ("other", options.against))
                },
            )
            return
        counts = [int(keys) for keys in options.keys.split(",")]
        measure(
            options.rounds,
            {
                f"{keys:,} keys" if keys else "no gates": lambda keys=keys: over_keys(
                    postgres, keys, options.jobs
                )
                for keys in (0, *counts)
            },
        )


if __name__ == "__main__":
    main()
