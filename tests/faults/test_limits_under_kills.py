"""Limits while workers are killed: at no instant too many, and nothing is held for ever.

Proved twice: by what the bodies noted when they began and ended, and by the rows of `running`.
LIMITS_TASKS and LIMITS_KEYS make it larger (`make limits`).

Promises P14, P15 of docs/guarantees.md.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, EngineConfig, Gate, NewJob
from tests.faults.limit_worker import LEASE_S, MAINTAIN_S
from tests.support.process import Process
from tests.support.wait import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow, pytest.mark.timeout(1200)]

TASKS = int(os.environ.get("LIMITS_TASKS", "5000"))
KEYS = int(os.environ.get("LIMITS_KEYS", "100"))
SLACK_S = 1.0  #: beats and looks come in steps


def slots_of(key: str) -> int:
    return 1 + int(key) % 3


class Fleet:
    """Workers, and when each was killed."""

    def __init__(self, dsn: str, folder: Path, spawn: Callable[..., Process]) -> None:
        self._dsn, self._folder, self._spawn = dsn, folder, spawn
        self._numbers = itertools.count()
        self.alive: dict[Path, Process] = {}
        self.killed: dict[Path, int] = {}

    def start(self, count: int = 1) -> None:
        new = {}
        for _ in range(count):
            log = self._folder / f"runs{next(self._numbers)}.log"
            args = [sys.executable, "-m", "tests.faults.limit_worker", self._dsn, str(log)]
            new[log] = self._spawn(args)
        for process in new.values():
            process.wait_for_output("ready")
        self.alive |= new

    def kill_one(self) -> int:
        """Kill the oldest; gives its process id."""
        log, process = next(iter(self.alive.items()))
        process.send(signal.SIGKILL)
        process.wait()
        self.killed[log] = time.monotonic_ns()
        del self.alive[log]
        return process.pid

    def runs(self) -> Iterator[tuple[str, str, int, int]]:
        """Id, key, begin and end of each run. One that was cut short ended with its worker."""
        for log in [*self.alive, *self.killed]:
            began: dict[str, tuple[str, str, int]] = {}
            for line in log.read_text().splitlines():
                what, id, key, token, at = line.split()
                if what == "S":
                    began[token] = (id, key, int(at))
                else:
                    yield (*began.pop(token), int(at))
            for id, key, at in began.values():
                assert log in self.killed, f"{id} never ended"
                yield id, key, at, self.killed[log]


@pytest.fixture
def client(fresh_dsn: str) -> Iterator[Client]:
    with closing(Client(EngineConfig(dsn=fresh_dsn))) as client:
        client.migrate()
        yield client


@pytest.fixture
def fleet(fresh_dsn: str, tmp_path: Path, spawn: Callable[..., Process]) -> Fleet:
    return Fleet(fresh_dsn, tmp_path, spawn)


class Watch:
    """Looks at `running` again and again: who is above the limit, who runs for a dead worker."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._over = threading.Event()
        self.looks = 0
        self.above: list[Any] = []
        self.held: dict[int, int] = {}  # worker's id -> when it was last seen to hold a run

    @contextmanager
    def going(self) -> Iterator[None]:
        thread = threading.Thread(target=self._go)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(10)

    def _go(self) -> None:
        with psycopg.connect(self._dsn, autocommit=True) as conn:
            while not self._over.wait(0.03):
                self.above += conn.execute(
                    "select g.key, count(*) from pgcelery.running r join pgcelery.jobs j"
                    " on j.id = r.job_id cross join lateral unnest(j.gates) g"
                    " group by g.key, g.slots having count(*) > g.slots"
                ).fetchall()
                for (worker,) in conn.execute(
                    "select distinct worker_id from pgcelery.running"
                ).fetchall():
                    self.held[worker] = time.monotonic_ns()
                self.looks += 1


def most_at_once(runs: list[tuple[int, int]]) -> int:
    ends = sorted([(begin, 1) for begin, _ in runs] + [(end, -1) for _, end in runs])
    return max(itertools.accumulate(step for _, step in ends))


