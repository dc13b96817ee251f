"""Real workers that lose the database while others do not, and what applications see of it.

Promises P9, P17 of docs/guarantees.md.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pgcelery.compat.exceptions import TaskRevokedError, WorkerLostError
from tests.faults.world import alive
from tests.support.process import PGCELERY, Process
from tests.support.relays import Proxy
from tests.support.wait import wait_for

pytestmark = [pytest.mark.fault, pytest.mark.slow]

LEASE_S, REAPER_S = 2.0, 0.2


class Cut:
    """The application, and two workers: one reaches the database by a proxy."""

    def __init__(
        self,
        dsn: str,
        folder: Path,
        spawn: Callable[..., Process],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.dsn, self.folder, self._spawn = dsn, folder, spawn
        (folder / "socket").mkdir()
        self.proxy = Proxy(dsn, folder / "socket")
        monkeypatch.setenv("FAULTS_DSN", dsn)
        monkeypatch.setenv("FAULTS_FOLDER", str(folder))
        sys.modules.pop("tests.faults.cut_app", None)
        self.tasks: Any = importlib.import_module("tests.faults.cut_app")

    def worker(self, name: str, *options: str) -> Process:
        dsn = self.proxy.dsn if name == "cut" else self.dsn
        args = ["-A", "tests.faults.cut_app", "worker", "-l", "INFO", "-c", "1", "-n", f"{name}@h"]
        process = self._spawn([*PGCELERY, *args, *options], env={"FAULTS_DSN": dsn})
        process.wait_for_output(r" ready\.$")
        return process

    def runs(self) -> list[int]:
        path = self.folder / "runs"
        return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture
def cut(
    dsn: str, tmp_path: Path, spawn: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cut]:
    cut = Cut(dsn, tmp_path, spawn, monkeypatch)
    yield cut
    cut.tasks.app.close()
    cut.proxy.close()


@pytest.mark.parametrize("name", ["early", "late"])
def test_a_revoke_ends_a_task_whose_worker_cannot_hear_of_it(cut: Cut, name: str):
    worker = cut.worker("cut")
    result = getattr(cut.tasks, name).delay()
    wait_for(cut.runs)
    cut.worker("other")
    cut.proxy.hold = "answers"
    result.revoke(terminate=True)
    wait_for(lambda: result.state == "REVOKED", LEASE_S + REAPER_S + 2)
    with pytest.raises(TaskRevokedError):
        result.get(timeout=5)

    cut.proxy.hold = ""
    wait_for(lambda: not alive(cut.runs()[0]), 10, "its process goes on")
    worker.wait_for_output("registering anew")
    (cut.folder / "go").touch()
    wait_for(lambda: len(cut.tasks.app.control.ping(timeout=1)) == 2)
    assert len(cut.runs()) == 1
    assert result.state == "REVOKED"


def test_a_late_end_is_refused_counted_and_signalled(cut: Cut, spawn: Callable[..., Process]):
    first = cut.worker("cut", "--pool", "threads")
    result = cut.tasks.late.delay()
    wait_for(cut.runs)
    cut.proxy.hold = "answers"
    cut.worker("other")
    assert result.get(timeout=20) == "other@h"

    cut.proxy.hold = ""
    (cut.folder / "go").touch()
    told = cut.folder / "late"
    wait_for(told.exists)
    assert told.read_text() == f"{result.id} SUCCESS already finished\n", first.output()
    assert result.get(timeout=20) == "other@h"
    stats = wait_for(lambda: cut.tasks.app.control.inspect(["cut@h"], timeout=1).stats())
    assert stats["cut@h"]["late"] == {"already finished": 1}
    status = spawn([*PGCELERY, "-A", "tests.faults.cut_app", "db", "status"])
    assert status.wait() == 0
    assert "Late      1 already finished" in status.output()


def test_the_last_worker_is_named_when_it_fell_silent(cut: Cut):
    worker = cut.worker("cut")
    result = cut.tasks.early.delay()
    wait_for(cut.runs)
    worker.send(signal.SIGKILL)
    cut.worker("other")
    with pytest.raises(WorkerLostError) as caught:
        result.get(timeout=20)
    assert f"worker cut@h (pid {worker.pid}) fell silent" in str(caught.value)
