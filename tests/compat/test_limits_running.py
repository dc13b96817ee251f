"""Limits, rates and uniqueness with a database and a worker that runs the tasks."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery import Celery, Concurrency, RateLimit, Unique, chain, group
from pgcelery.compat import beat
from pgcelery.compat.contrib.testing.worker import start_worker
from pgcelery.compat.exceptions import TaskRevokedError
from pgcelery.engine import Client
from tests.support.tasks import celery_log
from tests.support.wait import wait_for

T = 20


class Hall:
    """Bodies go in, say their name, and stay until they are let out."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.inside: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.entered: list[Any] = []
        self.times: list[float] = []
        self.open = threading.Event()

    def visit(self, name: Any, *, stay: bool = True) -> Any:
        with self.lock:
            self.times.append(time.monotonic())
            self.entered.append(name)
            self.inside[name] += 1
            self.most[name] = max(self.most[name], self.inside[name])
        if stay:
            assert self.open.wait(T)
        else:
            threading.Event().wait(0.005)  # long enough to be met
        with self.lock:
            self.inside[name] -= 1
        return name


@pytest.fixture
def hall() -> Iterator[Hall]:
    hall = Hall()
    yield hall
    hall.open.set()


@pytest.fixture
def app(dsn: str) -> Iterator[Any]:
    with Celery("limits", broker=dsn, backend=dsn, set_as_current=False) as app:
        yield app


@contextmanager
def working(app: Any, **options: Any) -> Iterator[None]:
    options = {"pool": "threads", "concurrency": 4, "perform_ping_check": False, **options}
    with start_worker(app, **options):
        yield


def test_no_more_than_the_limit_run_and_other_keys_go_past(app: Any, hall: Hall) -> None:
    @app.task(shared=False, name="l.fulfil", concurrency=Concurrency("{order.tenant}", limit=2))
    def fulfil(order):
        return hall.visit(order["tenant"])

    big = [fulfil.delay({"tenant": "big"}) for _ in range(6)]
    small = fulfil.delay({"tenant": "small"})
    with working(app):
        wait_for(lambda: len(hall.entered) >= 3)
        assert Counter(hall.entered) == {"big": 2, "small": 1}
        hall.open.set()
        assert [result.get(timeout=T) for result in [*big, small]] == ["big"] * 6 + ["small"]
    assert hall.most == {"big": 2, "small": 1}


def test_several_limits_are_held_together(app: Any, hall: Hall) -> None:
    limits = [Concurrency("{tenant}", 2), Concurrency("gateway", 3)]

    @app.task(shared=False, name="l.pay", concurrency=limits)
    def pay(tenant):
        return hall.visit(tenant)

    results = [pay.delay(tenant) for tenant in "aaabbb"]
    with working(app, concurrency=6):
        wait_for(lambda: len(hall.entered) == 3)
        assert max(hall.most.values()) == 2
        hall.open.set()
        for result in results:
            result.get(timeout=T)
    assert max(hall.most.values()) == 2


def test_a_retry_takes_its_place_again(app: Any, hall: Hall) -> None:
    @app.task(shared=False, name="l.again", bind=True, concurrency=Concurrency("{key}"))
    def again(self, key):
        hall.visit(key, stay=False)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return self.request.retries

    results = [again.delay("k") for _ in range(4)]
    with working(app):
        assert [result.get(timeout=T) for result in results] == [2] * 4
    assert hall.most == {"k": 1}
    assert len(hall.entered) == 12


def test_the_newest_is_cancelled(app: Any, hall: Hall) -> None:
    rule = Concurrency("k", strategy="cancel_newest")
    task = app.task(lambda n: hall.visit(n), shared=False, name="l.newest", concurrency=rule)
    with working(app):
        first = task.delay(1)
        wait_for(lambda: hall.entered == [1])
        second = task.delay(2)
        with pytest.raises(TaskRevokedError):
            second.get(timeout=T)
        hall.open.set()
        assert first.get(timeout=T) == 1
        assert task.delay(3).get(timeout=T) == 3
    assert hall.entered == [1, 3]


