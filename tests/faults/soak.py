"""A long mixed load with kills: nothing is lost, and nothing grows.

`python -m tests.faults.soak --minutes 20 --rate 200`. Each ten seconds a child or a whole worker is
killed, in turn, and sizes are taken; the first worker loses children only, so that its parent is as
old as the run. At the end the history is checked, and the last quarter of the samples is compared
with the second.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import psycopg

from tests.faults.suite.history import History, Row, Verdict, check
from tests.faults.suite.trial import Fault, Ground, row_of

#: Sends, in turn; some are of several tasks.
MIX = (
    "quick", "slow", "early", "quick", "retry", "keyed", "chain", "quick", "eta", "quick", "group",
    "keyed", "chord", "quick", "early", "eta",
)  # fmt: skip
TASKS = 28  #: of them all
EVERY_S = 10.0  #: between two kills, and two samples
RESULTS_S = 30  #: kept so long, so that tables come to a level
KEYS = ("parent_mb", "child_mb", "connections", "fds", "table_mb", "dead", "backlog")

#: How much more the last quarter may have than the second: a share, or so much in all.
MAY_GROW: Mapping[str, tuple[float, float]] = {
    "parent_mb": (0.05, 3),
    "child_mb": (0.10, 4),
    "connections": (0.10, 3),
    "fds": (0.05, 4),
    "table_mb": (0.15, 8),
    "dead": (0.50, 20_000),
    "backlog": (0.50, 300),
}

_SIZES = """
select (select count(*) from pg_stat_activity where application_name like 'pgcelery%'),
       (select sum(pg_total_relation_size(relid)) from pg_stat_user_tables
        where schemaname = 'pgcelery')::bigint,
       (select sum(n_dead_tup) from pg_stat_user_tables where schemaname = 'pgcelery')::bigint,
       (select count(*) from pgcelery.ready)
"""
_ENDED = """
select j.id, j.payload, r.state, r.result
from pgcelery.results r join pgcelery.jobs j on j.id = r.id
where r.finished_at >= now() - make_interval(secs => %s)
"""


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


class Soak:
    """A ground, what is done on it, and what was seen."""

    def __init__(self, folder: Path, rate: float, seconds: float) -> None:
        fault = Fault(
            "soak", "soak", lambda ground: None, workers=3, slots=3, mix=MIX, direct=True,
            lease_s=8, rate=rate * len(MIX) / TASKS, senders=2,
            settings={"result_expires": RESULTS_S},
        )  # fmt: skip
        self.ground = Ground(fault, folder, quick=False)
        self.seconds = seconds
        self.samples: list[dict[str, float]] = []
        self.kills = 0
        self._rows: dict[str, Row] = {}  #: read while they are there: they expire

    def run(self) -> None:
        ground = self.ground
        workers = [ground.start_worker(wait=False) for _ in range(ground.fault.workers)]
        ground.fleet.ready(*workers)
        began = time.monotonic()
        over = threading.Event()
        reader = threading.Thread(target=self._read, args=(over,))
        reader.start()
        ground.load.start()
        while (at := time.monotonic() - began) < self.seconds:
            self._kill(keep=workers[0])
            ground.rest(EVERY_S - 1)
            self._sample(workers[0], at)
            ground.rest(max(0.0, began + at + EVERY_S - time.monotonic()))
        ground.finish()
        over.set()
        reader.join()
        self._look(RESULTS_S * 2)
        for name in ground.fleet.fallen():
            ground.wrong("P21", f"{name} is no longer alive")
        for text in ground.fleet.stop():
            ground.wrong("P20", text)

    def _kill(self, keep: Any) -> None:
        """Kill a child or, if it is not the one to keep, a worker, alternately."""
        self.kills += 1
        ground = self.ground
        if self.kills % 2:
            victim = random.choice(ground.fleet.children())
            strike = ground.strike("its process was killed", pids=[victim])
            with strike, suppress(ProcessLookupError):
                os.kill(victim, signal.SIGKILL)
            return
        worker = random.choice([one for one in ground.fleet.up() if one is not keep])
        worker.wanted = False
        with ground.strike("its worker was killed", [worker]):
            worker.signal_all(signal.SIGKILL)
        ground.start_worker(wait=False)

    def _sample(self, oldest: Any, at: float) -> None:
        connections, table, dead, backlog = self.ground.server.execute(_SIZES)[0]
        self.samples.append(
            {
                "at": round(at, 1),
                "parent_mb": _rss_mb(oldest.pid),
                "child_mb": max(map(_rss_mb, oldest.children()), default=0.0),
                "connections": connections,
                "fds": len(os.listdir(f"/proc/{oldest.pid}/fd")),
                "table_mb": round(table / 1e6, 2),
                "dead": dead,
                "backlog": backlog,
                "sent": sum(len(send.calls) for send in list(self.ground.load.sends)),
            }
        )
        say(line(self.samples[-1]))

    def _read(self, over: threading.Event) -> None:
        while not over.wait(RESULTS_S / 6):
            self._look(RESULTS_S / 2)

    def _look(self, back_s: float) -> None:
        with suppress(psycopg.OperationalError):
            for id, payload, state, result in self.ground.server.execute(_ENDED, [back_s]):
                if id not in self._rows:
                    self._rows[id] = row_of(id, bytes(payload), state, result)

    def judge(self) -> tuple[History, Verdict]:
        history = self.ground.history()
        rows = {row.id: row for row in history.rows if row.state is None} | self._rows
        history.rows = list(rows.values())
        verdict = check(history)
        for promise, text in self.ground.bad:
            verdict.blame(promise, text)
        if self.ground.left_over:
            verdict.blame("P5", f"not at its end: {self.ground.left_over}")
        return history, verdict


def _rss_mb(pid: int) -> float:
    with suppress(OSError):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
    return 0.0


def line(sample: Mapping[str, float]) -> str:
    return f"{sample['at']:>7.0f} s  " + "  ".join(f"{key} {sample[key]:g}" for key in KEYS)


def growth(samples: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Compare medians of the second and the last quarter."""
    quarter = len(samples) // 4
    if not quarter:
        return []
    found = []
    for key in KEYS:
        before = median(one[key] for one in samples[quarter : 2 * quarter])
        after = median(one[key] for one in samples[-quarter:])
        share, most = MAY_GROW[key]
        flat = after - before <= max(before * share, most)
        found.append({"what": key, "second": before, "last": after, "flat": flat})
    return found


