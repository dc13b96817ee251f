from __future__ import annotations

import io
import itertools
import logging
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from pgcelery.compat import states
from pgcelery.compat.app.base import Celery
from pgcelery.compat.events import Event, event_exchange, get_exchange, group_from
from pgcelery.compat.events.dumper import Dumper
from pgcelery.compat.events.receiver import topic
from pgcelery.compat.events.snapshot import Polaroid
from pgcelery.compat.events.state import (
    TASK_EVENT_TO_STATE,
    State,
    Task,
    Worker,
    heartbeat_expires,
)
from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.utils.time import utcoffset
from tests.support.wait import wait_for


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    with Celery("events", broker=dsn, set_as_current=False) as app:

        @app.task(name="t.add", shared=False)
        def add(x: int, y: int) -> int:
            return x + y

        yield app


@contextmanager
def listening(app: Celery, **options: Any) -> Iterator[list[dict[str, Any]]]:
    """Capture in a thread for the length of the block; it has begun when the block does."""
    heard: list[dict[str, Any]] = []
    receiver = app.events.Receiver(app.connection(), handlers={"*": heard.append}, **options)
    began = threading.Event()
    receiver.wakeup_workers = began.set
    thread = threading.Thread(target=receiver.capture)
    thread.start()
    try:
        assert began.wait(10)
        yield heard
    finally:
        receiver.should_stop = True
        thread.join(10)


# -- shapes


def test_an_event_is_a_dict_with_type_and_time():
    event = Event("task-x", {"a": 1}, b=2)
    assert event.pop("timestamp") == pytest.approx(time.time(), abs=5)
    assert event == {"type": "task-x", "a": 1, "b": 2}
    assert Event("x-y", timestamp=3)["timestamp"] == 3
    assert group_from("task-sent") == "task"
    assert (event_exchange.name, event_exchange.type) == ("celeryev", "topic")
    assert get_exchange(None, name="other").name == "other"


@pytest.mark.parametrize(
    ("pattern", "hit", "missed"),
    [
        ("#", ["task-sent", "x"], []),
        ("task.#", ["task-sent", "task-my-own", "task"], ["worker-online", "tasks-x"]),
        ("*.online", ["worker-online"], ["online", "worker-not-online"]),
        ("worker.*", ["worker-online"], ["worker", "worker-a-b"]),
        ("#.end", ["end", "a-end", "a-b-end"], ["end-a", "bend"]),
    ],
)
def test_routing_keys_are_topics(pattern: str, hit: list[str], missed: list[str]):
    wanted = topic(pattern)
    assert [type for type in [*hit, *missed] if wanted(type)] == hit


# -- sending and receiving


def test_an_event_travels_with_the_fields_of_its_sender(app: Celery):
    with listening(app) as heard:
        with app.events.default_dispatcher(hostname="n@h") as dispatcher:
            dispatcher.send("custom-thing", value=[1, {"a": None}])
        (event,) = wait_for(lambda: heard)
    assert event["local_received"] - event["timestamp"] < 5
    assert {k: v for k, v in event.items() if k not in ("local_received", "timestamp")} == {
        "type": "custom-thing",
        "hostname": "n@h",
        "utcoffset": utcoffset(),
        "pid": dispatcher.pid,
        "clock": event["clock"],
        "value": [1, {"a": None}],
    }
    assert app.clock.value > event["clock"]


def test_each_handler_gets_its_type_and_the_star_gets_the_rest(app: Celery):
    got: dict[str, list[str]] = {"a": [], "*": []}
    receiver = app.events.Receiver(
        handlers={
            "a-b": lambda event: got["a"].append(event["type"]),
            "*": lambda event: got["*"].append(event["type"]),
        }
    )
    receiver.wakeup_workers = lambda: [
        app.events.Dispatcher().send(type) for type in ("a-b", "a-c", "d-e")
    ]
    receiver.capture(limit=3, timeout=10)
    assert got == {"a": ["a-b"], "*": ["a-c", "d-e"]}


def test_capture_ends_at_its_limit_and_gives_up_when_nothing_comes(app: Celery):
    receiver = app.events.Receiver()
    receiver.wakeup_workers = lambda: [app.events.Dispatcher().send("a-b") for _ in range(5)]
    assert len(list(receiver.itercapture(limit=2, timeout=10))) == 2
    receiver.wakeup_workers = lambda: None
    with pytest.raises(TimeoutError):
        receiver.capture(timeout=0.1)


