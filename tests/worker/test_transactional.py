"""Transactional tasks in a worker of each pool: what commits, and what is rolled back."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from unittest import mock

import psycopg
import pytest

from pgcelery import chain, chord
from pgcelery.engine import Client, EngineConfig
from tests.support.commits import Effects
from tests.support.database import new_database
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

pytestmark = pytest.mark.slow

MODULE = "tests.worker.transactional_app"


class World:
    def __init__(self, tasks: Any, effects: Effects, worker: Process, pool: str) -> None:
        self.tasks, self.effects, self.worker, self.pool = tasks, effects, worker, pool


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def _world(
    request: pytest.FixtureRequest, server_dsn: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    with new_database(server_dsn) as dsn, mock.patch.dict(os.environ, TRANSACTIONAL_DSN=dsn):
        with closing(Client(EngineConfig(dsn=dsn))) as client:
            client.migrate()
        sys.modules.pop(MODULE, None)
        tasks: Any = importlib.import_module(MODULE)
        effects = Effects(dsn)
        args = [*PGCELERY, "-A", MODULE, "worker", "-P", request.param, "-c", "2", "-l", "INFO"]
        process = Process(args, tmp_path_factory.mktemp("worker") / "log")
        try:
            process.wait_for_output(r" ready\.$", timeout_s=30)
            yield World(tasks, effects, process, request.param)
        finally:
            process.close()
            tasks.app.close()


@pytest.fixture
def world(_world: World) -> World:
    with psycopg.connect(_world.effects.dsn) as conn:
        conn.execute("delete from effects")
    return _world


def test_what_succeeds_is_there(world: World):
    results = [world.tasks.put.delay(number) for number in range(20)]
    assert [result.get(timeout=20) for result in results] == list(range(20))
    assert world.effects.numbers() == list(range(20))


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("raise", "ValueError"),
        ("exit", "SystemExit"),
        ("reject", "Reject"),
        ("defer", "UniqueViolation"),
        ("spoil", "InFailedSqlTransaction"),
        ("send and raise", "ValueError"),
        ("encode", "EncodeError"),
    ],
)
def test_what_fails_is_not_there(world: World, what: str, error: str):
    result = world.tasks.put_and.delay(1, what)
    wait_for(result.ready)
    assert result.state == "FAILURE"
    assert type(result.result).__name__ == error
    assert world.tasks.put.delay(9).get(timeout=20) == 9  # nothing else comes
    assert world.effects.numbers() == [9]


def test_the_body_may_not_commit_by_itself(world: World):
    result = world.tasks.put_and.delay(1, "commit")
    with pytest.raises(psycopg.ProgrammingError, match="by its body"):
        result.get(timeout=20)
    assert world.effects.numbers() == []
    result = world.tasks.put_and.delay(2, "commit by statement")
    with pytest.raises(psycopg.ProgrammingError, match="was ended by its body; what it did before"):
        result.get(timeout=20)


def test_what_is_ignored_is_not_there(world: World):
    result = world.tasks.put_and.delay(1, "ignore")
    assert world.tasks.put.delay(9).get(timeout=20) == 9
    wait_for(lambda: f"{result.id}" not in running(world))
    assert (result.state, world.effects.numbers()) == ("PENDING", [9])


def running(world: World) -> list[str]:
    with psycopg.connect(world.effects.dsn) as conn:
        return [one for (one,) in conn.execute("select job_id from pgcelery.running")]


def test_of_a_task_that_is_retried_only_the_last_attempt_is_there(world: World):
    assert world.tasks.put_at_third.apply_async((10,)).get(timeout=30) == 2
    assert world.effects.numbers() == [12]


def test_what_is_replaced_is_not_there_but_what_replaces_it(world: World):
    assert world.tasks.put_and.delay(1, "replace").get(timeout=20) == 2
    assert world.effects.numbers() == [2]


def test_what_is_sent_with_the_connection_comes_with_the_commit(world: World):
    assert world.tasks.put_and.delay(1, "send").get(timeout=20) is None
    wait_for(lambda: world.effects.numbers() == [1, 2])


@pytest.mark.parametrize("what", ["call", "apply"])
def test_what_is_called_in_it_is_part_of_it(world: World, what: str):
    assert world.tasks.put_and.delay(1, what).get(timeout=20) is None
    assert world.effects.numbers() == [1, 2]


def test_a_canvas_goes_on(world: World):
    tasks = world.tasks
    steps = chain(tasks.put.si(1), tasks.put_quietly.si(2), tasks.put.si(3).set(countdown=0.1))
    assert steps.apply_async().get(timeout=20) == 3
    body = chord([tasks.put.s(number) for number in range(10, 20)], tasks.total.s())
    assert body.apply_async().get(timeout=20) == sum(range(10, 20))
    assert world.effects.numbers() == [1, 2, 3, *range(10, 20)]
    failing = chain(tasks.put_and.si(4, "raise"), tasks.put.si(5)).apply_async()
    with pytest.raises(ValueError, match="4"):
        failing.get(timeout=20)
    assert world.effects.numbers() == [1, 2, 3, *range(10, 20)]


def test_limits_are_kept_to(world: World):
    results = [world.tasks.put_in_turn.delay(1) for _ in range(15)]
    assert [result.get(timeout=30) for result in results] == [1] * 15
    assert world.effects.numbers() == [1] * 15


def test_a_soft_time_limit_undoes_it(world: World):
    if world.pool != "prefork":
        pytest.skip("time limits are prefork's")
    with pytest.raises(ValueError, match="too slow"):
        world.tasks.put_too_slowly.delay(1).get(timeout=20)
    assert world.effects.numbers() == []


def test_other_tasks_have_no_connection(world: World):
    said = world.tasks.without.delay().get(timeout=20)
    assert said.endswith("without has no connection: it is not transactional=True")
