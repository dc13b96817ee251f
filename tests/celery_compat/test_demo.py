"""``pgcelery demo``, as a newcomer runs it, on a database of the test's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.support.wait import wait_for

pytestmark = [pytest.mark.slow]


def _start(dsn: str, log: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "pgcelery", "demo", "--database", dsn, "-c", "2", *options]
    with log.open("wb") as file:
        return subprocess.Popen(
            command, stdout=file, stderr=file, cwd=log.parent, env={**os.environ, "NO_COLOR": "1"}
        )


def test_every_result_of_the_demo_is_right(fresh_dsn: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = _start(fresh_dsn, log, "--orders", "5").wait(60)
    assert code == 0, log.read_text()
    said = log.read_text()
    assert "Every result is right." in said
    assert "5 in" in said
    assert "1 out of stock" in said


def test_ctrl_c_stops_the_worker_and_exits_with_130(fresh_dsn: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = _start(fresh_dsn, log, "--orders", "400")
    wait_for(lambda: "pick" in log.read_text(), timeout_s=30)
    family = psutil.Process(process.pid).children(recursive=True)
    assert family
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130, log.read_text()
    assert [p for p in family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
    assert "Traceback" not in log.read_text()


def test_an_unreachable_database_is_a_failure_without_a_traceback(tmp_path: Path) -> None:
    log = tmp_path / "log"
    code = _start("postgresql://nobody@127.0.0.1:1/none", log).wait(60)
    assert code != 0
    assert "Traceback" not in log.read_text()
