from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from kombu.exceptions import OperationalError

from pgcelery.compat import states
from pgcelery.compat.app.base import Celery
from pgcelery.compat.app.control import flatten_reply
from pgcelery.compat.contrib.testing.worker import start_worker
from pgcelery.compat.exceptions import DuplicateNodenameWarning, TaskRevokedError
from pgcelery.compat.worker import state
from pgcelery.compat.worker.control import Panel, control_command
from tests.support.wait import wait_for

NODE = "w1@here"
BEGUN = threading.Event()
GO_ON = threading.Event()


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    app = Celery("control", broker=dsn, set_as_current=False)
    app.conf.task_store_eager_result = True

    @app.task(name="t.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="t.hold", shared=False)
    def hold(*args: Any) -> str:
        BEGUN.set()
        assert GO_ON.wait(20)
        return "held"

    BEGUN.clear()
    GO_ON.clear()
    yield app
    GO_ON.set()
    app.close()


@pytest.fixture
def worker(app: Celery) -> Iterator[Any]:
    state.reset_state()
    with start_worker(app, pool="threads", hostname=NODE, perform_ping_check=False) as worker:
        yield worker
        GO_ON.set()


def test_nobody_is_none_for_inspect_and_an_empty_list_for_ping(app: Celery, client: Any) -> None:
    assert app.control.inspect().ping() is None
    assert app.control.ping() == []


def test_ping_has_celerys_shape_and_does_not_wait_for_its_timeout(app: Celery, worker: Any) -> None:
    assert app.control.ping(timeout=60) == [{NODE: {"ok": "pong"}}]
    assert app.control.inspect(timeout=60).ping() == {NODE: {"ok": "pong"}}


def test_a_destination_and_a_pattern_choose_nodes(app: Celery, worker: Any) -> None:
    assert app.control.ping(destination=["nobody@here"]) == []
    assert app.control.inspect(destination=NODE).ping() == {"ok": "pong"}
    assert app.control.inspect(pattern="w*", matcher="glob").ping() == {NODE: {"ok": "pong"}}
    assert app.control.inspect(pattern="x*", matcher="glob").ping() is None


def test_a_callback_hears_every_answer(app: Celery, worker: Any) -> None:
    heard: list[Any] = []
    app.control.inspect(callback=heard.append).ping()
    assert heard == [{NODE: {"ok": "pong"}}]


def test_without_reply_nothing_is_returned(app: Celery, worker: Any) -> None:
    assert app.control.broadcast("ping") is None


def test_active_shows_the_task_that_runs(app: Celery, worker: Any) -> None:
    result = app.tasks["t.hold"].delay(5)
    assert BEGUN.wait(10)
    (info,) = app.control.inspect().active()[NODE]
    assert info.pop("time_start") == pytest.approx(datetime.now().timestamp(), abs=30)
    assert info == {
        "id": result.id,
        "name": "t.hold",
        "args": [5],
        "kwargs": {},
        "type": "t.hold",
        "hostname": NODE,
        "acknowledged": True,
        "delivery_info": {
            "exchange": "",
            "routing_key": "celery",
            "priority": 0,
            "redelivered": False,
        },
        "worker_pid": os.getpid(),
    }
    assert app.control.inspect().query_task(result.id)[NODE][result.id][0] == "active"
    assert app.control.inspect().query_task("unknown") == {NODE: {}}
    GO_ON.set()
    assert result.get(timeout=10) == "held"
    wait_for(lambda: app.control.inspect().active() == {NODE: []})
    assert result.id in state.successful_requests
    assert state.total_count["t.hold"] == 1


def test_scheduled_shows_what_waits_for_its_eta(app: Celery, worker: Any) -> None:
    eta = datetime.now(UTC) + timedelta(hours=1)
    result = app.tasks["t.add"].apply_async([1, 2], eta=eta)
    (entry,) = app.control.inspect().scheduled()[NODE]
    assert entry["eta"] == eta.isoformat()
    assert entry["priority"] == 6
    assert entry["request"]["id"] == result.id
    assert entry["request"]["args"] == [1, 2]
    assert entry["request"]["time_start"] is None
    assert entry["request"]["acknowledged"] is False
    assert entry["request"]["worker_pid"] is None


def test_registered_shows_names_and_attributes(app: Celery, worker: Any) -> None:
    assert "t.add" in app.control.inspect().registered()[NODE]
    assert "t.add [name=t.add]" in app.control.inspect().registered("name")[NODE]


def test_stats_and_the_other_questions_have_celerys_keys(app: Celery, worker: Any) -> None:
    inspect = app.control.inspect()
    stats = inspect.stats()[NODE]
    assert stats["pool"]["max-concurrency"] == 1
    assert stats["pool"]["threads"] == 1
    assert stats["pid"] == os.getpid()
    assert stats["uptime"] >= 0
    assert set(stats) >= {"total", "clock", "broker", "prefetch_count", "rusage"}
    assert inspect.clock()[NODE]["clock"] > 0
    assert "software -> celery:" in inspect.report()[NODE]["ok"]
    assert inspect.conf()[NODE]["task_store_eager_result"] is True
    (queue,) = inspect.active_queues()[NODE]
    assert queue["name"] == "celery"
    assert queue["exchange"]["type"] == "direct"
    assert inspect.memsample()[NODE].endswith("MB")


def test_no_password_is_told(app: Celery, worker: Any) -> None:
    app.conf.result_backend = "redis://:s3cret@h/0"
    inspect = app.control.inspect()
    assert "s3cret" not in str(inspect.conf(with_defaults=True)) + str(inspect.report())


def test_revoke_ends_what_waits_even_with_no_worker(app: Celery, client: Any) -> None:
    result = app.tasks["t.add"].delay(1, 1)
    app.control.revoke(result.id)
    assert result.state == states.REVOKED
    with pytest.raises(TaskRevokedError):
        result.get(timeout=5)


def test_an_unknown_id_is_revoked_before_it_is_sent(app: Celery, worker: Any) -> None:
    app.control.revoke("later")
    app.tasks["t.add"].apply_async((1, 1), task_id="later")
    with pytest.raises(TaskRevokedError):
        app.AsyncResult("later").get(timeout=5)


def test_revoke_tells_the_workers(app: Celery, worker: Any) -> None:
    answer = app.control.revoke(["a", "b"], reply=True)
    assert answer[0][NODE]["ok"].startswith("tasks {")
    assert set(app.control.inspect().revoked()[NODE]) >= {"a", "b"}


def test_revoke_leaves_a_state_that_somebody_else_wrote(app: Celery, worker: Any) -> None:
    app.backend.store_result("there", {"hostname": "other@host"}, states.STARTED)
    app.control.revoke(["there", "nowhere"], reply=True, timeout=10)
    assert app.backend.get_state("there") == states.STARTED
    assert app.backend.get_state("nowhere") == states.REVOKED


def test_a_stamp_can_be_revoked(app: Celery, worker: Any) -> None:
    answer = app.control.revoke_by_stamped_headers({"myheader": ["myvalue"]}, reply=True)
    assert answer == [
        {NODE: {"ok": "headers {'myheader': ['myvalue']} flagged as revoked, but not terminated"}}
    ]
    add = app.tasks["t.add"]
    bad = add.si(1, 1)
    bad.stamp(myheader="myvalue")
    good = add.si(1, 1)
    good.stamp(myheader="other")
    ended = bad.apply_async()
    assert good.apply_async().get(timeout=10) == 2
    with pytest.raises(TaskRevokedError):
        ended.get(timeout=10)


def test_a_worker_that_was_given_up_hears_of_stamps_when_it_is_back(app: Celery, dsn: str) -> None:
    state.reset_state()
    with start_worker(
        app, pool="threads", hostname=NODE, perform_ping_check=False, heartbeat_interval=0.2
    ):
        with psycopg.connect(dsn) as conn:
            conn.execute("delete from pgcelery.workers")
        app.control.revoke_by_stamped_headers({"myheader": ["late"]})
        wait_for(lambda: state.revoked_stamps.get("myheader") == ["late"])


def test_queues_are_added_and_cancelled_at_run_time(app: Celery, worker: Any) -> None:
    assert app.control.add_consumer("extra", reply=True) == [{NODE: {"ok": "add consumer extra"}}]
    result = app.tasks["t.add"].apply_async((2, 2), queue="extra")
    assert result.get(timeout=10) == 4
    app.control.cancel_consumer("extra", reply=True)
    names = [queue["name"] for queue in app.control.inspect().active_queues()[NODE]]
    assert names == ["celery"]


def test_limits_are_set_for_known_tasks_only(app: Celery, worker: Any) -> None:
    control = app.control
    assert control.rate_limit("t.add", "10/m", reply=True) == [
        {NODE: {"ok": "new rate limit set successfully"}}
    ]
    assert control.rate_limit("t.none", "10/m", reply=True) == [{NODE: {"error": "unknown task"}}]
    assert "error" in control.rate_limit("t.add", "10/x", reply=True)[0][NODE]
    assert control.time_limit("t.add", soft=5, hard=9, reply=True) == [
        {NODE: {"ok": "time limits set successfully"}}
    ]
    assert app.tasks["t.add"].time_limit == 9


def test_a_command_of_the_application_is_called_and_may_fail(app: Celery, worker: Any) -> None:
    @control_command(args=[("n", int)])
    def double(state: Any, n: int) -> Any:
        return {"ok": n * 2}

    @control_command()
    def fail(state: Any) -> Any:
        raise KeyError("oops")

    try:
        assert app.control.broadcast("double", {"n": 4}, reply=True) == [{NODE: {"ok": 8}}]
        assert app.control.broadcast("fail", reply=True) == [{NODE: {"error": "KeyError('oops')"}}]
        assert "error" in app.control.broadcast("nothing", reply=True)[0][NODE]
        assert app.control.ping() == [{NODE: {"ok": "pong"}}]
    finally:
        for name in ("double", "fail"):
            del Panel.data[name], Panel.meta[name]


def test_the_pool_grows(app: Celery, worker: Any) -> None:
    assert app.control.pool_grow(2, reply=True) == [{NODE: {"ok": "pool will grow"}}]
    assert app.control.inspect().stats()[NODE]["pool"]["max-concurrency"] == 3


def test_shutdown_ends_the_worker(app: Celery, worker: Any) -> None:
    app.control.shutdown()
    wait_for(lambda: worker.node.stopped.is_set())
    assert worker.exitcode == 0
    assert app.control.ping() == []


def test_purge_counts_what_waited(app: Celery, client: Any) -> None:
    for _ in range(3):
        app.tasks["t.add"].delay(1, 1)
    assert app.control.purge() == 3
    assert app.control.purge() == 0


def test_two_nodes_of_one_name_are_warned_of() -> None:
    with pytest.warns(DuplicateNodenameWarning, match="multiple replies from node name: a@x"):
        assert flatten_reply([{"a@x": 1}, {"a@x": 2}]) == {"a@x": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert flatten_reply([{"a@x": 1}, {"b@x": 2}]) == {"a@x": 1, "b@x": 2}


def test_a_lost_database_is_kombus_error() -> None:
    app = Celery("lost", broker="postgresql://me@127.0.0.1:1/x", set_as_current=False)
    with pytest.raises(OperationalError):
        app.control.ping()
