"""Calls without options: what fills in a form comes to the same as what is made in full."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange, Queue
from kombu.exceptions import EncodeError, OperationalError

from pgcelery import Concurrency
from pgcelery.compat import _state, signals
from pgcelery.compat.app import forms, sending
from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.running import collecting, lending
from pgcelery.compat.app.task import Task
from pgcelery.compat.message import decode
from pgcelery.engine import DatabaseUnavailable, NewJob
from tests.support.tasks import Offline, headers

ID = "01a22544-32cd-7c02-91fb-25e6469c090e"


@pytest.fixture
def app() -> Offline:
    return Offline("forms", set_as_current=False)


def learnt(app: Offline, **options: Any) -> Any:
    """A task whose form is there."""

    @app.task(name="t%(id)s", **options)
    def task(*args: Any, **kwargs: Any) -> None: ...

    for _ in range(3):
        task.delay(1)
    return app.tasks["t%(id)s"]


def is_filled_in(task: Any, *args: Any, **kwargs: Any) -> bool:
    with mock.patch.object(sending, "build", side_effect=sending.build) as build:
        task.delay(*args, **kwargs)
    return not build.called


def sent(task: Any, args: Any = (1,), kwargs: Any = None) -> NewJob:
    with (
        mock.patch.object(forms, "uuid", return_value=ID),
        mock.patch.object(sending, "uuid", return_value=ID),
    ):
        task.delay(*args, **(kwargs or {}))
    return task.app.sent()  # type: ignore[no-any-return]


def sent_in_full(task: Any, args: Any = (1,), kwargs: Any = None) -> NewJob:
    with mock.patch.object(forms, "send", return_value=None):
        return sent(task, args, kwargs)


_VALUE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=120)
_APP = Offline("forms", set_as_current=False)
_TASK = learnt(_APP)


@given(
    st.lists(_VALUE | st.lists(_VALUE), max_size=10).map(tuple),
    st.dictionaries(st.text(max_size=8), _VALUE, max_size=10),
)
def test_a_form_says_what_the_whole_message_says(args: Any, kwargs: Any) -> None:
    kwargs.pop("self", None)
    found = []
    for send in (sent, sent_in_full):
        try:
            found.append(send(_TASK, args, kwargs))
        except EncodeError as exc:  # a lone surrogate
            found.append(str(exc))
    assert found[0] == found[1]
    assert is_filled_in(_TASK)


def _conf(**settings: Any) -> Callable[[Any], None]:
    return lambda task: task.app.conf.update(settings)


def _set(**attributes: Any) -> Callable[[Any], None]:
    def change(task: Any) -> None:
        for name, value in attributes.items():
            setattr(type(task), name, value)

    return change


CHANGES = {
    "ttl": _conf(result_expires=timedelta(seconds=5)),
    "late": _conf(task_acks_late=True),
    "queue": _conf(task_default_queue="elsewhere"),
    "other queue": lambda task: task.app.amqp.queues.add(
        Queue("celery", Exchange("e", "topic"), "k")
    ),
    "mode": _conf(task_default_delivery_mode="transient"),
    "serializer": _conf(task_serializer="yaml"),
    "compression": _conf(task_compression="zlib"),
    "default priority": _conf(task_default_priority=3),
    "direction": _conf(task_priority_direction="redis"),
    "limit": _conf(task_time_limit=True),
    "soft limit": _conf(task_soft_time_limit=1.0),
    "ignored": _conf(task_ignore_result=True),
    "routes": _conf(task_routes={"t*": "routed"}),
    "rules": _conf(task_concurrency={"t*": Concurrency("k", limit=2)}),
    "own queue": _set(queue="own"),
    "own exchange": _set(exchange="celery", routing_key="celery"),
    "own priority": _set(priority=7),
    "own priority, of the instance": lambda task: setattr(task, "priority", True),
    "own limits": _set(time_limit=5, soft_time_limit=2),
    "own ignored": _set(ignore_result=1),
    "own late": _set(acks_late=True),
    "own mode": _set(delivery_mode=1),
    "own serializer": _set(serializer="pickle"),
    "own compression": _set(compression="zlib"),
    "hook": _set(shadow_name=lambda self, args, kwargs, options: "shadow"),
    "hook of the instance": lambda task: setattr(task, "shadow_name", lambda *args: "shadow"),
    "own options": _set(_get_exec_options=lambda self: {"priority": 2, "x": "y"} | _NO_LIMITS),
}
_NO_LIMITS = {"time_limit": None, "soft_time_limit": None}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_a_form_follows_from_counts_at_once(app: Offline, change: Any) -> None:
    task = learnt(app)
    before = sent(task)
    assert is_filled_in(task)
    change(task)
    expected = sent_in_full(task)
    assert [sent(task) for _ in range(4)] == [expected] * 4
    assert expected != before


@pytest.mark.parametrize(
    "changed",
    [
        {"result_expires": 5},
        {"task_acks_late": True},
        {"task_default_queue": "elsewhere"},
        {"task_default_delivery_mode": 1},
        {"task_serializer": "yaml"},
        {"task_compression": "zlib"},
        {"task_time_limit": True},
        {"task_ignore_result": 1},
    ],
    ids=str,
)
def test_a_source_of_settings_that_changes_under_the_app_counts(
    app: Offline, changed: dict[str, Any]
) -> None:
    source = {"task_time_limit": 1, "task_ignore_result": True, "task_default_queue": "one"}
    app.config_from_object(source)
    task = learnt(app)
    before = sent(task)
    assert is_filled_in(task)
    source.update(changed)
    expected = sent_in_full(task)
    assert [sent(task) for _ in range(4)] == [expected] * 4
    assert expected != before
    source["task_always_eager"] = True
    for _ in range(3):
        assert task.delay(1).state == "SUCCESS"


def test_routes_and_rules_are_asked_about_each_call(app: Offline) -> None:
    app.conf.task_routes = [lambda name, args, *rest, **more: {"queue": f"q{args[0]}"}]
    task = learnt(app)
    assert [sent(task, (n,)).queue for n in range(3)] == ["q0", "q1", "q2"]
    app.conf.task_routes = None
    app.conf.task_concurrency = {"t*": Concurrency("{args[0]}", limit=2)}
    for _ in range(3):
        task.delay(0)
    assert [sent(task, (n,)).gates[0].key for n in range(3)] == ["0", "1", "2"]


def test_an_expiry_is_counted_from_each_call(app: Offline) -> None:
    task = learnt(app, expires=60)
    assert sent(task).expires_at < sent(task).expires_at  # type: ignore[operator]


def test_who_hears_of_calls_hears_all(app: Offline) -> None:
    task = learnt(app)
    heard = []

    def receiver(**kwargs: Any) -> None:
        heard.append(kwargs["sender"])

    told = signals.before_task_publish, signals.after_task_publish, signals.task_sent
    for signal in told:
        signal.connect(receiver)
        try:
            task.delay(1)
        finally:
            signal.disconnect(receiver)
    assert heard == [task.name] * 3
    assert is_filled_in(task)


def test_what_sends_instead_is_called(app: Offline, monkeypatch: pytest.MonkeyPatch) -> None:
    task = learnt(app)
    of_app = mock.Mock(return_value="sent")
    with mock.patch.object(app, "send_task", of_app):
        assert task.delay(1) == "sent"
    with mock.patch.object(Celery, "send_task", of_app):
        assert task.delay(1) == "sent"
    assert of_app.call_count == 2
    app.conf.task_always_eager = True
    assert task.delay(1).state == "SUCCESS"


def test_arguments_are_checked(app: Offline) -> None:
    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    for _ in range(4):
        add.delay(1, y=2)
    n = len(app.engine.jobs)
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'y'"):
        add.delay(1)
    with pytest.raises(TypeError, match="task args must be a list or tuple"):
        add.apply_async({1: 1, 2: 2})
    with pytest.raises(EncodeError):
        add.delay(1, object())
    assert len(app.engine.jobs) == n
    type(app.tasks[add.name]).typing = False
    assert add.delay(1)


def test_limits_that_contradict_each_other_are_refused_each_time(app: Offline) -> None:
    task = learnt(app)
    type(task).time_limit, type(task).soft_time_limit = 1, 2
    for _ in range(4):
        with pytest.raises(ValueError, match="soft_time_limit"):
            task.delay(1)


def test_another_process_and_another_thread_say_who_they_are(app: Offline) -> None:
    task = learnt(app)
    thread = threading.Thread(target=lambda: task.delay(1))
    thread.start()
    thread.join()
    assert decode(app.sent().payload).properties["reply_to"] not in ("", app.thread_oid)
    with mock.patch.object(os, "getpid", return_value=12345678):
        for _ in range(3):
            task.delay(1)
            assert headers(app.sent())["origin"].startswith("gen12345678@")


def test_a_task_names_itself_as_the_parent(app: Offline) -> None:
    task = learnt(app)

    @app.task
    def parent() -> None:
        task.delay(1)

    result = parent.delay()
    outcome = app.work(app.sent())
    job = next(iter(outcome.follow_ups), None) or app.sent()
    assert headers(job)["parent_id"] == result.id


def test_a_call_goes_where_its_thread_sends(app: Offline) -> None:
    task = learnt(app)
    n = len(app.engine.jobs)
    with collecting() as jobs:
        result = task.delay(1)
    assert [job.id for job in jobs] == [result.id]
    assert len(app.engine.jobs) == n
    with lending("a connection"):
        task.delay(1)
    assert app.engine.conns[-1] == "a connection"


def test_the_database_is_asked_again_if_the_settings_say_so(app: Offline) -> None:
    task = learnt(app)
    away = DatabaseUnavailable("away")
    with mock.patch.object(app.engine, "enqueue", side_effect=[away, away, {}]) as enqueue:
        task.delay(1)
    assert enqueue.call_count == 3
    policy = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
    for settings, calls in (
        ({"task_publish_retry_policy": policy}, 2),
        ({"task_publish_retry_policy": {"max_retries": 0}}, 1),
        ({"task_publish_retry": False, "task_publish_retry_policy": policy}, 1),
    ):
        app.conf.update(settings)
        for _ in range(3):
            task.delay(1)
        with (
            mock.patch.object(app.engine, "enqueue", side_effect=away) as enqueue,
            pytest.raises(OperationalError, match="away"),
        ):
            task.delay(1)
        assert enqueue.call_count == calls


def test_settings_that_are_made_anew_each_time_make_no_form(app: Offline) -> None:
    class Source(dict[str, Any]):
        def get(self, key: str, default: Any = None) -> Any:
            return 1000.5 + len(self) if key == "result_expires" else super().get(key, default)

    app.config_from_object(Source(task_default_queue="celery"))
    task = learnt(app)
    with mock.patch.object(forms, "_made", side_effect=AssertionError("made")):
        for _ in range(3):
            assert sent(task).ttl_s == 1001.5


def test_a_setting_that_changes_while_a_form_is_made_spoils_it(app: Offline) -> None:
    source = {"result_expires": 5}
    app.config_from_object(source)

    @app.task
    def task() -> None: ...

    def built(*args: Any, build: Any = sending.build, **kwargs: Any) -> Any:
        source["result_expires"] = 7
        return build(*args, **kwargs)

    task.delay()
    task.delay()
    with mock.patch.object(sending, "build", built):
        task.delay()
    source["result_expires"] = 5
    task.delay()
    assert app.sent().ttl_s == 5


def test_a_task_of_whichever_app_is_current_is_sent(app: Offline) -> None:
    class Loose(Task):
        name = "loose"

    with mock.patch.object(_state._tls, "current_app", app):
        for _ in range(4):
            Loose().delay()
    assert [job.name for job in app.engine.jobs] == ["loose"] * 4
