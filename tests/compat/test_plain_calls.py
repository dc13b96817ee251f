"""Plain calls are written with a head that was learnt from one before: to the same bytes.

Source: Celery 5.7, protocol 2; what is compared with is how a first call is written.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from kombu import Queue
from kombu.exceptions import EncodeError

from pgcelery import Concurrency
from pgcelery.compat import signals
from pgcelery.compat.app import sending
from pgcelery.compat.app.envelope import repr_args
from pgcelery.compat.app.heads import Heads
from pgcelery.compat.message import decode
from pgcelery.engine import NewJob
from tests.support.tasks import Offline, body, headers

_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
_NAME = _TEXT.filter(bool)
_VALUE = st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from([1.0, 0.5]) | _TEXT
_OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "task_id": _NAME,
        "group_id": st.none() | _TEXT,
        "group_index": st.none() | st.integers(0, 5),
        "root_id": st.none() | _TEXT,
        "parent_id": st.none() | _TEXT,
        "reply_to": st.none() | _TEXT,
        "shadow": st.none() | _TEXT,
        "retries": st.integers(0, 2),
        "queue": st.sampled_from(["celery", "q%s", 'q"%(id)s']),
        "routing_key": st.none() | st.sampled_from(["celery", "k"]),
        "exchange": st.none() | st.sampled_from(["celery"]),
        "priority": st.none() | st.integers(0, 9) | st.booleans(),
        "delivery_mode": st.sampled_from([None, 1, 2, "transient"]),
        "serializer": st.sampled_from([None, "json", "yaml", "pickle"]),
        "compression": st.sampled_from([None, "zlib"]),
        "time_limit": st.sampled_from([None, 5, 5.0]),
        "soft_time_limit": st.sampled_from([None, 1, True]),
        "ignore_result": st.sampled_from([None, True, False, 1]),
        "correlation_id": st.none() | _TEXT,
        "argsrepr": st.none() | _TEXT,
        "headers": st.sampled_from([None, {}, {"mine": "%(id)s"}]),
        "link": st.none() | st.just({"task": "linked", "args": [], "kwargs": {}, "options": {}}),
        "stamped_headers": st.sampled_from([None, ["stamp"]]),
        "stamp": _VALUE,
        "my%property": _VALUE,
        "retry": st.sampled_from([None, True, False]),
        "retry_policy": st.sampled_from([None, {"max_retries": 1}]),
        "chord_parents": _NAME | st.lists(_NAME, max_size=2) | st.just(1),
        "chord_immutable": st.booleans(),
        "chain_link": st.none()
        | st.fixed_dictionaries(
            {
                "head": _TEXT,
                "left": st.integers(0, 3),
                "next": st.none() | _TEXT,
                "trail": st.just([(("a%", None), None)]),
            }
        )
        | st.just({"head": 1}),
    },
)


def _sent(app: Offline, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
    """What a call comes to, or the error."""
    known = {"task_id": "the id", **options}
    try:
        made = sending.build(app, "t%(id)s", args, kwargs, **known)
    except (TypeError, ValueError, LookupError) as exc:
        return type(exc), str(exc)
    return made._replace(envelope=None)


@settings(max_examples=400, deadline=None)
@given(
    first=_OPTIONS,
    second=_OPTIONS,
    same=st.booleans(),
    args=st.lists(_VALUE, max_size=3),
    kwargs=st.dictionaries(_NAME, _VALUE, max_size=2),
)
@example({"priority": 1}, {"priority": True}, False, [], {})
@example({"time_limit": 5}, {"time_limit": 5.0}, False, [], {})
@example({"ignore_result": True}, {"ignore_result": 1}, False, [], {})
@example({"stamp": "x"}, {"my%property": "x"}, False, [], {})
@example({"correlation_id": "x"}, {"correlation_id": "x"}, False, [], {})
@example({"chord_parents": "x"}, {"chord_immutable": True}, False, [], {})
def test_a_call_is_written_as_if_none_had_been_before(
    first: dict[str, Any], second: dict[str, Any], same: bool, args: Any, kwargs: Any
) -> None:
    app = _APP
    if same:  # apart from what has a blank in a head
        blanks = ("task_id", "group_id", "group_index", "root_id", "parent_id", "reply_to")
        blanks += ("chord_parents", "chain_link")
        second = {**{k: v for k, v in first.items() if k not in blanks}} | {
            k: v for k, v in second.items() if k in blanks
        }
    app._heads = Heads()
    expected = _sent(app, args, kwargs, second)
    app._heads = Heads()
    _sent(app, ["before"], {}, first)
    assert _sent(app, args, kwargs, second) == expected


_APP = Offline("plain", set_as_current=False)
_APP.conf.update(
    task_queues=[Queue("celery"), Queue("q%s"), Queue('q"%(id)s')],
    accept_content=["json", "yaml", "pickle"],
)


@pytest.fixture
def app() -> Offline:
    return Offline("plain calls")


def twice(app: Offline, **options: Any) -> NewJob:
    """The second of two calls that are alike, and so one whose head is known."""
    for _ in range(2):
        app.send_task("t", (1,), **options)
    with mock.patch.object(sending, "seal", side_effect=AssertionError("made in full")):
        app.send_task("t", (1,), **options)
    return app.sent()


def test_later_steps_of_a_chain_are_plain_calls(app: Offline) -> None:
    task = app.task(lambda value: value, name="step")
    (task.s(1) | task.s() | task.s() | task.s()).apply_async()
    seal = mock.Mock(side_effect=sending.seal)
    with mock.patch.object(sending, "seal", seal):
        (task.s(1) | task.s() | task.s() | task.s()).apply_async()
    assert seal.call_count == 1  # the first one's message has the chain written out


def test_settings_that_are_changed_count_at_once(app: Offline) -> None:
    assert twice(app).ttl_s == 86400
    app.conf.result_expires = 5
    app.conf.task_acks_late = True
    app.conf.task_default_queue = "elsewhere"
    app.send_task("t", (1,))
    assert (app.sent().ttl_s, app.sent().max_deliveries, app.sent().queue) == (5, 5, "elsewhere")
    info = decode(app.sent().payload).properties["delivery_info"]
    assert info == {"exchange": "", "routing_key": "elsewhere"}
    app.conf.task_default_delivery_mode = "transient"
    app.send_task("t", (1,))
    assert decode(app.sent().payload).properties["delivery_mode"] == 1
    app.conf.task_serializer = "yaml"
    app.send_task("t", (1,))
    assert decode(app.sent().payload).content_type == "application/x-yaml"
    app.conf.task_serializer, app.conf.task_compression = "json", "zlib"
    app.send_task("t", (1,))
    assert headers(app.sent())["compression"] == "application/x-gzip"


def test_a_source_of_settings_that_changes_under_the_app_counts(app: Offline) -> None:
    source = {"task_default_queue": "one"}
    app.config_from_object(source)
    assert twice(app).queue == "one"
    source["result_expires"] = 7  # type: ignore[assignment]
    app.send_task("t", (1,))
    assert app.sent().ttl_s == 7


def test_who_comes_to_hear_of_publishing_later_hears_all(app: Offline) -> None:
    twice(app)
    heard = []

    def before(headers: Any = None, **kwargs: Any) -> None:
        headers["added"] = "by a receiver"

    def after(headers: Any = None, body: Any = None, **kwargs: Any) -> None:
        heard.append((headers["id"], body[0]))

    with _connected(signals.before_task_publish, before):
        app.send_task("t", (1,))
        assert headers(app.sent())["added"] == "by a receiver"
    with _connected(signals.after_task_publish, after):
        result = app.send_task("t", (1,))
    assert heard == [(result.id, (1,))]
    app.send_task("t", (1,))
    assert "added" not in headers(app.sent())


class _connected:
    def __init__(self, signal: Any, receiver: Any) -> None:
        self.signal, self.receiver = signal, receiver

    def __enter__(self) -> None:
        self.signal.connect(self.receiver)

    def __exit__(self, *exc: object) -> None:
        self.signal.disconnect(self.receiver)


def test_another_process_and_another_thread_say_who_they_are(app: Offline) -> None:
    here = twice(app)
    thread = threading.Thread(target=lambda: app.send_task("t", (1,)))
    thread.start()
    thread.join()
    there = app.sent()
    assert decode(here.payload).properties["reply_to"] == app.thread_oid
    assert decode(there.payload).properties["reply_to"] not in ("", app.thread_oid)
    with mock.patch.object(os, "getpid", return_value=12345678):
        app.send_task("t", (1,))
    assert headers(app.sent())["origin"].startswith("gen12345678@")


def test_arguments_are_those_of_the_call_and_what_cannot_be_said_is_refused(app: Offline) -> None:
    twice(app)
    app.send_task("t", ("%s %(id)s", "é\"'\\"), {"k": ["%"]})
    assert body(app.sent())[:2] == [["%s %(id)s", "é\"'\\"], {"k": ["%"]}]
    assert headers(app.sent())["argsrepr"] == repr_args(app, ("%s %(id)s", "é\"'\\"), 1024)
    with pytest.raises(EncodeError):
        app.send_task("t", (object(),))
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(EncodeError):
        app.send_task("t", (loop,))


def test_rules_of_a_task_hold_for_every_call(app: Offline) -> None:
    @app.task(concurrency=Concurrency("{n}", 2))
    def limited(n: int) -> int:
        return n

    for n in range(3):
        limited.delay(n)
        assert [(gate.key, gate.slots) for gate in app.sent().gates] == [(str(n), 2)]
