"""Remote control of real workers: what holds without one, what changes one, what it answers."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgcelery.compat import states
from pgcelery.compat.app.base import Celery
from pgcelery.compat.exceptions import TaskRevokedError
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

NODE = "w1@here"
PROJECT = """\
import os, pathlib, threading
import value
from pgcelery import Celery
from pgcelery.worker.control import control_command, inspect_command

app = Celery("proj", broker=os.environ["TEST_DSN"])
app.conf.beat_max_loop_interval = 1

@app.task
def add(x, y):
    with open("ran", "a") as file:
        file.write(f"{x} {y}\\n")
    return x + y

@app.task
def hold(name):
    pathlib.Path(name + ".begun").touch()
    while not pathlib.Path(name + ".go").exists():
        threading.Event().wait(0.01)
    return os.getpid()

@app.task
def see():
    return [value.VALUE, os.getpid()]

@control_command(args=[("factor", float), ("times", int)], signature="<factor> [times]")
def scale(state, factor, times=2):
    '''Multiply.

    More of it.
    '''
    return {"ok": factor * times}

@control_command(name="join", alias="glue", variadic="words", help="Joins words.")
def join_words(state, words, **kwargs):
    return {"ok": "-".join(words), "node": state.hostname}

@inspect_command(visible=False)
def secret(state, **kwargs):
    return [state.app.main, state.consumer.pool.size]

@control_command()
def fail(state, how="raise"):
    if how == "unwritable":
        return threading.Lock()
    if how == "exit":
        raise SystemExit(3)
    raise OSError("the disk is full")
