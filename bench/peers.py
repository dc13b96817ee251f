"""The two libraries under test: how each is started, watched, emptied and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import psycopg

from bench.services import Postgres, Redis
from pgcelery.engine import Client

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-l", "WARNING", "--without-gossip", "--without-mingle"]


class Peer:
    """One library on its broker; the same interpreter, flags and task code for both."""

    name: ClassVar[str]
    package: ClassVar[str]
    broker: psutil.Process

    def __init__(self, marks: Path, concurrency: int) -> None:
        self.marks = marks
        self.concurrency = concurrency

    def urls(self) -> dict[str, str]:
        """`BENCH_BROKER`, `BENCH_BACKEND`."""
        raise NotImplementedError

    def reset(self) -> None:
        """An empty broker."""
        raise NotImplementedError

    def settle(self) -> None:
        """What an idle broker would have done between a prefill and a measurement."""

    def unfinished(self) -> int:
        """Tasks not yet acknowledged, apart from those that wait for their time."""
        raise NotImplementedError

    def produce(self, command: str, *args: int, timeout_s: float = 900) -> dict[str, Any]:
        """Run one command of `bench.producer` in a process of its own."""
        line = [sys.executable, "-m", "bench.producer", command, *map(str, args)]
        done = subprocess.run(
            line, cwd=ROOT, env=self._env(), capture_output=True, text=True, timeout=timeout_s
        )
        if done.returncode:
            raise RuntimeError(f"{self.name} producer {command}: {done.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def broker_cpu(self) -> float:
        """Seconds of CPU the broker has used."""
        return sum(map(_busy, [self.broker, *self.broker.children(recursive=True)]))

    @contextlib.contextmanager
    def worker(self) -> Iterator[Worker]:
        """A prefork worker for the block, stopped warm at its end."""
        command = [sys.executable, "-m", self.package, "-q", "-A", "bench.app", "worker", *FLAGS]
        command += ["-c", str(self.concurrency)]
        with tempfile.TemporaryFile("w+") as log:
            process = psutil.Popen(
                command, cwd=ROOT, env=self._env(), stdout=log, stderr=log, start_new_session=True
            )
            worker = Worker(process)
            try:
                yield worker
            except RuntimeError as error:
                log.seek(0)
                raise RuntimeError(f"{self.name}: {error}\n{log.read()[-2000:]}") from error
            finally:
                worker.stop()

    def _env(self) -> dict[str, str]:
        dropped = ("CELERY_", "PGCELERY_", "PYTHON", "BENCH_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        env |= {"BENCH_LIBRARY": self.package, "BENCH_MARKS": str(self.marks)}
        return env | self.urls()


class Worker:
    """A running worker: a parent and its pool children."""

    def __init__(self, process: psutil.Popen) -> None:
        self.process = process
        self.started_ns = time.time_ns()

    def alive(self) -> bool:
        """Whether the parent still runs."""
        return bool(self.process.poll() is None)

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self.process, *self.process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def memory(self) -> tuple[float, float]:
        """RSS and PSS of all its processes, in MB; PSS counts a shared page once (Linux only)."""
        sizes = [p.memory_full_info() for p in self._tree()]
        rss = sum(m.rss for m in sizes) / 1e6
        return rss, sum(getattr(m, "pss", 0) for m in sizes) / 1e6

    @contextlib.contextmanager
    def watched(self, every_s: float = 0.1) -> Iterator[dict[str, float]]:
        """The most `rss` and `pss` (as `memory()`) of the block, complete once it has ended."""
        peak = {"rss": 0.0, "pss": 0.0}
        ended = threading.Event()

        def watch() -> None:
            while True:
                rss, pss = self.memory()
                peak.update(rss=max(peak["rss"], rss), pss=max(peak["pss"], pss))
                if ended.wait(every_s):
                    return

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield peak
        finally:
            ended.set()
            watcher.join()

    def cpu(self) -> float:
        """Seconds of CPU its processes have used."""
        return sum(map(_busy, self._tree()))

    def stop(self) -> None:
        """Warm shutdown; what is left after 15 s is killed."""
        family = self._tree()
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.terminate()
        _, left = psutil.wait_procs(family, timeout=15)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def _busy(process: psutil.Process) -> float:
    """CPU seconds of one process and of its dead children; 0 when it is gone."""
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)


class CeleryRedis(Peer):
    """Real Celery, broker and results on one Redis."""

    name = "celery+redis"
    package = "celery"

    def __init__(self, marks: Path, concurrency: int, server: Redis) -> None:
        super().__init__(marks, concurrency)
        self.server = server
        self.broker = server.process

    def urls(self) -> dict[str, str]:
        return {
            "BENCH_BROKER": f"redis+socket://{self.server.socket}?virtual_host=0",
            "BENCH_BACKEND": f"redis+socket://{self.server.socket}?virtual_host=1",
            "C_FORCE_ROOT": "1",
        }

    def reset(self) -> None:
        self.server.client.flushall()

    def unfinished(self) -> int:
        client = self.server.client
        return int(client.llen("celery")) + int(client.zcard("unacked_index"))


class PgCelery(Peer):
    """pgcelery on PostgreSQL."""

    name = "pgcelery"
    package = "pgcelery"

    def __init__(self, marks: Path, concurrency: int, server: Postgres) -> None:
        super().__init__(marks, concurrency)
        self.server = server
        self.broker = server.process
        self.client: Client | None = None

    def urls(self) -> dict[str, str]:
        assert self.client is not None
        dsn = self.client.config.dsn
        return {"BENCH_BROKER": dsn, "BENCH_BACKEND": dsn}

    def reset(self) -> None:
        self.client = self.server.fresh_database(self.client)

    def settle(self) -> None:
        assert self.client is not None
        with psycopg.connect(self.client.config.dsn, autocommit=True) as conn:
            conn.execute("vacuum analyze")
            conn.execute("checkpoint")

    def unfinished(self) -> int:
        assert self.client is not None
        counts = self.client.counts(["celery"])
        return sum(c.ready + c.running for c in counts.values())
