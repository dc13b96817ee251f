"""`python -m bench growth`: what a task costs when there is much of everything.

Backlogs are made by SQL (`bench/backlog.py`). A rate is that of the tasks after the first two
fifths, when all workers are warm; processor time is of those, too.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg

from bench import backlog, report, venvs
from bench.catalog import make
from bench.marks import Marks
from bench.peer import OnPostgres, Setup
from bench.processes import Machine, Worker
from bench.run import facts_of
from bench.services import Services
from bench.targets import TARGETS, verdict
from pgcelery.engine import Client, EngineConfig

Row = dict[str, float | str]
PROBE = 20_000
EXPIRES_S = 20  #: how long results are kept where retention is looked at


@dataclass(frozen=True)
class Field:
    """What every subject needs."""

    marks: Marks
    peer: OnPostgres
    scale: float

    def many(self, n: int) -> int:
        """So many at this scale."""
        return max(1_000, int(n * self.scale))


Subject = Callable[[Field], list[Row]]


def waiting(field: Field) -> list[Row]:
    """Send and run at a backlog: none, 1 million, 10 million."""
    rows: list[Row] = []
    for n in (0, 1_000_000, 10_000_000):
        size = field.many(n) if n else 0
        filled_s = _fill(field, max(size, PROBE))
        took = field.peer.produce("enqueue", 0, 500)["seconds"]
        with field.peer.worker() as worker:
            cost = _cost(field, [worker], PROBE)
        rows.append({"waiting": size, "send_us": 1e6 * took / 500, **cost, "filled_s": filled_s})
    kept = float(rows[-1]["rate"]) / float(rows[0]["rate"])
    rows[-1]["kept"] = kept
    target = next(t for t in TARGETS if t.measure == "backlog_kept")
    said = verdict(target, kept) if field.scale == 1 else "too small a scale to judge"
    print(f"rate at the largest backlog, of that without: {kept:.2f}, {said}")
    return rows


def queues(field: Field) -> list[Row]:
    """One worker that serves 1, 100 and 10,000 queues."""
    rows: list[Row] = []
    for n in (1, 100, 10_000):
        setup = Setup(environment={"BENCH_QUEUES": str(n)})
        _fill(field, PROBE, queues=n)
        with field.peer.worker(setup) as worker:
            began = worker.started_ns
            cost = _cost(field, [worker], PROBE)
            first = min(field.marks.read(backlog.FIRST, PROBE))
        rows.append({"queues": n, "start_s": (first - began) / 1e9, **cost})
    return rows


def nodes(field: Field) -> list[Row]:
    """1 to 8 worker nodes of one process each on one database."""
    rows: list[Row] = []
    size = field.many(100_000)
    for n in (1, 2, 4, 8):
        _fill(field, size)
        with ExitStack() as stack:
            workers = [stack.enter_context(field.peer.worker(Setup(children=1))) for _ in range(n)]
            rows.append({"nodes": n, **_cost(field, workers, size)})
    return rows


def pinned(field: Field) -> list[Row]:
    """A drain while a transaction keeps what it deletes from being vacuumed."""
    rows: list[Row] = []
    size = field.many(200_000)
    for held in (False, True):
        _fill(field, size)
        with psycopg.connect(field.peer.dsn) as conn, field.peer.worker() as worker:
            if held:
                conn.execute("set transaction isolation level repeatable read")
                conn.execute("select 1 from pg_catalog.pg_class limit 1")
            cost = _cost(field, [worker], size)
        times = sorted(field.marks.read(backlog.FIRST, size))
        fifth = size // 5
        rows.append(
            {
                "snapshot": "held" if held else "none",
                "first_fifth": fifth * 1e9 / (times[fifth] - times[0]),
                "last_fifth": fifth * 1e9 / (times[-1] - times[-fifth - 1]),
                **cost,
            }
        )
    return rows


def passed(field: Field) -> list[Row]:
    """Rate and sizes while 5 million tasks pass whose results expire."""
    rows: list[Row] = []
    portion = field.many(500_000)
    setup = Setup(environment={"BENCH_EXPIRES": str(EXPIRES_S)})
    _fill(field, portion, setup=setup)
    with field.peer.worker(setup) as worker:
        for number in range(10):
            if number:
                _fill(field, portion, setup=setup, fresh=False)
                field.peer.produce("put", 0, 1, setup=setup)  # what SQL put there wakes nobody
            cost = _cost(field, [worker], portion)
            rows.append({"passed": (number + 1) * portion, **cost, **_sizes(field.peer)})
    return rows


SUBJECTS: dict[str, Subject] = {f.__name__: f for f in (waiting, queues, nodes, pinned, passed)}


def main(arguments: list[str]) -> int:
    """Measure, print, write; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument("--only", default=",".join(SUBJECTS), help="subjects, comma separated")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the sizes")
    parser.add_argument("-c", "--concurrency", type=int, default=2, help="pool children (2)")
    parser.add_argument("--venvs", type=Path, default=venvs.CACHE, help="where environments are")
    parser.add_argument("--no-venvs", action="store_true", help="use this interpreter")
    parser.add_argument("--json", type=Path, default=Path("bench-growth.json"))
    options = parser.parse_args(arguments)
    names = options.only.split(",")
    for name in names:
        if name not in SUBJECTS:
            parser.error(f"no {name!r}; there are {', '.join(SUBJECTS)}")
    found: dict[str, list[Row]] = {}
    others: dict[str, float] = {}
    with ExitStack() as stack:
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        marks = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)), "marks")
        services = Services()
        where = None if options.no_venvs else options.venvs
        [peer] = make(["pgcelery"], stack, services, marks, options.concurrency, where)
        assert isinstance(peer, OnPostgres)
        field = Field(Marks(marks), peer, options.scale)
        about = facts_of([peer], services) | {
            "concurrency": options.concurrency,
            "scale": options.scale,
        }
        for name in names:
            machine = Machine(peer.servers())
            found[name] = SUBJECTS[name](field)
            others[name] = machine.others()
            print(f"\n{name}\n{report.plain(report.growth_table(found[name]))}", flush=True)
    whole = {"about": about, "growth": found, "others_cores": others}
    options.json.write_text(json.dumps(whole, indent=1) + "\n")
    print(f"\nEvery value: {options.json}")
    return 0


