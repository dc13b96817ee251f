"""Priorities of Celery and of the engine, where 0 is claimed first."""

from __future__ import annotations

from typing import Any

import pytest

from pgcelery import chain
from pgcelery.compat.exceptions import ImproperlyConfigured
from tests.support.tasks import Offline


@pytest.fixture
def app() -> Offline:
    return Offline("priorities")


@pytest.mark.parametrize(
    ("settings", "stored"),
    [
        ({}, {None: 9, 0: 9, 1: 8, 9: 0, 10: 0, 99: 0, -5: 9}),
        ({"task_priority_direction": "redis"}, {None: 0, 0: 0, 1: 1, 9: 9, 10: 9, -5: 0}),
        ({"task_queue_max_priority": 10}, {None: 10, 0: 10, 9: 1, 10: 0, 99: 0}),
        ({"task_queue_max_priority": 3}, {None: 9, 0: 9, 3: 6, 9: 6}),
        (
            {"task_queue_max_priority": 20, "task_priority_direction": "redis"},
            {None: 0, 9: 9, 20: 20, 21: 20},
        ),
        ({"task_default_priority": 4}, {None: 9, 2: 7}),  # a name alone has no task's default
    ],
    ids=str,
)
def test_what_is_stored(app: Offline, settings: dict[str, Any], stored: dict[Any, int]) -> None:
    app.conf.update(settings)
    for given, number in stored.items():
        app.send_task("t", priority=given)
        assert (given, app.sent().priority) == (given, number)
        assert app._rulebook.priorities.from_engine(number) == min(
            max(given or 0, 0), settings.get("task_queue_max_priority", 9)
        )


@pytest.mark.parametrize(("direction", "none", "four"), [("amqp", 9, 5), ("redis", 0, 4)])
def test_a_task_without_priority_counts_as_zero_under_either(app, direction, none, four) -> None:
    app.conf.task_priority_direction = direction
    task = app.task(lambda: None, name="t")
    task.delay()
    assert app.sent().priority == none
    app.conf.task_default_priority = 4
    task.delay()
    assert app.sent().priority == four


@pytest.mark.parametrize("direction", ["amqp", "redis"])
def test_what_is_shown_and_inherited_is_the_applications_number(app: Offline, direction) -> None:
    app.conf.update(task_priority_direction=direction, task_inherit_parent_priority=True)
    seen: list[Any] = []

    @app.task(name="t", bind=True)
    def task(self, *args):
        seen.append(self.request.delivery_info["priority"])

    @app.task(name="outer", bind=True)
    def outer(self):
        seen.append(self.request.delivery_info["priority"])
        task.delay()
        if not self.request.retries:
            raise self.retry(countdown=1)

    app.finalize()
    outer.apply_async(priority=3)
    stored = app.sent().priority
    outcome = app.work()
    assert outcome.priority == stored  # the retry
    assert app.sent().priority == stored  # the call
    app.work()
    assert seen == [3, 3]
    app.engine.jobs.clear()
    chain(task.si().set(priority=3), task.si(), task.si()).apply_async()
    assert [job.priority for job in app.engine.jobs] == [stored] * 3
    first, *later = app.engine.jobs
    outcome = app.work(first)
    for job in later:
        outcome = app.go_on(job, outcome)
    assert seen == [3] * 5


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("task_priority_direction", "up"),
        ("task_priority_direction", None),
        ("task_queue_max_priority", 0),
        ("task_queue_max_priority", 256),
        ("task_queue_max_priority", True),
        ("task_queue_max_priority", "10"),
    ],
)
def test_bad_settings_are_refused(app: Offline, setting: str, value: Any) -> None:
    app.conf[setting] = value
    with pytest.raises(ImproperlyConfigured, match=setting):
        app.send_task("t")


def test_redis_steps_are_accepted(app: Offline) -> None:
    app.conf.broker_transport_options = {"priority_steps": list(range(10)), "sep": ":"}
    app.conf.task_priority_direction = "redis"
    app.send_task("t", priority=7)
    assert app.sent().priority == 7


@pytest.mark.real_celery
def test_without_a_priority_both_of_celerys_brokers_count_zero() -> None:
    virtual = pytest.importorskip("kombu.transport.virtual")
    assert virtual.Channel.default_priority == 0
    assert (virtual.Channel.min_priority, virtual.Channel.max_priority) == (0, 9)
