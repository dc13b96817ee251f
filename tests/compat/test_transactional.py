"""Transactional tasks outside of a worker: defined, called, run eagerly, without a database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from kombu.exceptions import OperationalError

from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.handler import TaskHandler
from pgcelery.engine import Client, Job, Outcome, State
from tests.support.commits import Effects, insert
from tests.support.tasks import Offline


@pytest.fixture
def effects(dsn: str) -> Iterator[Effects]:
    with closing(Effects(dsn)) as effects:
        yield effects


@pytest.fixture
def app(client: Client) -> Iterator[Celery]:
    app = Celery("eager", broker=client.config.dsn, set_as_current=False)
    yield app
    app.close()
    app.close_engine()


@pytest.fixture
def put(app: Celery, effects: Effects) -> Any:
    @app.task(bind=True, transactional=True, shared=False)
    def put(self: Any, number: int, fails: bool = False) -> int:
        insert(self.connection, number)
        if fails:
            raise ValueError(number)
        return number

    return put


def test_it_is_delivered_again_like_a_late_acknowledged_task() -> None:
    app = Offline("late")

    @app.task(transactional=True, acks_late=False)
    def task() -> None: ...

    task.delay()
    assert (task.acks_late, task.reject_on_worker_lost) == (True, True)
    assert app.sent().max_deliveries == 5
    again = app.lose("child_lost", delivery=4)
    assert (again.state, again.counted) == (State.AVAILABLE, True)
    assert app.lose("child_lost", delivery=5).state is State.FAILED


def test_a_setting_can_say_it_of_many() -> None:
    app = Offline("annotated")
    app.conf.task_annotations = {"noted": {"transactional": True}}

    @app.task(name="noted")
    def noted() -> None: ...

    @app.task(name="other")
    def other() -> None: ...

    assert (noted.transactional, noted.acks_late) == (True, True)
    assert (other.transactional, other.acks_late) == (False, False)


def test_without_a_run_there_is_no_connection(put: Any) -> None:
    with pytest.raises(AttributeError, match="only while it runs"):
        _ = put.connection
    with pytest.raises(AttributeError, match="only while it runs"):
        put(1)
    assert not hasattr(put, "connection")


def test_applied_it_commits_at_its_end_or_not_at_all(put: Any, effects: Effects) -> None:
    assert put.apply((1,)).get() == 1
    assert effects.numbers() == [1]
    assert put.apply((2, True)).state == "FAILURE"
    with pytest.raises(ValueError, match="3"):
        put.apply((3, True), throw=True)
    assert effects.numbers() == [1]


def test_always_eager_commits_too(app: Celery, put: Any, effects: Effects) -> None:
    app.conf.task_always_eager = True
    assert put.delay(1).get() == 1
    assert effects.numbers() == [1]


def test_applied_in_another_ones_transaction_it_is_part_of_that(
    app: Celery, put: Any, effects: Effects
) -> None:
    @app.task(bind=True, transactional=True, shared=False)
    def outer(self: Any, fails: bool) -> None:
        put.apply((1,))
        put.apply((2, True))
        if fails:
            raise ValueError("outer")

    assert outer.apply((True,)).state == "FAILURE"
    assert effects.numbers() == []
    assert outer.apply((False,)).state == "SUCCESS"
    assert effects.numbers() == [1]


def test_a_refused_commit_is_raised_where_it_is_applied(app: Celery, effects: Effects) -> None:
    @app.task(bind=True, transactional=True, shared=False)
    def twice(self: Any) -> None:
        self.connection.execute(
            "alter table effects add unique (number) deferrable initially deferred"
        )
        insert(self.connection, 1)
        insert(self.connection, 1)

    with pytest.raises(psycopg.errors.UniqueViolation):
        twice.apply()
    assert effects.numbers() == []


@pytest.fixture
def unreachable(tmp_path: Any) -> Iterator[Celery]:
    app = Celery("nowhere", broker=f"postgresql:///x?host={tmp_path}", set_as_current=False)
    yield app
    app.close()


def test_without_a_database_the_body_does_not_begin(unreachable: Celery) -> None:
    ran = []

    @unreachable.task(name="t", transactional=True, shared=False)
    def task() -> None:
        ran.append(1)

    with pytest.raises(OperationalError):
        task.apply()
    job = Job("id", 7, "celery", "t", message(), 0, 1)
    outcome = TaskHandler(unreachable).open(job)()
    assert isinstance(outcome, Outcome)
    assert (outcome.state, outcome.counted, outcome.payload) == (State.AVAILABLE, False, None)
    assert outcome.delay_s is not None
    assert 0.5 < outcome.delay_s < 2
    assert ran == []


def message() -> bytes:
    offline = Offline("offline")
    offline.send_task("t")
    return offline.sent().payload
