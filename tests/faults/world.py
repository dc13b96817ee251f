"""A database, an application under fault, and its workers."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.process import PGCELERY, Process


class World:
    """A database, the application's tasks, and its workers."""

    def __init__(self, dsn: str, log: Path, late: bool, spawn: Callable[..., Process]) -> None:
        self.dsn = dsn
        self.env = {"FAULTS_DSN": dsn, "FAULTS_LOG": str(log), "FAULTS_LATE": "1" if late else "0"}
        self.log = log
        self.log.touch()
        self._spawn = spawn
        os.environ.update(self.env)
        sys.modules.pop("tests.faults.app", None)
        self.tasks: Any = importlib.import_module("tests.faults.app")

    def worker(self, name: str) -> Process:
        args = ["-A", "tests.faults.app", "worker", "-l", "INFO", "-c", "2", "-n", name]
        process = self._spawn([*PGCELERY, *args], env=self.env)
        process.wait_for_output(r" ready\.$", timeout_s=30)
        return process

    def runs(self) -> Counter[int]:
        return Counter(int(line) for line in self.log.read_text().split())

    def close(self) -> None:
        self.tasks.app.close()
        for name in self.env:
            os.environ.pop(name)


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def alive(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def states(results: list[Any]) -> Counter[str]:
    return Counter(result.state for result in results)
