"""Shards side by side, each with a process, a database and a Redis of its own."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from pgcelery.engine import Client, EngineConfig
from tests.celery_compat.suite import environment, source
from tests.celery_compat.suite.demand import Shard
from tests.celery_compat.suite.outcomes import PASSED, Outcome, read_outcomes
from tests.celery_compat.worlds import redis_server
from tests.support.database import new_database
from tests.support.process import Process

TEST_LIMIT_S = 300  # of a test that sets none
COMPLETED = (0, 1)  # pytest's exit codes: all passed, some failed


@dataclass(frozen=True)
class Result:
    """What a shard did."""

    shard: Shard
    outcomes: dict[str, Outcome]
    seconds: float
    exit_code: int | None  #: None: stopped at the end of the time
    output: str

    def __str__(self) -> str:
        passed = sum(outcome.state == PASSED for outcome in self.outcomes.values())
        line = f"{self.shard.name}: {passed} of {len(self.shard.keys)}, {self.seconds:.0f} s"
        if self.exit_code in COMPLETED:
            return line
        how = "stopped" if self.exit_code is None else f"pytest ended with {self.exit_code}"
        return f"{line}; {how}:\n{self.output[-3000:]}"


class Runner:
    """Runs shards.

    Args:
        python: The interpreter of the suite's environment.
        sdist: Celery's source distribution.
        server_dsn: A PostgreSQL where databases may be created.
        folder: A place for the shards' folders.
        patience_s: See `source.unpack`.
        limit_s: After this time no shard is begun, and those that run are stopped.
    """

    def __init__(
        self,
        python: Path,
        sdist: Path,
        server_dsn: str,
        folder: Path,
        *,
        patience_s: int,
        limit_s: float,
    ) -> None:
        self._python = python
        self._sdist = sdist
        self._server_dsn = server_dsn
        self._folder = folder
        self._patience_s = patience_s
        self._deadline = time.monotonic() + limit_s
        self._stopping = threading.Event()

    def run(self, shards: list[Shard], jobs: int, tell: Callable[[Result], None]) -> list[Result]:
        """Run the shards, so many at a time, and tell of each when it ends."""
        results = []
        with ThreadPoolExecutor(jobs) as pool:
            futures = [pool.submit(self._run, shard) for shard in shards]
            try:
                for future in as_completed(futures):
                    results.append(future.result())
                    tell(results[-1])
            except BaseException:
                self._stopping.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return results

    def _run(self, shard: Shard) -> Result:
        folder = self._folder / shard.name
        source.unpack(self._sdist, folder, self._patience_s)
        keys, records = folder / "keys.json", folder / "records"
        keys.write_text(json.dumps(shard.keys))
        records.touch()
        command = [self._python, "-m", "pytest", "-q", "--no-header", "--tb=short"]
        command += ["-p", "suite_plugin", "-p", "celery.contrib.pytest"]
        command += [f"--suite-keys={keys}", f"--suite-records={records}"]
        command += [f"--basetemp={folder / 'tmp'}", f"--timeout={TEST_LIMIT_S}"]
        command += [f"t/integration/{shard.file}"]
        began = time.monotonic()
        with redis_server() as redis, new_database(self._server_dsn) as dsn:
            port = urlsplit(redis).port
            assert port is not None
            with closing(Client(EngineConfig(dsn=dsn))) as client:
                client.migrate()
            env = environment.variables(self._python, folder, dsn, port)
            process = Process(command, folder / "log", env=env, cwd=folder)
            try:
                exit_code = self._wait(process)
            finally:
                process.close()
        return Result(
            shard,
            read_outcomes(records.read_text().splitlines()),
            time.monotonic() - began,
            exit_code,
            process.output(),
        )

    def _wait(self, process: Process) -> int | None:
        while process.popen.poll() is None:
            if time.monotonic() > self._deadline or self._stopping.wait(0.1):
                return None
        return process.popen.returncode
