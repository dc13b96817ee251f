"""Lone tasks that idle workers are handed, while those are killed, stopped and cut off.

Promises P5, P6, P10 of docs/guarantees.md.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, EngineConfig
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]

MODULE = "tests.faults.handed_app"
STRIKES = ["cut", "kill", "stop", "outlast", "cut", "kill", "cut", "outlast", "kill", "cut"]
#: every offer that was made leaves its token
_NOTE_OFFERS = """
create table public.offered (token bigint primary key);
create function public.note_offer() returns trigger language plpgsql as
    'begin insert into public.offered values (new.token); return null; end';
create trigger note after insert on pgcelery.offers
    for each row execute function public.note_offer();
"""


class World:
    """A database that notes offers, an application, and its workers."""

    def __init__(self, dsn: str, folder: Path, spawn: Callable[..., Process]) -> None:
        self.dsn, self._spawn = dsn, spawn
        self.log = folder / "runs.log"
        self.log.touch()
        with closing(Client(EngineConfig(dsn=dsn))) as client:
            client.migrate()
        self.do(_NOTE_OFFERS)
        os.environ.update(FAULTS_DSN=dsn, FAULTS_LOG=str(self.log))
        sys.modules.pop(MODULE, None)
        self.tasks: Any = importlib.import_module(MODULE)
        self.sent: list[tuple[int, bool, Any]] = []  # its number, whether it is late, its result
        self._over = threading.Event()
        self._producers = [threading.Thread(target=self._send, args=(seed,)) for seed in (0, 1)]

    def do(self, statement: str) -> list[Any]:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            cursor = conn.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def worker(self, name: str) -> Process:
        args = ["-A", MODULE, "worker", "-l", "INFO", "-c", "2", "-n", name]
        return self._spawn([*PGCELERY, *args])

    def cut(self) -> None:
        """End the connections by which workers are handed tasks."""
        self.do(
            "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory'"
            " and classid = 1885823845 and mode = 'ExclusiveLock' and granted"
        )

    def _send(self, seed: int) -> None:
        """Send lone tasks, now and then while the one before may still be on its way."""
        draw = random.Random(seed)
        number = seed
        while not self._over.is_set():
            late = draw.random() < 0.5
            task = self.tasks.late if late else self.tasks.early
            seconds = draw.choice([0.0, 0.0, 0.01, 0.1])
            self.sent.append((number, late, task.delay(number, seconds)))
            number += 2
            self._over.wait(draw.choice([0.0, 0.02, 0.04, 0.08]))

    def start_sending(self) -> None:
        for thread in self._producers:
            thread.start()

    def stop_sending(self) -> None:
        self._over.set()
        for thread in self._producers:
            if thread.ident is not None:
                thread.join()

    def runs(self) -> Counter[int]:
        return Counter(int(line) for line in self.log.read_text().split())

    def close(self) -> None:
        self.stop_sending()
        self.tasks.app.close()


@pytest.fixture
def world(fresh_dsn: str, tmp_path: Path, spawn: Callable[..., Process]) -> Iterator[World]:
    with closing(World(fresh_dsn, tmp_path, spawn)) as world:
        yield world


@pytest.mark.longer
def test_lone_tasks_survive_what_happens_to_those_they_are_handed_to(world: World):
    draw, pause = random.Random(1), threading.Event()
    workers = [world.worker(f"w{n}@%h") for n in range(2)]
    for worker in workers:
        worker.wait_for_output(r" ready\.$")
    world.start_sending()
    for turn, strike in enumerate(STRIKES):
        pause.wait(draw.uniform(0.3, 0.8))
        if strike == "cut":
            world.cut()
            continue
        place = turn % 2
        if strike == "kill":
            workers[place].send(signal.SIGKILL)
            workers[place] = world.worker(f"again{turn}@%h")
            workers[place].wait_for_output(r" ready\.$")
        else:  # for less than its offers last, or for longer than its lease
            workers[place].send(signal.SIGSTOP)
            pause.wait(3.0 if strike == "outlast" else 0.4)
            workers[place].send(signal.SIGCONT)
    world.stop_sending()
    results = [result for _, _, result in world.sent]
    wait_for(lambda: all(result.ready() for result in results), 60, "some have not ended")

    runs = world.runs()
    for number, late, result in world.sent:
        if late or result.state == "SUCCESS":
            assert (result.state, result.result) == ("SUCCESS", number * 2)
            assert runs[number] >= 1
        else:
            assert type(result.result).__name__ == "WorkerLostError"
        assert late or runs[number] <= 1, "at most once"
    ((handed,),) = world.do(
        "select count(*) from pgcelery.results r join public.offered o using (token)"
    )
    assert handed >= 50, f"of {len(results)}"
    assert world.do("select * from pgcelery.running") == []
