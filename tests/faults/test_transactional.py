"""Transactional tasks while processes are killed and connections cut: effects are once or never.

Promise P11 of docs/guarantees.md.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.world import children_of, states
from tests.support.commits import CommitProxy, Effects, fetch
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]

MODULE = "tests.faults.transactional_app"


class World:
    """A database, tasks that insert into it, and their workers."""

    def __init__(self, dsn: str, folder: Path, spawn: Callable[..., Process]) -> None:
        self.dsn, self.folder, self._spawn = dsn, folder, spawn
        self.effects = Effects(dsn)
        self.env = {"FAULTS_DSN": dsn, "FAULTS_FOLDER": str(folder)}
        os.environ.update(self.env)
        sys.modules.pop(MODULE, None)
        self.tasks: Any = importlib.import_module(MODULE)

    def worker(self, name: str, processes: int = 2, **env: str) -> Process:
        args = ["-A", MODULE, "worker", "-l", "INFO", "-c", str(processes), "-n", name]
        process = self._spawn([*PGCELERY, *args], env=self.env | env)
        process.wait_for_output(r" ready\.$", timeout_s=30)
        return process

    def began(self) -> list[list[int]]:
        """Numbers and process ids, in order."""
        with suppress(FileNotFoundError):
            lines = (self.folder / "began").read_text().splitlines()
            return [[int(word) for word in line.split()] for line in lines]
        return []

    def finish(self, results: list[Any]) -> None:
        wait_for(lambda: all(one.ready() for one in results), 90, lambda: str(states(results)))

    def close(self) -> None:
        self.tasks.app.close()
        self.effects.close()


@pytest.fixture
def world(dsn: str, tmp_path: Path, spawn: Callable[..., Process]) -> Iterator[World]:
    with closing(World(dsn, tmp_path, spawn)) as world:
        yield world


def succeeded(results: list[Any]) -> list[int]:
    return sorted(one.result for one in results if one.state == "SUCCESS")


def test_effects_are_those_of_the_tasks_that_succeeded_whoever_is_killed(world: World):
    worker = world.worker("w0@%h")
    results = [world.tasks.put.delay(number) for number in range(150)]
    sending = [world.tasks.put_and_send.delay(number) for number in range(150, 300)]
    for kill in range(24):
        enough = (kill + 1) * 11
        wait_for(lambda: len(world.began()) >= enough, 30)  # noqa: B023
        if kill % 8 == 5:
            worker.send(signal.SIGKILL)
            worker.wait()
            worker = world.worker(f"w{kill}@%h")
        elif children := children_of(worker.pid):
            with suppress(ProcessLookupError):
                os.kill(random.choice(children), signal.SIGKILL)
    world.finish(results + sending)
    rows = succeeded(results + sending)
    assert len(rows) > 250
    assert [n for n in world.effects.numbers() if n >= 0] == rows
    notes = sorted(-n for n in succeeded(sending))
    wait_for(lambda: len([n for n in world.effects.numbers() if n < 0]) >= len(notes), 30)
    assert [n for n in world.effects.numbers() if n < 0] == notes
    assert len(world.began()) > 300, "nobody was killed in the middle"


@pytest.mark.parametrize("lease_lost", ["finish", "kill"])
def test_a_worker_that_was_paused_past_its_lease_leaves_nothing(world: World, lease_lost: str):
    zombie = world.worker("zombie@%h", 1, FAULTS_LEASE_LOST=lease_lost)
    result = world.tasks.put_pid.delay()
    wait_for(world.began)
    os.killpg(zombie.pid, signal.SIGSTOP)
    world.worker("other@%h", 1)
    wait_for(lambda: len(world.began()) == 2, 30)
    (_, first), (_, second) = world.began()
    (world.folder / "go").touch()
    assert result.get(timeout=20) == second
    assert world.effects.numbers() == [second]
    os.killpg(zombie.pid, signal.SIGCONT)
    if lease_lost == "finish":
        zombie.wait_for_output("came too late and was not recorded")
        ((task_id,),) = fetch(world.dsn, "select job_id from pgcelery.late")
        assert task_id == result.id
    else:
        zombie.wait_for_output("exited with 'signal 9")
    assert world.effects.numbers() == [second]
    assert first != second
    assert result.state == "SUCCESS"


@pytest.mark.parametrize(("lost", "runs"), [("requests", 2), ("answers", 1)])
def test_a_commit_of_which_nothing_is_heard_happened_once_or_is_done_again(
    world: World, tmp_path: Path, lost: str, runs: int
):
    with closing(CommitProxy(world.dsn, tmp_path)) as proxy:
        worker = world.worker("w@%h", 1, FAULTS_DSN=proxy.url)
        assert world.tasks.put.delay(1).get(timeout=20) == 1  # it is connected
        proxy.at_commit = lost
        assert world.tasks.put.delay(2).get(timeout=20) == 2
        worker.wait_for_output("could not be committed")
        assert world.tasks.put.delay(3).get(timeout=20) == 3
        assert proxy.lost == 1
        worker.send(signal.SIGTERM)
        worker.wait()
    assert world.effects.numbers() == [1, 2, 3]
    assert [number for number, _ in world.began()].count(2) == runs
    assert fetch(world.dsn, "select * from pgcelery.late") == []


def test_connections_that_break_cost_no_task_and_no_effect(world: World):
    world.worker("w@%h")
    results = [world.tasks.put.delay(number) for number in range(100)]
    with psycopg.connect(world.dsn, autocommit=True) as admin:
        for cut in range(6):
            enough = (cut + 1) * 12
            wait_for(lambda: len(world.began()) >= enough, 30)  # noqa: B023
            admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'pgcelery run' and datname = current_database()"
            )
    world.finish(results)
    assert states(results) == {"SUCCESS": 100}
    assert world.effects.numbers() == list(range(100))


def test_what_is_terminated_leaves_nothing(world: World):
    world.worker("w@%h", 1)
    result = world.tasks.put_pid.delay()
    wait_for(world.began)
    result.revoke(terminate=True, signal="SIGKILL")
    wait_for(lambda: result.state == "REVOKED")
    assert world.tasks.put.delay(7).get(timeout=20) == 7
    assert world.effects.numbers() == [7]
