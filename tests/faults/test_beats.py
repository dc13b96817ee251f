"""Two beats on one schedule, of which one is killed now and then: each slot is sent once.

Promise P19 of docs/guarantees.md.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from pgcelery.compat import message
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]

HOURS = 5


class Beats:
    """Two beats; a killed one is started again at once."""

    def __init__(self, dsn: str, spawn: Callable[..., Process], env: dict[str, str]) -> None:
        self.dsn = dsn
        self.kills = 0
        self._spawn = spawn
        self._env = {"FAULTS_DSN": dsn, **env}
        self._both = [self._start(), self._start()]
        for process in self._both:
            process.wait_for_output("beat: Starting", 30)

    def _start(self) -> Process:
        return self._spawn([*PGCELERY, "-A", "tests.faults.beats", "beat", "-l", "info"], self._env)

    def kill_one(self, random_: random.Random) -> None:
        """Kill one, if the other has come up."""
        place = random_.randrange(2)
        if "beat: Starting" in self._both[1 - place].output():
            self._both[place].send(signal.SIGKILL)
            self._both[place].wait()
            self._both[place] = self._start()
            self.kills += 1

    def counts(self) -> dict[str, int]:
        """How many slots of each schedule are done, says the schedule."""
        with psycopg.connect(self.dsn) as conn:
            rows = conn.execute("select name, total_run_count from pgcelery.schedules")
            return dict(rows.fetchall())

    def sent(self) -> Counter[tuple[str, str]]:
        """How often each slot was sent, say the jobs."""
        with psycopg.connect(self.dsn) as conn:
            rows = conn.execute("select name, payload from pgcelery.jobs").fetchall()
        return Counter(
            (name, json.loads(message.decode(bytes(payload)).body)[0][0]) for name, payload in rows
        )


def test_each_slot_of_five_simulated_hours_is_sent_once(
    dsn: str, spawn: Callable[..., Process], tmp_path: Path
) -> None:
    random_ = random.Random(os.environ.get("FAULTS_SEED", 5))
    clock = tmp_path / "clock"
    begin = datetime(2026, 1, 1, tzinfo=UTC)

    def set_clock(now: datetime) -> None:
        fresh = clock.with_suffix(".new")
        fresh.write_text(now.isoformat())
        fresh.rename(clock)

    set_clock(begin)
    beats = Beats(dsn, spawn, {"FAULTS_CLOCK": str(clock)})
    expected: Counter[tuple[str, str]] = Counter()
    periods = {"minutely": 1, "quarterly": 15, "sevenly": 7}
    for minute in range(1, HOURS * 60 + 1):
        now = begin + timedelta(minutes=minute)
        set_clock(now)
        for name, period in periods.items():
            if minute % period == 0:
                expected[name, now.isoformat()] += 1
        if random_.random() < 0.1:
            threading.Event().wait(random_.uniform(0, 0.02))  # into the middle of sending
            beats.kill_one(random_)
        done = {name: minute // period for name, period in periods.items()}
        wait_for(lambda done=done: beats.counts() == done, 20, lambda: str(beats.counts()))  # type: ignore[misc]
    assert beats.sent() == expected
    assert beats.kills >= 10


def test_each_second_is_sent_once(dsn: str, spawn: Callable[..., Process]) -> None:
    random_ = random.Random(os.environ.get("FAULTS_SEED", 5))
    beats = Beats(dsn, spawn, {})
    while len(beats.sent()) < 10:
        threading.Event().wait(random_.uniform(0, 1.5))
        beats.kill_one(random_)
    sent = beats.sent()
    seconds = sorted(int(slot) for _, slot in sent)
    assert set(sent.values()) == {1}
    assert seconds == list(range(seconds[0], seconds[0] + len(seconds)))
    assert beats.kills >= 3


def test_a_beat_that_stops_dead_in_a_claim_loses_it(dsn: str) -> None:
    """The database ends its transaction, so that another beat can send."""
    with psycopg.connect(dsn) as dead:
        dead.execute("select pgcelery.claim_slot_v1('book', 'one', now(), 0, 1)")
        limits = dead.execute(
            "select current_setting('idle_in_transaction_session_timeout'),"
            " current_setting('lock_timeout')"
        ).fetchone()
        assert limits == ("1min", "1s")
