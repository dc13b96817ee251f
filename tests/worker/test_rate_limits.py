"""Celery's `rate_limit`, kept by real workers, each for itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgcelery.compat import states
from pgcelery.compat.app.base import Celery
from tests.support.process import PGCELERY, Process
from tests.support.rates import excess, share
from tests.support.wait import wait_for

PROJECT = """\
import os, time
from pgcelery import Celery, chain

app = Celery("proj", broker=os.environ["TEST_DSN"])
app.conf.worker_disable_rate_limits = bool(os.environ.get("DISABLED"))

def note(name):
    with open("starts", "a") as file:
        file.write(f"{time.monotonic()} {os.environ['NUMBER']} {name}\\n")

@app.task(rate_limit=os.environ.get("RATE", "10/s"))
def limited(*args):
    note("limited")

@app.task(bind=True, rate_limit="10/s", max_retries=5)
def retried(self):
    note("retried")
    if self.request.retries < 4:
        raise self.retry(countdown=0)

@app.task(rate_limit="1/h", rate_limit_scope=os.environ.get("SCOPE", "global"))
def shared():
    note("shared")

@app.task
def free(*args):
    note("free")
"""


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    with Celery("proj", broker=dsn, set_as_current=False) as app:
        yield app


class World:
    """Workers of one project, and what they note."""

    def __init__(self, folder: Path, dsn: str, spawn: Callable[..., Process]) -> None:
        self.folder, self.dsn, self.spawn = folder, dsn, spawn
        (folder / "proj.py").write_text(PROJECT)
        (folder / "starts").touch()

    def run(self, *args: str, **env: str) -> Process:
        env = {"TEST_DSN": self.dsn, "PYTHONDONTWRITEBYTECODE": "1", **env}
        return self.spawn([*PGCELERY, "-A", "proj", *args], env=env, cwd=self.folder)

    def start(self, number: int, *args: str, **env: str) -> Process:
        node = f"w{number}@here"
        args = ("worker", "-l", "info", "-n", node, "-c", "2", *args)
        process = self.run(*args, NUMBER=str(number), **env)
        process.wait_for_output(rf"{node} ready\.$", 20)
        return process

    def starts(self, name: str) -> list[tuple[float, int]]:
        """When, and on which worker."""
        rows = [line.split() for line in (self.folder / "starts").read_text().splitlines()]
        return sorted((float(at), int(number)) for at, number, task in rows if task == name)

    def times(self, name: str, number: int | None = None) -> list[float]:
        return [at for at, worker in self.starts(name) if number in (None, worker)]

    def started(self, name: str) -> int:
        return len(self.starts(name))


@pytest.fixture
def world(tmp_path: Path, dsn: str, spawn: Callable[..., Process]) -> World:
    return World(tmp_path, dsn, spawn)


def send(app: Celery, name: str, count: int) -> list[Any]:
    return [app.send_task(f"proj.{name}") for _ in range(count)]


def waits(result: Any) -> bool:
    return bool(result.state == states.PENDING)


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_one_worker_keeps_the_rate_and_two_start_twice_as_many(
    app: Celery, world: World, pool: str
) -> None:
    send(app, "limited", 1000)
    world.start(1, "-P", pool)
    wait_for(lambda: world.started("limited") >= 16)
    assert excess(world.times("limited"), 10) == 0
    assert share(world.times("limited"), 10) > 0.8
    world.start(2, "-P", pool)
    wait_for(lambda: Counter(number for _, number in world.starts("limited"))[2] >= 16)
    for number in (1, 2):
        assert excess(world.times("limited", number), 10) == 0
        assert share(world.times("limited", number), 10) > 0.8


def test_other_tasks_of_the_queue_do_not_wait_for_those_that_may_not_start(
    app: Celery, world: World
) -> None:
    send(app, "limited", 5000)
    results = send(app, "free", 30)
    world.start(1, RATE="1/h")
    began = time.monotonic()
    wait_for(lambda: world.started("free"))
    assert time.monotonic() - began < 2.0  # without hurry, a tenth of that
    for result in results:
        result.get(timeout=10)
    assert world.started("limited") == 1


def test_the_rate_is_changed_and_lifted_at_run_time_also_for_what_waits(
    app: Celery, world: World
) -> None:
    results = send(app, "limited", 60)
    worker = world.start(1, RATE="1/h")
    wait_for(lambda: world.started("limited") == 1)
    wait_for(lambda: results[50].why().reason == "worker_rate")
    code = world.run("control", "rate_limit", "proj.limited", "20/s", NUMBER="0")
    assert code.wait(30) == 0
    wait_for(lambda: world.started("limited") > 10, 5)
    assert excess(world.times("limited"), 20) == 0
    (answer,) = app.control.rate_limit("proj.limited", None, reply=True, timeout=10)
    assert answer == {"w1@here": {"ok": "rate limit disabled successfully"}}
    began = time.monotonic()
    for result in results:
        result.get(timeout=10)
    assert time.monotonic() - began < 2.0
    for wrong in ("abc", "-5/s", "10/x", -1, "nan/s"):
        (answer,) = app.control.rate_limit("proj.limited", wrong, reply=True, timeout=10)
        assert answer["w1@here"]["error"].startswith("Invalid rate limit string")
    assert worker.popen.poll() is None


def test_a_waiting_task_is_revoked_at_once_and_none_is_counted_as_delivered(
    app: Celery, world: World
) -> None:
    results = send(app, "limited", 20)
    worker = world.start(1, RATE="1/h")
    wait_for(lambda: world.started("limited") == 1)
    wait_for(lambda: results[10].why().reason == "worker_rate")
    results[10].revoke()
    wait_for(lambda: results[10].state == states.REVOKED, 2)
    worker.popen.terminate()
    assert worker.wait(20) == 0
    assert all(waits(result) for result in results[1:] if result is not results[10])
    world.start(2, DISABLED="1")
    for result in results:
        if result is not results[10]:
            result.get(timeout=10)
    assert world.started("limited") == 19


def test_retries_pass_the_rate_too(app: Celery, world: World) -> None:
    world.start(1)
    app.send_task("proj.retried").get(timeout=20)
    assert world.started("retried") == 5
    assert excess(world.times("retried"), 10) == 0


def test_steps_of_a_chain_pass_the_rate_too(app: Celery, world: World) -> None:
    world.start(1)
    step = app.signature("proj.limited")
    for _ in range(2):
        chain = step
        for _ in range(5):
            chain = chain | step
        chain.apply_async().get(timeout=20)
    assert world.started("limited") == 12
    assert excess(world.times("limited"), 10) == 0


def test_a_rate_for_all_workers_together_is_not_one_of_each(app: Celery, world: World) -> None:
    world.start(1)
    world.start(2)
    assert app.control.inspect(timeout=10).stats().keys() == {"w1@here", "w2@here"}
    rates = {one.name: one.info["rates"] for one in app.engine.workers()}
    assert all("proj.shared" not in found and "proj.limited" in found for found in rates.values())


@pytest.mark.parametrize("wrong", ["abc", "-5/s", "10/x"])
def test_a_worker_says_which_task_has_a_wrong_rate(world: World, wrong: str) -> None:
    worker = world.run("worker", "-l", "info", NUMBER="1", RATE=wrong)
    assert worker.wait(30) != 0
    assert "rate_limit of task proj.limited: a rate limit is a number" in worker.output()
