"""What a snapshot that is left open costs: `python -m tests.faults.pinned --tasks 200000`.

Nothing that tasks leave behind can be cleaned up while a transaction in REPEATABLE READ is open.
Rounds without and with one take turns, each with a server of its own. In each, all tasks are sent,
and then one worker starts: from its first task to its last.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from pgcelery import group
from tests.faults.suite.trial import Fault, Ground
from tests.support.wait import wait_for

WORST = 0.7  #: throughput with a snapshot, of that without


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


@contextmanager
def snapshot(dsn: str, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    with psycopg.connect(dsn) as conn:
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select count(*) from pgcelery.jobs")
        yield


def one_round(tasks: int, slots: int, pinned: bool) -> dict[str, Any]:
    folder = Path(tempfile.mkdtemp(prefix="pgcelery-pinned-"))
    fault = Fault("pinned", "", lambda ground: None, slots=slots, direct=True, lease_s=30)
    ground = Ground(fault, folder, quick=False)
    marks = Path(f"{ground.oracle}.marks")
    try:
        ground.server.execute("drop trigger note on pgcelery.results")
        ground.server.execute("alter system set autovacuum_naptime = '5s'")
        ground.server.execute("select pg_reload_conf()")
        with snapshot(ground.server.dsn, pinned):
            for start in range(0, tasks, 1000):
                many = min(1000, tasks - start)
                group(ground.load.tasks.mark.s() for _ in range(many)).apply_async()
            ground.server.execute("vacuum analyze")
            ground.start_worker(wait=False)
            wait_for(lambda: marks.stat().st_size > 0, 60)
            began, first = time.monotonic(), marks.stat().st_size
            half_s = 0.0

            def done() -> bool:
                nonlocal half_s
                size = marks.stat().st_size
                if not half_s and size >= tasks / 2:
                    half_s = time.monotonic() - began
                return size >= tasks

            wait_for(done, 60 + tasks / 50)
            took_s = time.monotonic() - began
        dead = ground.server.execute("select sum(n_dead_tup)::bigint from pg_stat_user_tables")
        ground.fleet.stop()
    finally:
        ground.close()
    rate = (tasks - first) / took_s
    second = tasks / 2 / (took_s - half_s)
    return {"pinned": pinned, "rate": rate, "second_half": second, "dead": dead[0][0]}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.faults.pinned", description=__doc__)
    parser.add_argument("--tasks", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=os.cpu_count() or 2)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    rounds, ratios = [], []
    for number in range(args.rounds):
        pair = {}
        for pinned in (False, True) if number % 2 == 0 else (True, False):
            pair[pinned] = one_round(args.tasks, args.slots, pinned)
            rounds.append(pair[pinned])
            say(
                f"{number + 1}  {'with   ' if pinned else 'without'} a snapshot:"
                f" {pair[pinned]['rate']:.0f} tasks/s, second half"
                f" {pair[pinned]['second_half']:.0f}, {pair[pinned]['dead']} dead rows"
            )
        ratios.append(pair[True]["rate"] / pair[False]["rate"])
    ratio = median(ratios)
    say(f"{args.tasks} tasks, throughput with a snapshot: {ratio:.2f} of that without")
    if args.json:
        told = {"tasks": args.tasks, "ratio": ratio, "ratios": ratios, "rounds": rounds}
        args.json.write_text(json.dumps(told, indent=1) + "\n")
    return 0 if ratio > WORST else 1


if __name__ == "__main__":
    sys.exit(main())
