"""One library on its broker: how it is started, watched, emptied and stopped."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from bench.processes import Worker, cpu_s, tree
from bench.services import Postgres, Rabbit, Redis

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["-l", "WARNING", "--without-gossip", "--without-mingle"]
THREADS = 10  #: of a pool of threads


@dataclass(frozen=True)
class Setup:
    """How a worker is set up; nothing else is tuned for a measure."""

    pool: str = "prefork"
    stored: bool = True  #: results
    strict: bool = False  #: one task at a time, acknowledged when it has ended
    environment: dict[str, str] = field(default_factory=dict)
    children: int = 0  #: of the pool, if not what the run was asked for

    def variables(self) -> dict[str, str]:
        """For the application, in producer and worker."""
        chosen = {"BENCH_STORED": str(int(self.stored)), "BENCH_STRICT": str(int(self.strict))}
        return chosen | self.environment


STORED = Setup()


@dataclass(frozen=True)
class Recipe:
    """What is particular to one peer."""

    name: str
    script: str  #: module in bench.peers
    venv: str
    durable: str  #: what survives which crash, as it is measured here
    can: frozenset[str]  #: measures, apart from those that all have
    pools: tuple[str, ...] = ("prefork",)  #: tried where the best one counts
    package: str = ""  #: of those with Celery's API: what is imported and started
    quiet: tuple[str, ...] = ()  #: before the command's name
    flags: tuple[str, ...] = ()  #: of the worker
    returns: bool = True  #: whether results can be had
    unfinished: str = ""  #: query for tasks not yet acknowledged that are due
    drain: int = 20_000
    eta_drain: int = 0  #: 0: as many
    slow: int = 1  #: divides the other numbers of tasks


class Peer:
    """A recipe on a server."""

    def __init__(self, recipe: Recipe, python: Path, marks: Path, concurrency: int) -> None:
        self.recipe, self.python, self.marks = recipe, python, marks
        self.name, self.concurrency = recipe.name, concurrency

    # -- of its server -----------------------------------------------------------------------

    def servers(self) -> list[psutil.Process]:
        """Their main processes."""
        raise NotImplementedError

    def urls(self) -> dict[str, str]:
        """`BENCH_BROKER`, `BENCH_BACKEND`."""
        raise NotImplementedError

    def empty(self) -> None:
        """Empty the broker."""
        raise NotImplementedError

    def settle(self) -> None:
        """What an idle broker would have done between a prefill and a measurement."""

    def unfinished(self) -> int:
        """Tasks not yet acknowledged, apart from those that wait for their time."""
        raise NotImplementedError

    def queries(self) -> float | None:
        """Transactions or commands its server has done for it; None: not countable."""
        raise NotImplementedError

    # -- the same for all --------------------------------------------------------------------

    def reset(self) -> None:
        """An empty broker with what the library needs in it."""
        self.empty()
        self.produce("setup")

    def produce(
        self,
        command: str,
        *args: int,
        setup: Setup = STORED,
        given: str = "",
        timeout_s: float = 900,
    ) -> dict[str, Any]:
        """Run one command of `bench.driver` in a process of its own."""
        line = [str(self.python), "-m", f"bench.peers.{self.recipe.script}", command]
        done = subprocess.run(
            [*line, *map(str, args)],
            cwd=ROOT,
            env=self._environment(setup),
            capture_output=True,
            input=given,
            text=True,
            timeout=timeout_s,
        )
        if done.returncode:
            raise RuntimeError(f"{self.name} producer {command}: {done.stderr[-2000:]}")
        answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return answer

    def verify(self, ids: Sequence[str], start: int, n: int) -> None:
        """Raise RuntimeError unless each of these tasks returned its number."""
        if not self.recipe.returns:
            return
        said = self.produce("check", start, n, given=json.dumps(ids))
        if said["right"] != n or said["wrong"]:
            raise RuntimeError(f"{self.name}: {said['right']} of {n} results, {said['wrong']}")

    def broker(self) -> list[psutil.Process]:
        """All processes of its servers."""
        return [one for server in self.servers() for one in tree(server)]

    def broker_cpu(self) -> float:
        """Seconds of CPU the broker has used."""
        return cpu_s(self.broker())

    @contextlib.contextmanager
    def worker(self, setup: Setup = STORED) -> Iterator[Worker]:
        """A worker for the block, stopped warm at its end."""
        with tempfile.TemporaryFile("w+") as log:
            process = psutil.Popen(
                self._command(setup),
                cwd=ROOT,
                env=self._environment(setup),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            worker = Worker(process)
            try:
                yield worker
            except RuntimeError as error:
                log.seek(0)
                raise RuntimeError(f"{self.name}: {error}\n{log.read()[-2000:]}") from error
            finally:
                worker.stop()

    def _command(self, setup: Setup) -> list[str]:
        recipe = self.recipe
        if not recipe.package:
            return [str(self.python), "-m", f"bench.peers.{recipe.script}", "worker"]
        line = [str(self.python), "-m", recipe.package, *recipe.quiet, "-A", "bench.peers.app"]
        line += ["worker"]
        children = setup.children or self.concurrency
        if setup.pool != "prefork":
            line += ["-P", setup.pool]
            children = THREADS
        return [*line, *recipe.flags, "-c", str(children)]

    def _environment(self, setup: Setup) -> dict[str, str]:
        dropped = ("CELERY_", "PGCELERY_", "PYTHON", "BENCH_")
        env = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
        env |= {
            "BENCH_LIBRARY": self.recipe.package,
            "BENCH_MARKS": str(self.marks),
            "BENCH_CONCURRENCY": str(self.concurrency),
            "C_FORCE_ROOT": "1",
            "PYTHONPATH": str(ROOT),
        }
        return env | self.urls() | setup.variables()


class OnRedis(Peer):
    """Broker and results on one Redis."""

    def __init__(self, *args: Any, redis: Redis) -> None:
        super().__init__(*args)
        self.redis = redis

    def servers(self) -> list[psutil.Process]:
        return [self.redis.process]

    def urls(self) -> dict[str, str]:
        return {"BENCH_BROKER": self.redis.broker, "BENCH_BACKEND": self.redis.backend}

    def empty(self) -> None:
        self.redis.client.flushall()

    def unfinished(self) -> int:
        client = self.redis.client
        return int(client.llen("celery")) + int(client.zcard("unacked_index"))

    def queries(self) -> float | None:
        return self.redis.commands()


class OnRabbit(Peer):
    """Broker on RabbitMQ, results on Redis."""

    def __init__(self, *args: Any, rabbit: Rabbit, redis: Redis) -> None:
        super().__init__(*args)
        self.rabbit, self.redis = rabbit, redis

    def servers(self) -> list[psutil.Process]:
        return [self.rabbit.process, self.redis.process]

    def urls(self) -> dict[str, str]:
        return {"BENCH_BROKER": self.rabbit.url, "BENCH_BACKEND": self.redis.backend}

    def empty(self) -> None:
        self.redis.client.flushall()
        self.rabbit.forget_queues()

    def unfinished(self) -> int:
        return self.rabbit.ready("celery")  # those handed out are acknowledged before they start

    def queries(self) -> float | None:
        return None


class OnPostgres(Peer):
    """A database of its own in a PostgreSQL with default settings."""

    def __init__(self, *args: Any, postgres: Postgres) -> None:
        super().__init__(*args)
        self.postgres = postgres
        self.dsn = ""

    def servers(self) -> list[psutil.Process]:
        return [self.postgres.process]

    def urls(self) -> dict[str, str]:
        # An empty backend: pgcelery and potatoq keep results where the tasks are.
        return {"BENCH_BROKER": self.dsn, "BENCH_BACKEND": ""}

    def empty(self) -> None:
        self.dsn = self.postgres.fresh_database(self.dsn)

    def settle(self) -> None:
        with self.connect() as conn:
            conn.execute("vacuum analyze")
            conn.execute("checkpoint")

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to its database."""
        return psycopg.connect(self.dsn, autocommit=True)

    def unfinished(self) -> int:
        with self.connect() as conn:
            row = conn.execute(self.recipe.unfinished).fetchone()
        assert row is not None
        return int(row[0])

    def queries(self) -> float | None:
        return self.postgres.transactions(self.dsn)