@pytest.mark.parametrize("strategy", ["replace", "debounce"])
def test_what_waits_is_replaced(app: Any, hall: Hall, strategy: str) -> None:
    rule = Concurrency("k", strategy=strategy)
    task = app.task(lambda n: hall.visit(n), shared=False, name="l.replace", concurrency=rule)
    with working(app):
        first = task.delay(1)
        wait_for(lambda: hall.entered == [1])
        second, third = task.delay(2), task.delay(3)
        with pytest.raises(TaskRevokedError):
            second.get(timeout=T)
        hall.open.set()
        assert (first.get(timeout=T), third.get(timeout=T)) == (1, 3)
    assert hall.entered == [1, 3]


def test_what_runs_is_cancelled_for_the_newest(app: Any, tmp_path: Path) -> None:
    rule = Concurrency("k", strategy="cancel_in_progress")

    @app.task(shared=False, name="l.progress", concurrency=rule)
    def task(name, stay):
        (tmp_path / name).touch()
        assert not stay or not threading.Event().wait(T)
        return name

    with working(app, pool="prefork", concurrency=2):
        first = task.delay("first", True)
        wait_for((tmp_path / "first").exists)
        second = task.delay("second", False)
        with pytest.raises(TaskRevokedError):
            first.get(timeout=T)
        assert second.get(timeout=T) == "second"


@pytest.mark.parametrize("window", ["sliding", "fixed"])
def test_no_more_start_than_the_rate_allows(app: Any, hall: Hall, window: str) -> None:
    options: dict[str, Any] = {"burst": 3} if window == "sliding" else {"window": "fixed"}
    rule = RateLimit(limit="10/s", **options)

    @app.task(shared=False, name="l.rated", rate_limits=rule)
    def rated(n):
        return hall.visit("x", stay=False)

    results = group(rated.s(n) for n in range(25)).apply_async()
    with working(app):
        assert results.get(timeout=T) == ["x"] * 25
    times = sorted(hall.times)
    for first in range(len(times)):
        for last in range(first, len(times)):
            # A start is noted a little after it is granted; the slack is for that.
            span_s = times[last] - times[first] + 0.15
            most = 10 * span_s + 3 if window == "sliding" else 10 * (int(span_s) + 2)
            assert last - first + 1 <= most
    assert times[-1] - times[0] >= (2.0 if window == "sliding" else 1.0)


def test_units_are_what_a_call_takes(app: Any, hall: Hall) -> None:
    rule = RateLimit(limit="20/s", burst=10, units=10)
    task = app.task(lambda: hall.visit("x", stay=False), shared=False, name="l.u", rate_limits=rule)
    results = [task.delay() for _ in range(4)]
    with working(app):
        for result in results:
            result.get(timeout=T)
    assert hall.times[-1] - hall.times[0] >= 1.2  # 40 units, 10 of them at once


def test_the_second_call_is_the_first(app: Any, hall: Hall, client: Client, caplog: Any) -> None:
    task = app.task(lambda n: hall.visit(n), shared=False, name="l.unique", unique=True)
    with celery_log(caplog):
        first, second, other = task.delay(1), task.delay(n=1), task.delay(2)
    assert second.id == first.id != other.id
    assert "sent before" not in caplog.text
    with working(app):
        wait_for(lambda: len(hall.entered) == 2)
        assert task.delay(1).id == first.id  # it runs
        hall.open.set()
        assert second.get(timeout=T) == first.get(timeout=T) == 1
        later = wait_for(lambda: (sent := task.delay(1)).id != first.id and sent)
        assert later.get(timeout=T) == 1
    assert sorted(hall.entered) == [1, 1, 2]


def test_unique_until_it_starts(app: Any, hall: Hall) -> None:
    rule = Unique("k", until="started")
    task = app.task(lambda: hall.visit("x"), shared=False, name="l.started", unique=rule)
    first = task.delay()
    assert task.delay().id == first.id
    with working(app):
        wait_for(lambda: hall.entered)
        second = task.delay()
        assert second.id != first.id
        hall.open.set()
        assert second.get(timeout=T) == "x"


def test_unique_for_some_time(app: Any, hall: Hall) -> None:
    rule = Unique("k", until=1.5)
    task = app.task(lambda: hall.visit("x", stay=False), shared=False, name="l.time", unique=rule)
    with working(app):
        first = task.delay()
        first.get(timeout=T)
        assert task.delay().id == first.id  # though it has ended
        assert wait_for(lambda: task.delay().id != first.id)