def test_a_receiver_hears_only_what_its_routing_key_says(app: Celery):
    with listening(app, routing_key="task.#") as heard:
        dispatcher = app.events.Dispatcher()
        dispatcher.send("worker-x")
        dispatcher.send("task-x")
        wait_for(lambda: heard)
    assert [event["type"] for event in heard] == ["task-x"]


def test_what_is_not_accepted_is_dropped(app: Celery, caplog: pytest.LogCaptureFixture):
    with listening(app) as heard:
        app.events.Dispatcher(serializer="pickle").send("a-secret")
        app.events.Dispatcher().send("a-plain")
        wait_for(lambda: heard)
    assert [event["type"] for event in heard] == ["a-plain"]
    assert "Events that cannot be read were dropped: ContentDisallowed" in caplog.text
    with listening(app, accept=["pickle"]) as heard:
        app.events.Dispatcher(serializer="pickle").send("a-secret", value={1, 2})
        assert wait_for(lambda: heard)[0]["value"] == {1, 2}


def test_an_event_that_cannot_be_said_takes_no_other_along(
    app: Celery, caplog: pytest.LogCaptureFixture
):
    with listening(app) as heard:
        dispatcher = app.events.Dispatcher()
        dispatcher.send("a-bad", value=object())
        dispatcher.send("a-good")
        wait_for(lambda: heard)
    assert [event["type"] for event in heard] == ["a-good"]
    assert "Event a-bad was not sent" in caplog.text


def test_a_database_that_is_away_is_an_error_of_the_broker(app: Celery):
    away = Celery("away", broker="postgresql://x@127.0.0.1:1/x", set_as_current=False)
    with pytest.raises(OperationalError):
        away.events.Receiver(away.connection()).capture(timeout=1)
    away.close()


def test_a_queue_is_not_both_exclusive_and_durable(app: Celery):
    with pytest.raises(ImproperlyConfigured, match="both exclusive and durable"):
        app.events.Receiver(queue_exclusive=True, queue_durable=True)
    receiver = app.events.Receiver(node_id="me", queue_prefix="p", queue_ttl=3)
    assert (receiver.queue.name, receiver.queue.message_ttl) == ("p.me", 3)


# -- the dispatcher


class Sink(list[Any]):
    def put(self, item: Any) -> None:
        self.append(item[1]["type"])


@pytest.fixture
def sent(app: Celery) -> Sink:
    app.__dict__["event_writer"] = sink = Sink()
    sink.close = lambda: None  # type: ignore[attr-defined]
    return sink


def test_groups_and_the_switch_decide_what_is_sent(app: Celery, sent: Sink):
    dispatcher = app.events.Dispatcher(groups=["worker"])
    dispatcher.send("worker-a")
    dispatcher.send("task-a")
    dispatcher.groups.add("task")
    dispatcher.send("task-b")
    heard = []
    dispatcher.on_disabled.add(lambda: heard.append("disabled"))
    dispatcher.on_enabled.add(lambda: heard.append("enabled"))
    dispatcher.disable()
    dispatcher.disable()
    dispatcher.send("worker-b")
    dispatcher.publish("worker-c", {})
    dispatcher.enable()
    dispatcher.send("worker-d")
    with dispatcher:
        pass
    dispatcher.send("worker-e")
    assert sent == ["worker-a", "task-b", "worker-c", "worker-d"]
    assert heard == ["disabled", "enabled"]


def test_a_buffered_group_waits_for_its_limit_or_a_flush(app: Celery, sent: Sink):
    told = []
    dispatcher = app.events.Dispatcher(
        buffer_group=["task"], buffer_limit=3, on_send_buffered=lambda: told.append(len(sent))
    )
    for number in range(4):
        dispatcher.send(f"task-{number}")
    assert sent == ["task-0", "task-1", "task-2"]
    dispatcher.send("worker-x")
    dispatcher.flush()
    assert sent[3:] == ["worker-x", "task-3"]
    assert told == [0, 0, 3]