def _fill(
    field: Field, n: int, *, queues: int = 1, setup: Setup | None = None, fresh: bool = True
) -> float:
    """Have `n` tasks wait, in a new database if it is to be fresh; seconds."""
    peer = field.peer
    if fresh:
        peer.reset()
        field.marks.clear()
    else:
        field.marks.zero(backlog.FIRST, n)
    begin = time.monotonic()
    ids: list[int] = []
    if queues > 1:
        client = Client(EngineConfig(dsn=peer.dsn))
        names = [f"q{i}" for i in range(queues)]
        for start in range(0, queues, 1_000):
            ids += client.intern(names[start : start + 1_000]).values()
        client.close()
    if fresh:
        peer.produce("put", backlog.TEMPLATE, 1, setup=setup or Setup())
        backlog.keep_template(peer.dsn)
    backlog.fill(peer.dsn, n, ids)
    if fresh:
        peer.settle()
    return time.monotonic() - begin


def _cost(field: Field, workers: list[Worker], n: int) -> Row:
    """Rate and processor time of the last three fifths of `n` tasks."""
    marks, peer = field.marks, field.peer

    def alive() -> bool:
        return all(worker.alive() for worker in workers)

    def used() -> tuple[float, float]:
        return sum(worker.cpu() for worker in workers), peer.broker_cpu()

    marks.wait(backlog.FIRST, n, 1800, alive, enough=2 * n // 5)
    began, before, begin = _done(field, n), used(), time.monotonic()
    marks.wait(backlog.FIRST, n, 1800, alive)
    after, took = used(), time.monotonic() - begin
    ran = n - began
    return {
        "rate": ran / took,
        "worker_us": 1e6 * (after[0] - before[0]) / ran,
        "server_us": 1e6 * (after[1] - before[1]) / ran,
    }


def _done(field: Field, n: int) -> int:
    return n - list(field.marks.read(backlog.FIRST, n)).count(0)


def _sizes(peer: OnPostgres) -> Row:
    """Megabytes of the tables that tasks pass through, with their indexes."""
    names = ("jobs", "ready", "running", "results")
    with peer.connect() as conn:
        query = "select pg_total_relation_size(('pgcelery.' || %s)::regclass) / 1e6"
        sizes = [conn.execute(query, [name]).fetchone() for name in names]
        indexes = conn.execute(
            "select sum(pg_indexes_size(c.oid)) / 1e6 from pg_catalog.pg_class c"
            " where c.relnamespace = 'pgcelery'::regnamespace and c.relkind = 'r'"
        ).fetchone()
    shown = {f"{name}_mb": float(row[0]) for name, row in zip(names, sizes, strict=True) if row}
    return {**shown, "indexes_mb": float(indexes[0]) if indexes else 0.0}
