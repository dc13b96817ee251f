"""What kill -9 may cost: nothing, or a recorded failure; never silence.

Promises P5, P6, P10, P20 of docs/guarantees.md.
"""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from pgcelery.engine import Client, EngineConfig
from tests.faults.world import World, alive, children_of, states
from tests.support.process import Process
from tests.support.wait import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]


@pytest.fixture(params=[True, False], ids=["acks_late", "acks_early"])
def world(
    request: pytest.FixtureRequest, dsn: str, tmp_path: Path, spawn: Callable[..., Process]
) -> Iterator[World]:
    world = World(dsn, tmp_path / "runs.log", request.param, spawn)
    yield world
    world.close()


def test_a_killed_worker_loses_nothing_and_leaves_nothing_pending(world: World):
    late = world.tasks.app.conf.task_acks_late
    first = world.worker("first@%h")
    results = [world.tasks.work.delay(number, 0.003) for number in range(1000)]
    wait_for(lambda: len(world.runs()) > 100, timeout_s=30)
    children = children_of(first.pid)
    first.send(signal.SIGKILL)
    wait_for(lambda: not any(alive(child) for child in children), 5, "orphaned children")
    assert not all(result.ready() for result in results)

    world.worker("second@%h")
    wait_for(lambda: all(result.ready() for result in results), 60, lambda: str(states(results)))
    runs = world.runs()
    if late:
        assert states(results) == {"SUCCESS": 1000}
        assert set(runs) == set(range(1000))
        assert max(runs.values()) <= 2
    else:
        assert max(runs.values()) == 1, "at most once"
        for number, result in enumerate(results):
            if result.state == "SUCCESS":
                assert result.result == number * 2
            else:
                assert type(result.result).__name__ == "WorkerLostError"
        assert states(results)["FAILURE"] < 100


def test_a_killed_child_is_replaced_and_only_its_task_suffers(world: World):
    worker = world.worker("only@%h")
    result = world.tasks.suicide.delay(1)
    others = [world.tasks.work.delay(number) for number in range(100, 200)]
    wait_for(lambda: result.ready() and all(other.ready() for other in others), 60)
    assert states(others) == {"SUCCESS": 100}
    assert result.state == "FAILURE"
    assert type(result.result).__name__ == "WorkerLostError"
    told = str(result.result)
    assert re.search(r"signal 9 \(SIGKILL\) in pid \d+ of only@", told)
    assert ("delivered 5 times" in told) == world.tasks.app.conf.task_acks_late
    assert world.runs()[1] == (5 if world.tasks.app.conf.task_acks_late else 1)
    assert worker.popen.poll() is None


def test_killed_database_connections_are_mended_by_worker_and_producer(world: World):
    world.worker("only@%h")
    results = []
    for number in range(300):
        results.append(world.tasks.work.delay(number))
        if number % 50 == 25:
            with psycopg.connect(world.dsn, autocommit=True) as admin:
                admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and pid <> pg_backend_pid()"
                )
    wait_for(lambda: all(result.ready() for result in results), 60, lambda: str(states(results)))
    assert states(results) == {"SUCCESS": 300}
    assert world.runs() == Counter(dict.fromkeys(range(300), 1))


def test_sigterm_finishes_what_runs_and_returns_the_rest(world: World):
    first = world.worker("first@%h")
    results = [world.tasks.work.delay(number, 0.2) for number in range(20)]
    wait_for(lambda: len(world.runs()) >= 2)
    first.send(signal.SIGTERM)
    assert first.wait(20) == 0
    assert "Warm shutdown" in first.output()
    finished = len(world.runs())
    assert finished < 20
    with Client(EngineConfig(dsn=world.dsn)) as client:
        counts = client.counts(["celery"])["celery"]
    assert (counts.running, counts.ready) == (0, 20 - finished)
    world.worker("second@%h")
    wait_for(lambda: all(result.ready() for result in results), 60)
    assert world.runs() == Counter(dict.fromkeys(range(20), 1))
