"""The workers of a trial, and what is known of their processes from outside."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.faults.world import alive, children_of
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

_LOOK_S = 0.03


def cpu_s(pid: int) -> float:
    """Seconds that a process has computed, its threads' included."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Worker:
    """One worker process with its children: a process group, numbered as its parent."""

    def __init__(self, process: Process, name: str, link: str | None) -> None:
        self.process, self.name, self.link = process, name, link
        self.pid = process.pid
        self.wanted = True  #: it shall be alive

    def children(self) -> list[int]:
        with suppress(OSError):
            return children_of(self.pid)
        return []

    def signal_all(self, signum: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signum)


class Fleet:
    """Starts workers and watches their processes: when each was last seen alive, if it is gone."""

    def __init__(self, folder: Path, env: Mapping[str, str], args: Sequence[str]) -> None:
        self.workers: list[Worker] = []
        self.deaths: dict[int, float] = {}
        self._folder, self._env, self._args = folder, dict(env), list(args)
        self._numbers = itertools.count(1)
        self._seen: set[int] = set()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    def start(
        self, name: str = "", *, link: str | None = None, dsn: str, env: Mapping[str, str] = {},
        args: Sequence[str] = (),
    ) -> Worker:  # fmt: skip
        """Start a worker that reaches the database by `dsn`; does not wait until it is ready."""
        number = next(self._numbers)
        name = name or f"w{number}@test"
        process = Process(
            [*PGCELERY, "-A", "tests.faults.suite.app", "worker", "-l", "INFO", "-n", name,
             *self._args, *args],
            self._folder / f"worker{number}.log",
            env={**self._env, **env, "FAULTS_DSN": dsn},
        )  # fmt: skip
        worker = Worker(process, name, link)
        self.workers.append(worker)
        return worker

    @staticmethod
    def ready(*workers: Worker) -> None:
        for worker in workers:
            worker.process.wait_for_output(r" ready\.$", 60)

    def up(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.process.popen.poll() is None]

    def children(self) -> list[int]:
        return [pid for worker in self.up() for pid in worker.children()]

    def fallen(self) -> list[str]:
        """Name those that should be alive and are not."""
        return [w.name for w in self.workers if w.wanted and w.process.popen.poll() is not None]

    def stop(self, timeout_s: float = 30) -> list[str]:
        """SIGTERM all; name those that did not end well."""
        bad = []
        for worker in self.up():
            worker.wanted = False
            worker.process.send(signal.SIGTERM)
        for worker in self.workers:
            try:
                code = worker.process.wait(timeout_s)
            except AssertionError:
                bad.append(f"{worker.name} did not end in {timeout_s:g} s after SIGTERM")
            else:
                # SIGQUIT may come when it has said goodbye and Python ends.
                if code not in (0, -signal.SIGKILL, -signal.SIGQUIT):
                    bad.append(f"{worker.name} ended with {code}")
        return bad

    def orphans(self) -> list[int]:
        """Child processes that outlive their worker, after five seconds."""

        def left() -> list[int]:
            return [pid for pid in self._seen if alive(pid) and not self._owned(pid)]

        with suppress(AssertionError):
            wait_for(lambda: not left(), 5)
        return left()

    def _owned(self, pid: int) -> bool:
        return any(pid == worker.pid or pid in worker.children() for worker in self.up())

    def _watch(self) -> None:
        last = time.monotonic()
        while not self._over.wait(_LOOK_S):
            for worker in list(self.workers):
                if worker.pid not in self.deaths:
                    self._seen.update((worker.pid, *worker.children()))
            now = time.monotonic()
            for pid in self._seen - self.deaths.keys():
                if not alive(pid):
                    self.deaths[pid] = last
            last = now

    def close(self) -> None:
        for worker in self.workers:
            worker.signal_all(signal.SIGCONT)
            worker.process.close()
        self._over.set()
        self._watcher.join(10)
