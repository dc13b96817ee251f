"""One worker process for all rows, and what must hold after each of them."""

from __future__ import annotations

import importlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from kombu.exceptions import EncodeError
from kombu.utils import json as kombu_json

from pgcelery.engine import Client, EngineConfig, NewJob
from tests.faults.world import children_of
from tests.support.database import new_database
from tests.support.process import PGCELERY, Process
from tests.support.wait import wait_for

CLEAN_REFUSALS = (TypeError, ValueError, OverflowError, RecursionError, EncodeError)
FORGED = "[2026-01-01 00:00:00,000: CRITICAL/MainProcess] forged"
_BYSTANDERS = """
select 'jobs', id, xmin::text, md5(j::text) from pgcelery.jobs j where id like 'bystander%'
union all select 'ready', job_id, xmin::text, md5(r::text) from pgcelery.ready r
where job_id like 'bystander%'
union all select 'results', id, xmin::text, md5(s::text) from pgcelery.results s
where id like 'bystander%'
order by 1, 2
"""


class World:
    """The application, its worker, and rows that nobody may touch."""

    def __init__(self, dsn: str, worker: Process, module: Any) -> None:
        self.dsn, self.worker, self.module = dsn, worker, module
        self.app = module.app
        self.app.engine.enqueue([NewJob("bystander", "aside", "nobody", b"mine")])
        self.module.echo.apply_async((1,), task_id="bystander-done").get(timeout=10)
        self.pids = self._pids()
        self.before = self.bystanders()
        self._said = len(worker.output())

    def _pids(self) -> set[int]:
        return {self.worker.pid, *children_of(self.worker.pid)}

    def bystanders(self) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as conn:
            return conn.execute(_BYSTANDERS).fetchall()

    def jobs(self) -> int:
        with psycopg.connect(self.dsn) as conn:
            row = conn.execute("select count(*) from pgcelery.jobs").fetchone()
        assert row
        return row[0]

    def said(self) -> str:
        """What the worker has said since this was called last."""
        output = self.worker.output()
        said, self._said = output[self._said :], len(output)
        return said

    def check(self, task_id: str | None = None, *, replaced: bool = False) -> None:
        """What holds in every case."""
        took = []
        for _ in range(4):  # other processes may have the machine at that moment: the quickest
            began = time.monotonic()
            assert self.module.two.delay(1, 2).get(timeout=20) == [1, 2]
            took.append(time.monotonic() - began)
            if took[-1] < 1:
                break
        assert min(took) < 1
        assert self.worker.popen.poll() is None
        if not replaced:
            assert self._pids() == self.pids
        self.pids = self._pids()
        assert self.bystanders() == self.before
        lines = self.said().splitlines()
        assert not [line for line in lines if line.startswith(FORGED[:30])]
        if task_id is not None:
            ends = [
                line
                for line in lines
                if f"[{task_id}] " in line and re.search(r"\] (succeeded|raised|INTERNAL)", line)
            ]
            assert len(ends) <= 1, ends
            self.read(task_id)

    def read(self, task_id: str) -> dict[str, Any]:
        """All that `AsyncResult` has to say can be asked for."""
        result = self.app.AsyncResult(task_id)
        said = {
            name: getattr(result, name)
            for name in ("state", "result", "info", "traceback", "children", "date_done", "name")
        }
        assert isinstance(said["state"], str)
        assert isinstance(said["traceback"], str | None)
        return said

    def outcome(self, send: Callable[[], Any], expected: Any = ...) -> tuple[str, str | None]:
        """The letter of the table, and the id."""
        before = self.jobs()
        try:
            result = send()
        except Exception as exc:
            refusal = exc
            result = None
        if result is None:
            assert self.jobs() == before, "refused, and enqueued all the same"
            clean = isinstance(refusal, CLEAN_REFUSALS) and str(refusal)
            return "R*" if clean else f"R:{type(refusal).__name__}", None
        if result.id and self._waits(result):
            result.revoke()
            wait_for(lambda: result.state == "REVOKED", 10, "not revocable")
            return "P", result.id
        wait_for(result.ready, 40, lambda: f"no end: {result.state}")
        if result.state == "SUCCESS":
            return ("S" if same(result.result, expected) else "S!="), result.id
        return {"FAILURE": "F", "REVOKED": "V"}[result.state], result.id

    def _waits(self, result: Any) -> bool:
        """Whether it lies in a queue that nobody serves."""
        info = self.app.engine.job(result.id)
        return info is not None and info.queue not in ("celery", "aside")


def same(given: Any, expected: Any) -> bool:
    """Equal as values and in type, NaN too; texts of JSON are compared."""
    return expected is ... or kombu_json.dumps(given) == kombu_json.dumps(expected)


@contextmanager
def running_world(
    server_dsn: str, folder: Path, *options: str, pool: str = "prefork"
) -> Iterator[World]:
    with new_database(server_dsn) as dsn:
        with closing(Client(EngineConfig(dsn=dsn))) as client:
            client.migrate()
        os.environ["INPUTS_DSN"] = dsn
        sys.modules.pop("tests.worker.bad_input.app", None)
        module = importlib.import_module("tests.worker.bad_input.app")
        args = ["-A", "tests.worker.bad_input.app", "worker", "-l", "INFO", "-c", "2", "-P", pool]
        worker = Process(
            [*PGCELERY, *args, "-n", "w1@here", *options],
            folder / "worker.log",
            env={"INPUTS_DSN": dsn},
        )
        try:
            worker.wait_for_output(r"w1@here ready\.$")
            yield World(dsn, worker, module)
        finally:
            worker.close()
            module.app.close()
            os.environ.pop("INPUTS_DSN", None)