def plot(samples: Sequence[Mapping[str, float]], key: str) -> str:
    """Draw one measure over time, in a line of text."""
    values = [one[key] for one in samples]
    low, high = min(values), max(values)
    steps = "▁▂▃▄▅▆▇█"
    span = (high - low) or 1
    marks = (steps[int((value - low) / span * (len(steps) - 1))] for value in _thinned(values, 60))
    return f"{key:>12}  {''.join(marks)}  {low:g} to {high:g}"


def _thinned(values: Sequence[float], most: int) -> Iterable[float]:
    step = max(1, len(values) // most)
    return values[::step]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--rate", type=float, default=200, help="tasks a second (200)")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="pgcelery-soak-"))
    soak = Soak(folder, args.rate, args.minutes * 60)
    try:
        soak.run()
        history, verdict = soak.judge()
    finally:
        soak.ground.close()
    compared = growth(soak.samples)
    grown = [one["what"] for one in compared if not one["flat"]]
    for key in KEYS:
        say(plot(soak.samples, key))
    for one in compared:
        say(f"{one['what']:>12}  {one['second']:g} -> {one['last']:g}"
            f"  {'flat' if one['flat'] else 'GROWS'}")  # fmt: skip
    say(f"{verdict.tasks} tasks, {len(history.runs)} runs, {soak.kills} kills; lost {verdict.lost},"
        f" recorded twice {verdict.twice}, run again {dict(verdict.extra)}")  # fmt: skip
    for promise, text in verdict.violations[:20]:
        say(f"WRONG {promise}: {text}")
    if args.json:
        told = {
            "minutes": args.minutes, "rate": args.rate, "tasks": verdict.tasks, "kills": soak.kills,
            "lost": verdict.lost, "twice": verdict.twice, "extra": verdict.extra,
            "violations": verdict.violations, "growth": compared, "samples": soak.samples,
        }  # fmt: skip
        args.json.write_text(json.dumps(told, indent=1) + "\n")
    bad = bool(verdict.violations or grown)
    say("FAILED, see " + str(folder) if bad else "flat, and nothing lost")
    if not bad:
        shutil.rmtree(folder, ignore_errors=True)
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