def test_a_blind_event_has_no_clock(app: Celery):
    dispatcher = app.events.Dispatcher()
    before = app.clock.value
    assert dispatcher._made("a-b", {}, True, Event, lambda: 0)["clock"] is None
    assert app.clock.value == before
    assert dispatcher._made("a-b", {}, False, Event, lambda: 0)["clock"] == before + 1


# -- task-sent


def test_task_sent_is_sent_if_the_setting_says_so(app: Celery):
    with listening(app, routing_key="task.sent") as heard:
        app.tasks["t.add"].delay(1, 1)
        app.conf.task_send_sent_event = True
        result = app.tasks["t.add"].apply_async((1,), {"y": "z"}, queue="q", expires=60)
        (event,) = wait_for(lambda: heard)
    for field in ("timestamp", "local_received", "utcoffset", "clock"):
        assert event.pop(field) is not None
    expires = event.pop("expires")
    assert expires.endswith("+00:00")
    pid = event.pop("pid")
    assert event.pop("hostname").startswith(f"gen{pid}@")
    assert event == {
        "type": "task-sent",
        "uuid": result.id,
        "root_id": result.id,
        "parent_id": None,
        "name": "t.add",
        "args": "(1,)",
        "kwargs": "{'y': 'z'}",
        "retries": 0,
        "eta": None,
        "queue": "q",
        "exchange": "",
        "routing_key": "q",
    }


# -- state

_clock = itertools.count(1)


def task_event(type: str, uuid: str = "t1", **fields: Any) -> dict[str, Any]:
    clock = next(_clock)
    return {
        "type": f"task-{type}",
        "uuid": uuid,
        "hostname": "w@h",
        "timestamp": 1000.0 + clock,
        "local_received": 1000.0 + clock,
        "clock": clock,
        **fields,
    }


def worker_event(type: str, hostname: str = "w@h", **fields: Any) -> dict[str, Any]:
    now = time.time()
    return {
        "type": f"worker-{type}",
        "hostname": hostname,
        "timestamp": now,
        "local_received": now,
        "freq": 2.0,
        "pid": 7,
        **fields,
    }


def test_the_states_that_events_stand_for():
    assert TASK_EVENT_TO_STATE == {
        "sent": "PENDING",
        "received": "RECEIVED",
        "started": "STARTED",
        "failed": "FAILURE",
        "retried": "RETRY",
        "succeeded": "SUCCESS",
        "revoked": "REVOKED",
        "rejected": "REJECTED",
    }


def test_a_task_from_being_sent_to_its_end():
    state = State()
    state.event(task_event("sent", name="add", args="(1,)", hostname="gen1@h", queue="q"))
    task = state.tasks["t1"]
    assert (task.state, task.client, task.origin, task.worker) == (
        "PENDING", "gen1@h", "gen1@h", None,
    )  # fmt: skip
    state.event(task_event("received", name="add", args="(1,)", retries=0))
    state.event(task_event("started"))
    (found, created), subject = state.event(task_event("succeeded", result="3", runtime=0.5, pid=9))
    assert found is task
    assert (created, subject) == (False, "succeeded")
    assert (task.state, task.result, task.runtime, task.ready) == ("SUCCESS", "3", 0.5, True)
    assert task.sent < task.received < task.started < task.succeeded == task.timestamp
    assert task.worker is state.workers["w@h"]
    assert task.info() == {"args": "(1,)", "retries": 0, "result": "3", "runtime": 0.5}
    assert task.info(["name"], ["state", "eta"]) == {"name": "add", "state": "SUCCESS"}
    assert (state.event_count, state.task_count) == (4, 1)
    assert state.task_types() == ["add"]


def test_a_late_event_gives_what_it_knows_but_not_the_state():
    state = State()
    state.event(task_event("succeeded", result="3"))
    late = task_event("received", name="add", args="()", result="x", timestamp=5.0)
    state.event(late)
    task = state.tasks["t1"]
    assert (task.state, task.name, task.received, task.result) == ("SUCCESS", "add", 5.0, "3")
    assert task.timestamp != 5.0
    assert late["result"] == "x"


def test_a_retry_may_go_back():
    state = State()
    for type, expected in [
        ("started", states.STARTED),
        ("retried", states.RETRY),
        ("received", states.RECEIVED),
        ("failed", states.FAILURE),
    ]:
        state.event(task_event(type))
        assert state.tasks["t1"].state == expected


