"""Real workers that are labelled, drained, and whose queues are paused, from the command line."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgcelery.compat.app.base import Celery
from pgcelery.engine import Client, NewJob, UnknownQueue
from pgcelery.engine.placement import encode
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

PROJECT = """\
import os, pathlib, threading
from pgcelery import Celery

app = Celery("proj", broker=os.environ["TEST_DSN"])
app.conf.worker_labels = {"zone": "eu", "ram": 64}
app.conf.worker_priority_patience = 7.5

@app.task
def who(*args):
    return int(os.environ["NUMBER"])

@app.task
def hold(name):
    pathlib.Path(name + ".begun").touch()
    while not pathlib.Path(name + ".go").exists():
        threading.Event().wait(0.01)
    return int(os.environ["NUMBER"])
"""


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    with Celery("proj", broker=dsn, set_as_current=False) as app:
        yield app


@pytest.fixture
def run(spawn: Callable[..., Process], tmp_path: Path, dsn: str) -> Callable[..., Process]:
    (tmp_path / "proj.py").write_text(PROJECT)

    def run(*args: str, number: int = 0) -> Process:
        env = {"TEST_DSN": dsn, "PYTHONDONTWRITEBYTECODE": "1", "NUMBER": str(number)}
        return spawn([*PGCELERY, "-A", "proj", *args], env=env, cwd=tmp_path)

    return run


@pytest.fixture
def start(run: Callable[..., Process]) -> Callable[..., Process]:
    def start(number: int, *args: str) -> Process:
        node = f"w{number}@here"
        process = run("worker", "-l", "info", "-n", node, "-c", "1", *args, number=number)
        process.wait_for_output(rf"{node} ready\.$", 20)
        return process

    return start


@pytest.fixture
def pgcelery(run: Callable[..., Process]) -> Callable[..., tuple[int, str]]:
    def pgcelery(*args: str) -> tuple[int, str]:
        process = run(*args)
        return process.wait(30), process.output()

    return pgcelery


def listed(pgcelery: Callable[..., tuple[int, str]]) -> dict[str, dict[str, Any]]:
    code, said = pgcelery("queues", "--json")
    assert code == 0, said
    return {row["queue"]: row for row in json.loads(said)}


def place(app: Celery, client: Client, **require: str) -> Any:
    """Send a task that requires labels."""
    kept: list[NewJob] = []
    engine = app.engine
    real, engine.enqueue = engine.enqueue, lambda jobs, **_: kept.extend(jobs) or {}
    result = app.send_task("proj.who")
    engine.enqueue = real
    client.enqueue([job._replace(placement=encode(require, [])) for job in kept])
    return result


# -- labels ---------------------------------------------------------------------------------------


def test_a_worker_has_the_labels_of_its_start_and_of_the_settings(
    app: Celery, client: Client, start: Callable[..., Process], pgcelery: Callable[..., Any]
) -> None:
    start(1)
    start(2, "--label", "gpu=1", "--label", "zone=us")
    assert app.control.inspect(timeout=10).labels() == {
        "w1@here": {"worker": "w1@here", "zone": "eu", "ram": "64"},
        "w2@here": {"worker": "w2@here", "zone": "us", "ram": "64", "gpu": "1"},
    }
    assert {place(app, client, gpu="1").get(timeout=10) for _ in range(10)} == {2}
    assert {place(app, client, zone="eu").get(timeout=10) for _ in range(10)} == {1}
    code, said = pgcelery("control", "set_labels", "gpu=2", "zone=", "-d", "w1@here", "-t", "10")
    assert (code, said) == (0, "->  w1@here: OK\n        labels changed\n")
    assert place(app, client, gpu="2").get(timeout=10) == 1
    waits = place(app, client, zone="eu")
    assert place(app, client, ram=">=64", worker="w1@here").get(timeout=10) == 1
    assert not waits.ready()
    (answer,) = app.control.set_labels(
        {"zone": "eu", "gpu": None}, destination=["w1@here"], reply=True, timeout=10
    )
    assert answer == {"w1@here": {"ok": "labels changed"}}
    assert waits.get(timeout=10) == 1
    labels = {"worker": "w1@here", "zone": "eu", "ram": "64"}
    assert app.control.inspect(timeout=10).labels()["w1@here"] == labels


def test_a_label_that_is_none_is_refused(
    pgcelery: Callable[..., tuple[int, str]], start: Callable[..., Process], app: Celery
) -> None:
    code, said = pgcelery("worker", "--label", "gpu")
    assert code == 2
    assert "a label is written name=value, not 'gpu'" in said
    start(1)
    code, said = pgcelery("control", "set_labels", "gpu", "-t", "10")
    assert "a label is written name=value, not 'gpu'" in said


# -- pause ----------------------------------------------------------------------------------------


def test_a_queue_is_paused_and_resumed_from_the_command_line(
    app: Celery, start: Callable[..., Process], pgcelery: Callable[..., tuple[int, str]]
) -> None:
    assert pgcelery("queues") == (0, "No queues.\n")
    code, said = pgcelery("queues", "pause", "nowhere")
    assert code == 1
    assert "There is no queue 'nowhere'." in said
    code, said = pgcelery("queues", "pause", "celry")
    assert "Did you mean celery?" in said
    # The app's own queue, which nobody has used yet, with no worker alive.
    assert pgcelery("queues", "pause", "celery") == (0, "Queue celery is paused.\n")
    first = app.send_task("proj.who")
    start(1, "-Q", "celery,other")
    assert app.send_task("proj.who", queue="other").get(timeout=10) == 1
    rows = listed(pgcelery)
    assert rows["celery"]["paused_since"]
    assert (rows["celery"]["ready"], rows["celery"]["workers"]) == (1, ["w1@here"])
    assert rows["other"]["paused_since"] is None
    code, said = pgcelery("queues")
    assert said.splitlines()[0].split() == [
        *("QUEUE", "READY", "SCHEDULED", "AT", "LIMITS", "RUNNING", "PAUSED", "WORKERS")
    ]
    assert said.splitlines()[1].split()[:5] == ["celery", "1", "0", "0", "0"]
    assert said.splitlines()[1].endswith("w1@here")
    assert not first.ready()
    assert pgcelery("queues", "resume", "celery") == (0, "Queue celery is resumed.\n")
    assert first.get(timeout=10) == 1
    assert pgcelery("queues", "resume", "celery") == (0, "Queue celery was not paused.\n")
    assert pgcelery("queues", "pause", "new", "--create") == (0, "Queue new is paused.\n")
    assert list(app.control.paused_queues()) == ["new"]
    assert listed(pgcelery)["new"]["workers"] == []


def test_a_chain_stops_at_a_paused_queue_and_goes_on(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    start(1, "-Q", "celery,other")
    hold = app.signature("proj.hold", (str(tmp_path / "h"),))
    result = (hold | app.signature("proj.who") | app.signature("proj.who")).apply_async()
    wait_for((tmp_path / "h.begun").exists)
    app.control.pause_queue("celery")
    later = app.send_task("proj.who", countdown=0.05)
    (tmp_path / "h.go").touch()
    assert result.parent.parent.get(timeout=10) == 1
    for _ in range(3):
        assert app.send_task("proj.who", queue="other").get(timeout=10) == 1
    assert not result.parent.ready()
    assert not later.ready()
    assert app.control.resume_queue("celery")
    assert result.get(timeout=10) == 1
    assert later.get(timeout=10) == 1
    with pytest.raises(UnknownQueue):
        app.control.pause_queue("nowhere")


# -- drain ----------------------------------------------------------------------------------------


def test_a_worker_is_drained_and_undrained_from_the_command_line(
    app: Celery,
    client: Client,
    start: Callable[..., Process],
    pgcelery: Callable[..., tuple[int, str]],
    tmp_path: Path,
) -> None:
    one = start(1)
    held = app.send_task("proj.hold", (str(tmp_path / "h"),))
    wait_for((tmp_path / "h.begun").exists)
    start(2)
    assert pgcelery("drain")[0] == 2
    code, said = pgcelery("drain", "w1@here", "w3@here", "-t", "10")
    assert code == 69
    assert "w1@here: OK\n        draining" in said
    assert "w3@here is not alive" in said
    code, said = pgcelery("status", "-t", "10")
    assert sorted(said.splitlines()[:2]) == ["->  w1@here: OK (draining)", "->  w2@here: OK"]
    assert listed(pgcelery)["celery"]["workers"] == ["w2@here"]
    assert listed(pgcelery)["celery"]["drained"] == ["w1@here"]
    (tmp_path / "h.go").touch()
    assert held.get(timeout=10) == 1
    assert {app.send_task("proj.who").get(timeout=10) for _ in range(20)} == {2}
    assert pgcelery("undrain", "--all", "-t", "10")[0] == 0
    assert place(app, client, worker="w1@here").get(timeout=10) == 1
    app.control.drain(["w1@here"], reply=True, timeout=10)
    one.send(signal.SIGTERM)
    assert one.wait(15) == 0


def test_a_softly_sticky_step_outlives_its_killed_worker(
    app: Celery, client: Client, start: Callable[..., Process], tmp_path: Path
) -> None:
    """Three workers; the one that ran the first step is killed before its second."""
    workers = {number: start(number) for number in (1, 2, 3)}
    kept: list[NewJob] = []
    engine = app.engine
    real, engine.enqueue = engine.enqueue, lambda jobs, **_: kept.extend(jobs) or {}
    first = app.signature("proj.hold", (str(tmp_path / "h"),))
    blocks = app.signature("proj.hold", (str(tmp_path / "b"),), immutable=True)
    result = (first | blocks | app.signature("proj.who")).apply_async()
    engine.enqueue = real
    client.enqueue([job._replace(sticky=1 if job.parents else 0) for job in kept])
    wait_for((tmp_path / "h.begun").exists)
    (tmp_path / "h.go").touch()
    number = result.parent.parent.get(timeout=10)
    wait_for((tmp_path / "b.begun").exists)
    last = client.job(result.id)
    assert last is not None
    app.control.drain([f"w{number}@here"], reply=True, timeout=10)
    (tmp_path / "b.go").touch()
    assert result.parent.get(timeout=10) == number
    os.killpg(workers[number].pid, signal.SIGKILL)
    assert result.get(timeout=20) in {1, 2, 3} - {number}


def test_how_patient_priorities_are_is_a_setting(dsn: str) -> None:
    with Celery("proj", broker=dsn, set_as_current=False) as app:
        app.conf.worker_priority_patience = 7.5
        app.conf.worker_placement_grace = 2
        config = app.engine_config
        assert (config.patience_s, config.placement_grace_s) == (7.5, 2)
