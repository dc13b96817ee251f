"""``worker --autoscale``: a real worker's pool grows while tasks wait and shrinks when it rests."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgcelery.compat.app.base import Celery
from pgcelery.compat.contrib.testing.worker import start_worker
from pgcelery.compat.exceptions import ImproperlyConfigured
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

NODE = "w1@here"
PROJECT = """\
import os, pathlib, threading
from pgcelery import Celery
from pgcelery.worker.autoscale import Autoscaler

app = Celery("proj", broker=os.environ["TEST_DSN"])

@app.task
def hold(name):
    pathlib.Path(name + ".begun").write_text(str(os.getpid()))
    while not pathlib.Path(name + ".go").exists():
        threading.Event().wait(0.01)
    return os.getpid()

@app.task(ignore_result=True)
def note(number):
    with open("notes", "ab", buffering=0) as file:
        file.write(f"{number}\\n".encode())
    threading.Event().wait(0.2 if number % 10 == 0 else 0.001)

class Careful(Autoscaler):
    def _maybe_scale(self, req=None):
        if self.qty > self.processes:
            self.scale_up(1)
        print(f"careful {self.processes} {self.max_concurrency}")
"""


@pytest.fixture
def app(dsn: str) -> Iterator[Celery]:
    with Celery("proj", broker=dsn, set_as_current=False) as app:
        yield app


@pytest.fixture
def start(spawn: Callable[..., Process], tmp_path: Path, dsn: str) -> Callable[..., Process]:
    (tmp_path / "proj.py").write_text(PROJECT)

    def start(*args: str, ready: bool = True) -> Process:
        process = spawn(
            [*PGCELERY, "-A", "proj", "worker", "-l", "info", "-n", NODE, *args],
            env={"TEST_DSN": dsn, "AUTOSCALE_KEEPALIVE": "1"},
            cwd=tmp_path,
        )
        if ready:
            process.wait_for_output(r"w1@here ready\.$", 20)
        return process

    return start


def stats(app: Celery) -> dict[str, Any]:
    found: dict[str, Any] = app.control.inspect(timeout=10).stats()[NODE]
    return found


def size(app: Celery) -> int:
    return int(stats(app)["pool"]["max-concurrency"])


def begun(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.begun")}


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_pool_grows_while_tasks_wait_and_shrinks_when_it_rests(
    app: Celery, start: Callable[..., Process], tmp_path: Path, pool: str
) -> None:
    worker = start("--autoscale=3,1", "-P", pool)
    assert f"concurrency: {{min=1, max=3}} ({'thread' if pool == 'threads' else pool})" in (
        worker.output()
    )
    assert stats(app)["autoscaler"] == {"max": 3, "min": 1, "current": 1, "qty": 0}
    results = [app.send_task("proj.hold", (str(tmp_path / name),)) for name in "abcd"]
    wait_for(lambda: len(begun(tmp_path)) == 3)
    numbers = stats(app)
    assert numbers["autoscaler"]["current"] == 3
    assert len(numbers["pool"].get("processes", "123")) == 3
    last = next(name for name in "abcd" if name not in begun(tmp_path))
    for name in begun(tmp_path):
        (tmp_path / f"{name}.go").touch()
    wait_for(lambda: last in begun(tmp_path))
    wait_for(lambda: size(app) == 1)
    assert "Scaling up 2 processes." in worker.output()
    assert "Scaling down 2 processes." in worker.output()
    (tmp_path / f"{last}.go").touch()  # the one that ran meanwhile was left alone
    for name, result in zip("abcd", results, strict=True):
        assert result.get(timeout=10) == int((tmp_path / f"{name}.begun").read_text())
    worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0


@pytest.mark.longer
def test_a_pool_that_grows_and_shrinks_loses_and_repeats_no_task(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    start("--autoscale=4,1")
    sent = 0
    for _ in range(3):
        for _ in range(120):
            app.send_task("proj.note", (sent,))
            sent += 1
        wait_for(lambda: size(app) > 1)
        wait_for(lambda: app.engine.counts()["celery"][:3] == (0, 0, 0))
        wait_for(lambda: size(app) == 1)
    counts = Counter((tmp_path / "notes").read_text().split())
    assert counts == dict.fromkeys(map(str, range(sent)), 1)


def test_the_range_is_changed_by_remote_control(
    app: Celery, start: Callable[..., Process], spawn: Callable[..., Process], dsn: str
) -> None:
    worker = start("--autoscale", "3")
    control = app.control
    assert size(app) == 1
    assert control.autoscale(4, 2, reply=True) == [{NODE: {"ok": "autoscale now max=4 min=2"}}]
    wait_for(lambda: size(app) == 2)
    command = [*PGCELERY, "-b", dsn, "control", "autoscale", "1", "1"]
    assert spawn(command).wait(20) == 0
    wait_for(lambda: size(app) == 1)
    (answer,) = control.autoscale(1, 2, reply=True)
    assert "at most 1 and at least 2" in answer[NODE]["error"]
    for command in (control.pool_grow, control.pool_shrink):
        (answer,) = command(1, reply=True)
        assert answer == {NODE: {"error": "this pool autoscales; change its range with the "
                                          "autoscale command"}}  # fmt: skip
    assert size(app) == 1
    worker.send(signal.SIGTERM)
    assert worker.wait(15) == 0


def test_a_class_of_the_application_decides(
    app: Celery, start: Callable[..., Process], tmp_path: Path
) -> None:
    worker = start("--autoscale=3,1", "worker.autoscaler=proj.Careful")
    results = [app.send_task("proj.hold", (str(tmp_path / name),)) for name in "abc"]
    wait_for(lambda: len(begun(tmp_path)) == 3)
    assert worker.output().count("Scaling up 1 processes.") == 2
    worker.wait_for_output("careful 3 3")
    for name in "abc":
        (tmp_path / f"{name}.go").touch()
    assert all(result.get(timeout=10) for result in results)


def test_a_solo_pool_does_not_autoscale(start: Callable[..., Process]) -> None:
    worker = start("--autoscale=3,1", "-P", "solo", ready=False)
    assert worker.wait(20) == 1
    assert "Error: A solo pool cannot grow; use --autoscale with" in worker.output()


@pytest.mark.parametrize("wrong", ["many", "3,2,1", "0", "-2,1", (1, "x")])
def test_a_range_that_is_none_is_refused(app: Celery, wrong: Any) -> None:
    with pytest.raises(ImproperlyConfigured, match="the most and the least number of processes"):
        app.WorkController(autoscale=wrong, pool="threads")


def test_without_it_the_command_is_refused_and_the_pool_is_resized_by_hand(app: Celery) -> None:
    with start_worker(app, pool="threads", hostname=NODE, perform_ping_check=False):
        (answer,) = app.control.autoscale(3, 1, reply=True, timeout=10)
        assert answer == {NODE: {"error": "ValueError('Autoscale not enabled')"}}
        app.control.pool_grow(2, reply=True, timeout=10)
        assert size(app) == 3
        app.control.pool_shrink(1, reply=True, timeout=10)
        assert size(app) == 2
        for command, n in (("pool_grow", 0), ("pool_shrink", -1), ("pool_shrink", 2)):
            (answer,) = app.control.broadcast(command, {"n": n}, reply=True, timeout=10)
            assert "slot" in answer[NODE]["error"]
        assert size(app) == 2