"""


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    with Celery("proj", broker=dsn, set_as_current=False) as app:
        yield app


@pytest.fixture
def run(spawn: Callable[..., Process], tmp_path: Path, dsn: str) -> Callable[..., Process]:
    (tmp_path / "proj.py").write_text(PROJECT)
    (tmp_path / "value.py").write_text("VALUE = 'old'\n")

    def run(*args: str) -> Process:
        env = {"TEST_DSN": dsn, "PYTHONDONTWRITEBYTECODE": "1"}
        return spawn([*PGCELERY, "-A", "proj", *args], env=env, cwd=tmp_path)

    return run


@pytest.fixture
def start(run: Callable[..., Process]) -> Callable[..., Process]:
    def start(*args: str) -> Process:
        process = run("worker", "-l", "info", "-n", NODE, "-c", "1", *args)
        process.wait_for_output(r"w1@here ready\.$", 20)
        return process

    return start


@pytest.fixture
def pgcelery(run: Callable[..., Process]) -> Callable[..., tuple[int, str]]:
    def pgcelery(*args: str) -> tuple[int, str]:
        process = run(*args)
        return process.wait(30), process.output()

    return pgcelery


def stop(worker: Process) -> None:
    worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0


def assert_revoked(app: Celery, *ids: str) -> None:
    for id in ids:
        with pytest.raises(TaskRevokedError):
            app.AsyncResult(id).get(timeout=10)
        assert app.AsyncResult(id).state == states.REVOKED


# -- a revoke needs no worker --------------------------------------------------------------------


@pytest.mark.parametrize("terminate", [False, True])
def test_a_revoke_that_no_worker_heard_holds_for_those_that_start_later(
    app: Celery, start: Callable[..., Process], tmp_path: Path, terminate: bool
) -> None:
    add = "proj.add"
    app.send_task(add, (1, 0), task_id="sent before")
    app.send_task(add, (2, 0), task_id="with an eta", countdown=1)
    ids = ["sent before", "with an eta", "sent between", "sent to a live worker", "sent at last"]
    app.control.revoke(ids, terminate=terminate)
    app.send_task(add, (3, 0), task_id="sent between")
    for round in range(3):  # the worker starts anew each time
        worker = start()
        assert app.send_task(add, (0, round)).get(timeout=10) == round
        if round == 1:
            app.send_task(add, (4, 0), task_id="sent to a live worker")
            assert_revoked(app, "sent to a live worker")
        stop(worker)
    app.send_task(add, (5, 0), task_id="sent at last")
    start()
    assert_revoked(app, *ids)
    assert (tmp_path / "ran").read_text().split("\n") == ["0 0", "0 1", "0 2", ""]


def test_a_task_of_a_dead_worker_that_is_revoked_does_not_run_again(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "proj.py").write_text(
        PROJECT.replace("@app.task\ndef hold", "@app.task(acks_late=True)\ndef hold").replace(
            "app.conf.beat_max",
            "app.conf.broker_transport_options = {'lease_s': 2, 'heartbeat_s': 0.5,"
            " 'maintain_s': 0.5}\napp.conf.beat_max",
        )
    )
    hold = app.task(name="proj.hold", acks_late=True, shared=False)(lambda name: None)
    worker = start()
    hold.apply_async((str(tmp_path / "h"),), task_id="held")
    wait_for((tmp_path / "h.begun").exists)
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    app.control.revoke("held")
    (tmp_path / "h.begun").unlink()
    start()
    assert_revoked(app, "held")
    assert not (tmp_path / "h.begun").exists()


def test_a_revoke_by_stamp_holds_for_workers_that_start_later(
    app: Celery, start: Callable[..., Process], pgcelery: Callable[..., Any], tmp_path: Path
) -> None:
    def send(id: str, **stamps: str) -> None:
        signature = app.signature("proj.add", (len(id), 0))
        signature.stamp(**stamps)
        signature.apply_async(task_id=id)

    send("before", batch="one")
    app.control.revoke_by_stamped_headers({"batch": ["one", "two"]})
    code, said = pgcelery("control", "revoke_by_stamped_headers", "who=me")
    assert code == 69
    assert "no worker is alive; the revoke holds for workers that start later" in said
    send("between", batch="two")
    for round in range(2):
        worker = start()
        send(f"after {round}", who="me")
        assert_revoked(app, f"after {round}")
        send(f"other {round}", batch="three", who="you")
        assert app.AsyncResult(f"other {round}").get(timeout=10) == len("other 0")
        stop(worker)
    assert_revoked(app, "before", "between")
    assert (tmp_path / "ran").read_text() == f"{len('other 0')} 0\n" * 2


def test_a_revoke_by_stamp_holds_for_a_later_step_of_a_chain_that_runs(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    """Which its pool process would begin before the worker has seen the stamp."""
    held = str(tmp_path / "h")
    start()
    for n in range(5):  # by then the process goes on by itself
        first = app.signature("proj.add", (n, 0))
        assert (first | app.signature("proj.add", (1,))).apply_async().get(timeout=10) == n + 1
    step = app.signature("proj.add", (7, 7), immutable=True)
    step.stamp(batch="one")
    result = (app.signature("proj.hold", (held,)) | step).apply_async()
    wait_for(Path(f"{held}.begun").exists)
    app.control.revoke_by_stamped_headers({"batch": "one"}, reply=True, timeout=10)
    Path(f"{held}.go").touch()
    assert_revoked(app, result.id)
    assert "7 7" not in (tmp_path / "ran").read_text()


@pytest.mark.parametrize("command", [["revoke"], ["terminate", "KILL"]])
def test_a_revoke_on_the_command_line_needs_no_worker(
    app: Celery, start: Callable[..., Process], pgcelery: Callable[..., Any], command: list[str]
) -> None:
    code, said = pgcelery("control", *command, "one", "two")
    assert code == 69
    assert "the revoke holds for workers that start later" in said
    for id in ("one", "two"):
        app.send_task("proj.add", (1, 1), task_id=id)
    start()
    assert_revoked(app, "one", "two")


# -- the pool ------------------------------------------------------------------------------------


def test_a_pool_restart_brings_new_code_after_the_running_task(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start("worker.pool_restarts=1")
    value, pid = app.send_task("proj.see").get(timeout=10)
    assert value == "old"
    held = app.send_task("proj.hold", (str(tmp_path / "h"),))
    wait_for((tmp_path / "h.begun").exists)
    (tmp_path / "value.py").write_text("VALUE = 'new value'\n")
    (tmp_path / "extra.py").write_text("import pathlib\npathlib.Path('imported').touch()\n")
    (answer,) = app.control.pool_restart(
        modules=["value", "extra"], reload=True, reply=True, timeout=10
    )
    assert answer == {NODE: {"ok": "reload started"}}
    assert (tmp_path / "imported").exists()
    after = app.send_task("proj.see")
    (tmp_path / "h.go").touch()
    assert held.get(timeout=10) == pid
    value, new_pid = after.get(timeout=10)
    assert value == "new value"
    assert new_pid != pid
    assert app.control.inspect().stats()[NODE]["pool"]["processes"] == [new_pid]
    (answer,) = app.control.pool_restart(modules=["no_such_module"], reply=True, timeout=10)
    assert "ModuleNotFoundError" in answer[NODE]["error"]
    assert app.send_task("proj.see").get(timeout=10) == [value, new_pid]
    assert worker.popen.poll() is None


def test_a_pool_restart_is_refused_unless_it_is_on(
    app: Celery, start: Callable[..., Process]
) -> None:
    start()
    (answer,) = app.control.pool_restart(reply=True, timeout=10)
    assert answer == {NODE: {"error": "ValueError('Pool restarts not enabled')"}}


# -- commands of the application -----------------------------------------------------------------


def test_commands_of_the_application_are_called_with_their_arguments(
    app: Celery, start: Callable[..., Process], pgcelery: Callable[..., tuple[int, str]]
) -> None:
    start()

    def tell(command: str, **arguments: Any) -> Any:
        (answer,) = app.control.broadcast(command, arguments, reply=True, timeout=10)
        return answer[NODE]

    assert tell("scale", factor=1.5) == {"ok": 3.0}
    assert tell("glue", words=["a", "b"]) == {"ok": "a-b", "node": NODE}
    assert tell("secret") == ["proj", 1]
    assert tell("fail") == {"error": "OSError('the disk is full')"}
    assert "lock" in tell("fail", how="unwritable")["error"]
    assert "unexpected keyword argument 'by'" in tell("scale", by=2)["error"]
    assert app.control.inspect()._request("secret") == {NODE: ["proj", 1]}
    said = pgcelery("control", "scale", "1.5", "4", "-d", NODE, "-t", "10")
    assert said == (0, f"->  {NODE}: OK\n        6.0\n")
    code, said = pgcelery("control", "join", "x", "y", "z", "--json")
    assert (code, json.loads(said)) == (0, [{NODE: {"ok": "x-y-z", "node": NODE}}])
    code, said = pgcelery("control", "fail")
    assert code == 0
    assert f"{NODE}: ERROR\n        OSError('the disk is full')" in said
    code, said = pgcelery("control", "--list")
    assert "scale <factor> [times]" in said
    assert "Joins words." in said
    assert "Multiply." in said
    assert "More of it" not in said
    for words, sentence in (
        (["inspect", "secret"], "Command secret not recognized."),
        (["control", "scael"], "Did you mean scale?"),
        (["control", "ping"], "It is one of `pgcelery inspect`."),
        (["control", "scale", "much"], "scale: factor cannot be 'much'"),
        (["control", "scale", "1", "2", "3"], "takes arguments: <factor> [times]"),
    ):
        code, said = pgcelery(*words)
        assert code == 2
        assert sentence in said
        assert "Usage:" in said
    assert tell("ping") == {"ok": "pong"}


def test_a_command_may_end_the_worker(app: Celery, start: Callable[..., Process]) -> None:
    worker = start()
    app.control.broadcast("fail", {"how": "exit"}, reply=True, timeout=10)
    assert worker.wait(15) == 3


# -- who answers ---------------------------------------------------------------------------------


def test_a_beat_that_answers_pings_only_is_not_waited_for(
    app: Celery,
    run: Callable[..., Process],
    start: Callable[..., Process],
    pgcelery: Callable[..., tuple[int, str]],
) -> None:
    run("beat", "-l", "info", "--enable-remote-control", "-n", "b@here")
    wait_for(lambda: app.control.inspect(timeout=30).ping() == {"b@here": {"ok": "pong"}})
    begun = time.monotonic()
    assert app.control.inspect(timeout=60).active() is None
    assert app.control.broadcast("rate_limit", {}, reply=True, timeout=60) == []
    code, said = pgcelery("inspect", "active", "-t", "60")
    assert (code, said) == (
        69,
        "Error: No nodes replied within time constraint (no worker is alive)\n",
    )
    start()
    assert app.control.inspect(timeout=60).active() == {NODE: []}
    assert app.control.inspect(["b@here", NODE], timeout=60).stats().keys() == {NODE}
    assert time.monotonic() - begun < 50, "the time-out was waited for"
    assert set(app.control.inspect(timeout=30).ping()) == {"b@here", NODE}


def test_without_a_worker_the_answer_comes_at_once(
    dsn: str, pgcelery: Callable[..., tuple[int, str]]
) -> None:
    for words in (["status"], ["inspect", "stats"], ["control", "enable_events"]):
        begun = time.monotonic()
        code, said = pgcelery(*words, "--timeout", "60", "--json")
        assert code == 69
        assert said == "Error: No nodes replied within time constraint (no worker is alive)\n"
        assert time.monotonic() - begun < 30
