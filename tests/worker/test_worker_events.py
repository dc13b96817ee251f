"""The events of a real worker: types in order, and exactly the fields that Celery 5.7 sends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.compat import signals
from pgcelery.compat.app.base import Celery
from pgcelery.compat.contrib.testing.worker import start_worker
from pgcelery.compat.worker.heartbeat import Heart
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

PROJECT = """\
import os, pathlib, threading
from pgcelery import Celery

app = Celery("proj", broker=os.environ["TEST_DSN"])

@app.task(ignore_result=True)
def add(x, y):
    return x + y

@app.task
def whine():
    raise ValueError("no")

@app.task(bind=True)
def again(self):
    if not self.request.retries:
        raise self.retry(exc=KeyError("k"), countdown=0)
    return "done"

@app.task(bind=True)
def hold(self):
    self.send_event("task-halfway", percent=50)
    while not pathlib.Path("go").exists():
        threading.Event().wait(0.01)

@app.task(send_events=False)
def secret():
    pass

@app.task(acks_late=True)
def reject():
    from pgcelery.exceptions import Reject
    raise Reject("no", requeue=False)
"""

#: of every event that was received
COMMON = {"type", "hostname", "utcoffset", "pid", "clock", "timestamp", "local_received"}
#: recorded from Celery 5.7 on Redis
FIELDS = {
    "task-received": {
        "uuid", "name", "args", "kwargs", "root_id", "parent_id", "retries", "eta", "expires",
    },
    "task-started": {"uuid"},
    "task-succeeded": {"uuid", "result", "runtime"},
    "task-failed": {"uuid", "exception", "traceback"},
    "task-retried": {"uuid", "exception", "traceback"},
    "task-revoked": {"uuid", "terminated", "signum", "expired"},
    "task-rejected": {"uuid", "requeue"},
    "task-halfway": {"uuid", "percent"},
    "worker-online": {
        "freq", "active", "processed", "loadavg", "sw_ident", "sw_ver", "sw_sys",
    },
}  # fmt: skip
FIELDS["worker-offline"] = FIELDS["worker-heartbeat"] = FIELDS["worker-online"]


class Heard(list[dict[str, Any]]):
    """Events, as they come."""

    def of(self, task_id: str) -> list[dict[str, Any]]:
        return [event for event in self if event.get("uuid") == task_id]

    def types(self, task_id: str) -> list[str]:
        return [event["type"] for event in self.of(task_id)]

    def one(self, type: str, **fields: Any) -> dict[str, Any]:
        """Wait for an event."""

        def found() -> list[dict[str, Any]]:
            wanted = {"type": type, **fields}.items()
            return [event for event in list(self) if wanted <= event.items()]

        return wait_for(found, 15, lambda: f"no {type} {fields} in {[*self]}")[0]


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    with Celery("proj", broker=dsn, set_as_current=False) as app:
        yield app


@contextmanager
def listening(app: Celery, wakeup: bool = True) -> Iterator[Heard]:
    heard, began = Heard(), threading.Event()
    receiver = app.events.Receiver(app.connection(), handlers={"*": heard.append})
    wake = receiver.wakeup_workers

    def begun() -> None:
        if wakeup:
            wake()
        began.set()

    receiver.wakeup_workers = begun
    thread = threading.Thread(target=receiver.capture)
    thread.start()
    try:
        assert began.wait(10)
        yield heard
    finally:
        receiver.should_stop = True
        thread.join(10)


@pytest.fixture
def heard(app: Celery) -> Iterator[Heard]:
    with listening(app) as heard:
        yield heard


@pytest.fixture
def start(spawn: Callable[..., Process], tmp_path: Path, dsn: str) -> Callable[..., Process]:
    (tmp_path / "proj.py").write_text(PROJECT)

    def start(*args: str) -> Process:
        process = spawn(
            [*PGCELERY, "-A", "proj", "worker", "-l", "info", "-n", "w1@here", "-c", "1", *args],
            env={"TEST_DSN": dsn},
            cwd=tmp_path,
        )
        process.wait_for_output(r"w1@here ready\.$", 20)
        return process

    return start


def test_the_stream_of_a_worker_is_celerys(
    app: Celery, heard: Heard, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start("-E")
    heard.one("worker-online", hostname="w1@here", freq=2.0, sw_ident="py-celery")

    added = app.send_task("proj.add", (1,), {"y": 2}).id
    done = heard.one("task-succeeded", uuid=added)
    assert (done["result"], done["hostname"], done["pid"]) == ("3", "w1@here", worker.pid)
    assert 0 < done["runtime"] < 5
    received, started, _ = heard.of(added)
    assert heard.types(added) == ["task-received", "task-started", "task-succeeded"]
    wanted = {"name": "proj.add", "args": "(1,)", "kwargs": "{'y': 2}", "root_id": added}
    assert wanted.items() <= received.items()
    assert received["timestamp"] <= started["timestamp"] + 0.1 <= done["timestamp"] + 0.1
    assert received["clock"] < started["clock"] < done["clock"]

    failed = app.send_task("proj.whine").id
    assert heard.one("task-failed", uuid=failed)["exception"] == "ValueError('no')"
    assert heard.types(failed) == ["task-received", "task-started", "task-failed"]
    assert heard.of(failed)[-1]["traceback"].endswith("ValueError: no\n")

    retried = app.send_task("proj.again").id
    assert heard.one("task-succeeded", uuid=retried)["result"] == "'done'"
    assert heard.types(retried) == [
        "task-received", "task-started", "task-retried",
        "task-received", "task-started", "task-succeeded",
    ]  # fmt: skip
    assert heard.of(retried)[2]["exception"] == "KeyError('k')"
    assert [event.get("retries") for event in heard.of(retried)[::3]] == [0, 1]

    rejected = app.send_task("proj.reject").id
    assert heard.one("task-rejected", uuid=rejected)["requeue"] is False
    unknown = app.send_task("proj.nothing").id
    assert heard.one("task-failed", uuid=unknown)["exception"] == "NotRegistered('proj.nothing')"
    app.send_task("proj.secret").get(timeout=10)

    held = app.send_task("proj.hold").id
    heard.one("task-started", uuid=held)
    assert heard.one("task-halfway", uuid=held)["percent"] == 50
    heard.one("worker-heartbeat", active=1)
    app.control.revoke(held, terminate=True, signal="SIGKILL")
    revoked = heard.one("task-revoked", uuid=held)
    assert (revoked["terminated"], revoked["signum"], revoked["expired"]) == (True, 9, False)

    worker.send(signal.SIGTERM)
    assert worker.wait(10) == 0
    heard.one("worker-offline")
    assert not [event for event in heard if event.get("name") == "proj.secret"]
    for event in heard:
        expected = set(FIELDS[event["type"]])
        if event["type"] == "worker-heartbeat" and event["freq"] == 5:
            expected -= {"active", "processed", "loadavg"}  # one that was asked for
        if event.get("uuid") == unknown:
            expected -= {"traceback"}
        assert set(event) - COMMON == expected, event


def test_without_e_only_the_worker_is_told_of_until_events_are_enabled(
    app: Celery, start: Callable[..., Process], dsn: str
) -> None:
    start()
    app.send_task("proj.whine")
    assert events_written(dsn) == 0
    with listening(app) as heard:
        heard.one("worker-heartbeat", freq=2.0)
        silent = ended(app.send_task("proj.whine"))
        assert app.control.enable_events(reply=True) == [{"w1@here": {"ok": "task events enabled"}}]
        told = app.send_task("proj.whine").id
        heard.one("task-failed", uuid=told)
        assert heard.of(silent) == []
        app.control.disable_events(reply=True)
        silent = ended(app.send_task("proj.whine"))
        count = sum(event["type"] == "worker-heartbeat" for event in heard)
        wait_for(lambda: sum(event["type"] == "worker-heartbeat" for event in heard) > count)
        assert heard.of(silent) == []


def ended(result: Any) -> str:
    result.get(timeout=10, propagate=False)
    task_id: str = result.id
    return task_id


def events_written(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        found = conn.execute("select count(*) from pgcelery.events").fetchone()
    assert found is not None
    return int(found[0])


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_other_pools_tell_the_same(app: Celery, heard: Heard, pool: str) -> None:
    @app.task(name="t.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    app.conf.worker_send_task_events = True
    with start_worker(app, pool=pool, hostname="w@h", perform_ping_check=False):
        task_id = add.delay(1, 2).id
        assert heard.one("task-succeeded", uuid=task_id)["result"] == "3"
    assert heard.types(task_id) == ["task-received", "task-started", "task-succeeded"]
    heard.one("worker-offline")


def test_a_heart_rests_while_nobody_listens_and_goes_on_when_asked() -> None:
    class Timer:
        entries: list[Any] = []  # noqa: RUF012

        def call_repeatedly(self, secs: float, fun: Callable[[], None]) -> Any:
            self.entries.append(fun)
            return fun

        def cancel(self, entry: Any) -> None:
            self.entries.remove(entry)

    class Eventer:
        enabled = True
        on_enabled: set[Any] = set()  # noqa: RUF012
        on_disabled: set[Any] = set()  # noqa: RUF012
        sent: list[str] = []  # noqa: RUF012
        tasks = False

        class app:
            class event_writer:
                heard = True

        def sends(self, group: str) -> bool:
            return self.tasks

        def send(self, type: str, **fields: Any) -> None:
            self.sent.append(type)

    timer, eventer = Timer(), Eventer()
    heart = Heart(timer, eventer)
    heart.start()
    timer.entries[0]()
    assert eventer.sent == ["worker-online", "worker-heartbeat"]
    eventer.app.event_writer.heard = False
    timer.entries[0]()
    assert timer.entries == []
    heart.wake()
    eventer.tasks = True
    timer.entries[0]()
    heart.stop()
    assert timer.entries == []
    assert eventer.sent[2:] == ["worker-heartbeat", "worker-offline"]


def test_heartbeat_sent_is_sent_with_each_renewal_of_the_lease(app: Celery) -> None:
    senders: list[Any] = []

    def note(sender: Any, **kwargs: Any) -> None:
        senders.append(sender)

    signals.heartbeat_sent.connect(note)
    try:
        with start_worker(app, pool="threads", perform_ping_check=False):
            wait_for(lambda: senders)
    finally:
        signals.heartbeat_sent.disconnect(note)
    assert isinstance(senders[0], Heart)