def test_an_event_of_ones_own_is_a_state_of_its_own():
    state = State()
    state.event(task_event("progressing", percent=5))
    assert (state.tasks["t1"].state, state.tasks["t1"].percent) == ("PROGRESSING", 5)


def test_families_are_joined_in_whatever_order_they_come():
    state = State()
    state.event(task_event("received", "child", name="c", parent_id="parent", root_id="parent"))
    assert state.tasks["child"].parent is None
    state.event(task_event("received", "parent", name="p"))
    child, parent = state.tasks["child"], state.tasks["parent"]
    assert (child.parent, child.root) == (parent, parent)
    assert list(parent.children) == [child]
    state.event(task_event("received", "second", name="c", parent_id="parent"))
    assert {task.id for task in parent.children} == {"child", "second"}
    assert parent.as_dict()["children"]
    assert child.as_dict()["parent"] == "parent"
    assert tuple(child.as_dict()) == Task._fields


def test_indexes_and_order():
    state = State()
    for uuid, name, worker in [("1", "a", "w1"), ("2", "b", "w1"), ("3", "a", "w2")]:
        state.event(task_event("received", uuid, name=name, hostname=worker))
    state.event(task_event("started", "1", hostname="w1"))
    assert [uuid for uuid, _ in state.tasks_by_time()] == ["1", "3", "2"]
    assert [uuid for uuid, _ in state.tasks_by_timestamp(limit=2)] == ["1", "3"]
    assert [uuid for uuid, _ in state.tasks_by_time(reverse=False)] == ["1", "2", "3"]
    assert [uuid for uuid, _ in state.tasks_by_type("a")] == ["1", "3"]
    assert [uuid for uuid, _ in state.tasks_by_worker("w1", limit=1)] == ["1"]
    assert {task.uuid for task in state.tasks_by_type["a"]} == {"1", "3"}
    assert {task.uuid for task in state.tasks_by_worker["w1"]} == {"1", "2"}
    assert [uuid for uuid, _ in state.itertasks(limit=2)] == ["1", "2"]


def test_events_out_of_order_are_put_in_order():
    state = State()
    first, second = task_event("received", "1"), task_event("received", "2")
    state.event(second)
    state.event(first)
    assert [uuid for uuid, _ in state.tasks_by_time()] == ["2", "1"]
    state._taskheap.clear()
    state.rebuild_taskheap()
    assert [uuid for uuid, _ in state.tasks_by_time()] == ["2", "1"]


def test_only_so_much_is_kept():
    state = State(max_tasks_in_memory=2, max_workers_in_memory=1)
    for number in range(20):
        state.event(task_event("received", str(number), name="a", hostname=f"w{number}"))
    assert list(state.tasks) == ["18", "19"]
    assert list(state.workers) == ["w19"]
    assert len(state._taskheap) == 2 * state.heap_multiplier
    assert [uuid for uuid, _ in state.tasks_by_time()] == ["19", "18"]


def test_workers_come_beat_and_go():
    joined: list[str] = []
    left: list[str] = []
    state = State(
        on_node_join=lambda worker: joined.append(worker.hostname),
        on_node_leave=lambda worker: left.append(worker.hostname),
    )
    (worker, created), subject = state.event(worker_event("online", active=1, loadavg=[1, 2, 3]))
    assert (created, subject, worker.id) == (True, "online", "w@h.7")
    assert (worker.active, worker.freq, worker.status_string) == (1, 2.0, "ONLINE")
    for _ in range(9):
        state.event(worker_event("heartbeat", processed=4))
    assert len(worker.heartbeats) == worker.heartbeat_max
    assert worker.processed == 4
    assert list(state.alive_workers()) == [worker]
    worker.heartbeats[:] = [time.time() - 100]
    assert not worker.alive
    state.event(worker_event("offline"))
    assert (joined, left) == (["w@h"], ["w@h"])
    assert "w@h" not in state.workers
    assert state.event(worker_event("offline", "never@seen"))[0][1] is False
    assert not state.workers


def test_heartbeats_expire_after_two_of_them():
    assert heartbeat_expires(10.0, 30) == 70.0
    assert heartbeat_expires("10", "30", 100) == 40.0
    assert Worker("a") == Worker("a", pid=1)
    assert {Worker("a"), Worker("a")} == {Worker("a")}
    assert Worker("a") != Worker("b")