def test_no_key_ever_has_too_many_runs(fresh_dsn: str, client: Client, fleet: Fleet):
    jobs = [
        NewJob(
            f"j{number}",
            "q",
            "test",
            str(number % KEYS).encode(),
            max_deliveries=5,
            gates=(Gate("k", str(number % KEYS), slots=slots_of(str(number % KEYS))),),
        )
        for number in range(TASKS)
    ]
    client.enqueue(jobs)
    watch = Watch(fresh_dsn)
    with watch.going(), psycopg.connect(fresh_dsn, autocommit=True) as conn:

        def left() -> int:
            row = conn.execute(
                "select (select count(*) from pgcelery.gated) + (select count(*) from"
                " pgcelery.ready) + (select count(*) from pgcelery.running)"
            ).fetchone()
            assert row
            return int(row[0])

        fleet.start(4)
        dead: dict[int, int] = {}
        for part in (0.75, 0.5):
            wait_for(lambda part=part: left() < part * TASKS, 600)  # type: ignore[misc]
            rows = conn.execute("select pid, id from pgcelery.workers").fetchall()
            pid = fleet.kill_one()
            dead[dict(rows)[pid]] = max(fleet.killed.values())
            fleet.start()
        wait_for(lambda: left() == 0, 600)
        lines = conn.execute("select key, in_use from pgcelery.lines where in_use > 0").fetchall()
        counted = conn.execute("select count(*) from pgcelery.results where state = 10").fetchone()
    assert lines == []
    assert counted == (TASKS,)
    assert watch.looks > 10
    assert watch.above == []
    for worker, at in dead.items():
        held_s = (watch.held.get(worker, at) - at) / 1e9
        assert held_s <= LEASE_S + MAINTAIN_S * 1.2 + SLACK_S
    by_key = defaultdict(list)
    ran = Counter()
    for id, key, begin, end in fleet.runs():
        by_key[key].append((begin, end))
        ran[id] += 1
    assert len(ran) == TASKS
    most = {key: most_at_once(runs) for key, runs in by_key.items()}
    assert {key: many for key, many in most.items() if many > slots_of(key)} == {}
    assert any(many == slots_of(key) for key, many in most.items()), "limits were reached"


RATE, BURST = 100, 10
DELIVERY_S = 0.5  #: how much later than its start, as recorded, a body may begin


def most_above(starts: list[float], late_s: float = 0.0) -> float:
    """By how many starts any window has more than rate and burst allow."""
    starts = sorted(starts)
    return max(
        bisect_right(starts, end) - place - (RATE * (end - begin + late_s) + BURST)
        for place, begin in enumerate(starts)
        for end in starts[place : place + 4 * RATE]
    )


def test_no_window_ever_has_too_many_starts(fresh_dsn: str, client: Client, fleet: Fleet):
    with psycopg.connect(fresh_dsn, autocommit=True) as conn:
        conn.execute("create table public.starts (at timestamptz)")
        conn.execute(
            "create function public.note() returns trigger language plpgsql as"
            " $$ begin insert into public.starts values (new.started_at); return null; end $$"
        )
        conn.execute(
            "create trigger note after insert on pgcelery.running for each row"
            " execute function public.note()"
        )
        count = 6 * RATE
        gate = Gate("r", rate=RATE, period_s=1.0, burst=BURST)
        fleet.start(4)
        client.enqueue(
            [NewJob(f"j{n}", "q", "t", b"r", max_deliveries=5, gates=(gate,)) for n in range(count)]
        )

        def done() -> int:
            row = conn.execute("select count(*) from pgcelery.results").fetchone()
            assert row
            return int(row[0])

        for part in (0.25, 0.5):
            wait_for(lambda part=part: done() > part * count, 60)  # type: ignore[misc]
            fleet.kill_one()
            fleet.start()
        wait_for(lambda: done() == count, 60)
        rows = conn.execute("select extract(epoch from at)::float8 from public.starts").fetchall()
    recorded = [row[0] for row in rows]
    assert len(recorded) >= count
    assert most_above(recorded) <= 1e-3
    assert most_above([begin / 1e9 for _, _, begin, _ in fleet.runs()], DELIVERY_S) <= 1e-3
    assert max(recorded) - min(recorded) < count / RATE + LEASE_S + 6, "and it is used up"