def test_uniqueness_holds_if_the_transaction_commits(app: Any, dsn: str) -> None:
    task = app.task(lambda: None, shared=False, name="l.tx", unique=Unique("k"))
    with psycopg.connect(dsn) as conn:
        given_up = task.apply_async(conn=conn)
        assert task.apply_async(conn=conn).id == given_up.id
        conn.rollback()
        first = task.apply_async(conn=conn)
        assert first.id != given_up.id
    assert task.delay().id == first.id


def test_of_many_senders_at_once_one_is_first(app: Any) -> None:
    task = app.task(lambda: None, shared=False, name="l.race", unique=Unique("k"))
    ids: list[str] = []
    start = threading.Barrier(8)

    def send() -> None:
        start.wait(T)
        ids.append(task.delay().id)

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(T)
    assert len(ids) == 8
    assert len(set(ids)) == 1


def test_a_canvas_is_sent_whole_though_a_member_is_unique(app: Any, hall: Hall) -> None:
    @app.task(shared=False, name="l.member", unique=True)
    def member():
        return hall.visit("x", stay=False)

    waiting = member.delay()
    with working(app):
        assert group(member.si(), member.si()).apply_async().get(timeout=T) == ["x", "x"]
        assert chain(member.si(), member.si(), app=app).apply_async().get(timeout=T) == "x"
        assert waiting.get(timeout=T) == "x"
    assert len(hall.entered) == 5


def test_beat_does_not_pile_up_calls_of_a_unique_task(app: Any, client: Client) -> None:
    app.task(lambda: None, shared=False, name="l.beat", unique=True)
    app.task(lambda: None, shared=False, name="l.piles")
    app.conf.beat_schedule = {
        name: {"task": name, "schedule": 0.05} for name in ("l.beat", "l.piles")
    }
    with closing(beat.PersistentScheduler(app)) as scheduler:

        def fired() -> bool:
            scheduler.tick()
            return all(entry.total_run_count >= 3 for entry in scheduler.schedule.values())

        wait_for(fired)
    rows = client._connections.run(b"select name, count(*) from pgcelery.jobs group by name")
    counts = dict(rows)
    assert counts["l.beat"] == 1
    assert counts["l.piles"] >= 3


def test_a_unique_task_that_is_retried_or_replaced_is_not_sent_twice(app: Any) -> None:
    other = app.task(lambda: "other", shared=False, name="l.other", unique=True)

    @app.task(shared=False, name="l.unique_retry", bind=True, unique=True)
    def task(self):
        if not self.request.retries:
            raise self.retry(countdown=0)
        raise self.replace(other.si())

    with working(app):
        assert task.delay().get(timeout=T) == "other"


@pytest.mark.parametrize("limited", [True, False])
def test_what_replaces_a_task_has_its_own_limits(
    app: Any, client: Client, hall: Hall, limited: bool
) -> None:
    rule = Concurrency("l.own", limit=1)

    @app.task(shared=False, name="l.other", bind=True, concurrency=rule if limited else None)
    def other(self):
        held = client._connections.run(
            b"select l.name, l.in_use from pgcelery.lines l where l.in_use > 0"
        )
        return [list(row) for row in held], self.request.id

    @app.task(shared=False, name="l.one", bind=True, concurrency=Concurrency("l.first", limit=1))
    def one(self):
        raise self.replace(other.si())

    with working(app):
        first = one.delay()
        held, request_id = first.get(timeout=T)
        assert request_id == first.id
        assert held == ([["l.own", 1]] if limited else [])
        assert one.delay().get(timeout=T)


@pytest.mark.parametrize(
    ("direction", "order"), [("amqp", [9, 5, 0, None]), ("redis", [0, None, 5, 9])]
)
def test_priorities_in_either_direction(app: Any, hall: Hall, direction: str, order: Any) -> None:
    app.conf.task_priority_direction = direction
    task = app.task(lambda n: hall.visit(n, stay=False), shared=False, name="l.priority")
    results = [task.apply_async((n,), priority=n) for n in (5, 0, 9, None)]
    with working(app, pool="solo", concurrency=1):
        for result in results:
            result.get(timeout=T)
    assert hall.entered == order