def test_a_clock_that_is_off_is_said_once(caplog: pytest.LogCaptureFixture):
    state = State()
    with caplog.at_level(logging.WARNING, "celery.events.state"):
        for _ in range(2):
            state.event(worker_event("heartbeat", "drifting@h", timestamp=time.time() - 60))
    assert caplog.text.count("Substantial drift from drifting@h") == 1


def test_other_groups_go_to_their_handlers():
    seen: list[Any] = []
    state = State(callback=lambda state, event: seen.append(event["type"]))
    assert state.event({"type": "custom-x"}) is None
    state.handlers["custom"] = lambda subject, event: event["value"]
    assert state.event({"type": "custom-x", "value": 3}) == (3, "x")
    assert seen == ["custom-x", "custom-x"]


def test_clearing_and_freezing():
    state = State()
    state.event(task_event("started", "going"))
    state.event(task_event("succeeded", "gone"))
    state.clear_tasks()
    assert list(state.tasks) == ["going"]
    assert state.freeze_while(lambda x: (x, state._mutex.locked()), 3) == (3, True)
    state.freeze_while(lambda: None, clear_after=True)
    assert not state.workers
    assert state.event_count == 0
    state.clear(ready=False)
    assert not state.tasks


def test_a_state_survives_pickling():
    state = State()
    state.event(worker_event("online"))
    state.event(task_event("received", "p", name="a"))
    state.event(task_event("received", "c", name="a", parent_id="p", root_id="p"))
    copy = pickle.loads(pickle.dumps(state))
    assert list(copy.tasks) == list(state.tasks) == ["c", "p"]  # a parent is used by its child
    assert copy.tasks["c"].parent_id == "p"
    assert list(copy.workers) == ["w@h"]
    assert {task.id for task in copy.tasks_by_type["a"]} == {"p", "c"}
    assert [uuid for uuid, _ in copy.tasks_by_time()] == ["c", "p"]


def test_get_or_create():
    state = State()
    worker, created = state.get_or_create_worker("w", pid=3)
    assert (worker.pid, created) == (3, True)
    assert state.get_or_create_worker("w", pid=4) == (worker, False)
    assert worker.pid == 4
    task, created = state.get_or_create_task("t")
    assert created
    assert state.get_or_create_task("t") == (task, False)


def test_the_apps_state_is_bound_to_the_app(app: Celery):
    assert app.events.State.app is app
    assert isinstance(app.events.State(), State)


# -- cameras and dumps


def test_a_camera_looks_every_now_and_then_and_once_at_the_end():
    class Camera(Polaroid):
        clear_after = True
        seen: list[int] = []  # noqa: RUF012

        def on_shutter(self, state: Any) -> None:
            self.seen.append(state.event_count)

    state = State()
    state.event(worker_event("online"))
    told: list[Any] = []

    def tell(sender: Any, **kwargs: Any) -> None:
        told.append(sender)

    Camera.shutter_signal.connect(tell)
    with Camera(state, freq=0.01, app=SimpleNamespace()):
        wait_for(lambda: len(Camera.seen) >= 2)
    assert Camera.seen[:2] == [1, 0]
    assert set(told) == {state}
    Camera.shutter_signal.disconnect(tell)


def test_a_dump_is_a_line_for_each_event():
    out = io.StringIO()
    dumper = Dumper(out=out)
    dumper.on_event({"type": "worker-online", "timestamp": 0, "hostname": "w@h", "freq": 2})
    dumper.on_event(
        task_event("received", timestamp=0, name="add", args="(1,)", kwargs="{}", clock=1)
    )
    dumper.on_event({"type": "task-started", "timestamp": 0, "hostname": "w@h", "uuid": "t1"})
    first, second, third = out.getvalue().splitlines()
    epoch = "1970-01-01 00:00:00+00:00"
    assert first == f"w@h [{epoch}] started: freq=2"
    task = "add(t1) args=(1,) kwargs={}"
    assert second.startswith(f"w@h [{epoch}] task received: {task} clock=1, local_received=")
    assert third.rstrip() == f"w@h [{epoch}] task started {task}"
