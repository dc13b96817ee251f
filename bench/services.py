"""The servers of one run: started here when a peer wants them, and stopped here.

PostgreSQL and Redis listen on Unix sockets, RabbitMQ on a free port of the loopback interface.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
import redis
from kombu import Connection
from psycopg.conninfo import conninfo_to_dict

from pgcelery.engine import Client, EngineConfig
from pgcelery.engine.embedded import ephemeral_server

REDIS = ("redis-server",)
#: Debian's wrapper, which is on the path, changes the user and forgets the environment.
RABBIT = ("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server")


def program(names: Sequence[str]) -> str | None:
    """The first of these that there is."""
    return next(filter(None, map(shutil.which, names)), None)


class Services:
    """What runs; each server is started once."""

    def __init__(self) -> None:
        self._running: dict[str, Any] = {}

    def versions(self) -> dict[str, str]:
        """What runs, and with which settings."""
        return {name: one.version for name, one in self._running.items()}

    def postgres(self, stack: ExitStack) -> Postgres:
        """A PostgreSQL until the stack ends."""
        return self._once("postgresql", postgres_server, stack)

    def redis(self, stack: ExitStack) -> Redis:
        """A Redis until the stack ends."""
        return self._once("redis", redis_server, stack)

    def rabbit(self, stack: ExitStack) -> Rabbit:
        """A RabbitMQ until the stack ends."""
        return self._once("rabbitmq", rabbit_server, stack)

    def _once(self, name: str, start: Callable[[], Any], stack: ExitStack) -> Any:
        if name not in self._running:
            self._running[name] = stack.enter_context(start())
        return self._running[name]


class Redis:
    """A Redis without persistence, which is its fastest."""

    def __init__(self, path: Path, process: psutil.Popen) -> None:
        self.process = process
        self.client = redis.Redis(unix_socket_path=str(path))
        self.version = f"Redis {self.client.info('server')['redis_version']}, no persistence"
        self.broker, self.backend = (f"redis+socket://{path}?virtual_host={n}" for n in (0, 1))

    def commands(self) -> float:
        """Commands done so far, without those of this method."""
        stats = self.client.info("commandstats")
        return float(sum(v["calls"] for k, v in stats.items() if k != "cmdstat_info"))


@contextlib.contextmanager
def redis_server() -> Iterator[Redis]:
    """Run a `redis-server` for the block.

    Raises:
        RuntimeError: There is none on the PATH, or it does not answer.
    """
    binary = program(REDIS)
    if binary is None:
        raise RuntimeError("redis-server is not installed (Debian: apt install redis-server)")
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
        path, log = Path(folder, "redis.sock"), Path(folder, "redis.log")
        command = [binary, "--port", "0", "--unixsocket", str(path), "--dir", folder]
        command += ["--save", "", "--appendonly", "no", "--logfile", str(log)]
        process = psutil.Popen(command, stdout=subprocess.DEVNULL)
        try:
            with redis.Redis(unix_socket_path=str(path)) as client:
                _until(client.ping, 10, redis.ConnectionError, log)
            yield Redis(path, process)
        finally:
            process.terminate()
            process.wait(10)


class Rabbit:
    """A RabbitMQ with default settings and a node of its own."""

    def __init__(self, url: str, process: psutil.Popen) -> None:
        self.url, self.process = url, process
        with Connection(url) as connection:
            connection.connect()
            properties = connection.connection.server_properties
        self.version = f"RabbitMQ {properties['version']}, classic queues"
        self._queues = {"celery"}

    def ready(self, queue: str) -> int:
        """Messages of a queue that no worker has."""
        with Connection(self.url) as connection, connection.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)

    def forget_queues(self) -> None:
        """Delete what the tasks are in; what a worker keeps for itself goes with the worker."""
        for queue in self._queues:
            with Connection(self.url) as connection, connection.channel() as channel:
                channel.queue_delete(queue)


@contextlib.contextmanager
def rabbit_server() -> Iterator[Rabbit]:
    """Run a `rabbitmq-server` for the block.

    Raises:
        RuntimeError: There is none, or it does not answer.
    """
    binary = program(RABBIT)
    if binary is None:
        raise RuntimeError("rabbitmq-server is not installed (Debian: apt install rabbitmq-server)")
    with tempfile.TemporaryDirectory(prefix="bench-rabbit-") as folder:
        port, dist, epmd = _free_ports(3)
        log, conf = Path(folder, "out.log"), Path(folder, "rabbitmq.conf")
        conf.write_text(f"listeners.tcp.local = 127.0.0.1:{port}\n")
        env = os.environ | {
            "RABBITMQ_NODENAME": f"bench-{port}@localhost",
            "RABBITMQ_DIST_PORT": str(dist),
            "RABBITMQ_CONFIG_FILE": str(conf),
            "RABBITMQ_MNESIA_BASE": f"{folder}/mnesia",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "ERL_EPMD_PORT": str(epmd),
            "HOME": folder,
        }
        with log.open("w") as out:
            process = psutil.Popen([binary], env=env, stdout=out, stderr=out)
        url = f"amqp://guest:guest@127.0.0.1:{port}//"
        try:
            _until(lambda: Connection(url).connect(), 60, OSError, log)
            yield Rabbit(url, process)
        finally:
            process.terminate()
            process.wait(30)
            subprocess.run(["epmd", "-kill"], env=env, capture_output=True, check=False)


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _until(
    ask: Callable[[], object], timeout_s: float, refused: type[Exception], log: Path
) -> None:
    end = time.monotonic() + timeout_s
    while True:
        try:
            ask()
        except refused:
            if time.monotonic() > end:
                raise RuntimeError(f"a server does not answer: {log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


class Postgres:
    """A PostgreSQL with every setting at its default: fsync and synchronous_commit on."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._count = 0
        shown = ("server_version", "fsync", "synchronous_commit", "shared_buffers")
        settings = [self.show(name) for name in shown]
        self.version = "PostgreSQL {}, fsync {}, synchronous_commit {}, shared_buffers {}".format(
            *settings
        )
        pid = Path(self.show("data_directory"), "postmaster.pid").read_text().split()[0]
        self.process = psutil.Process(int(pid))

    def connect(self) -> psycopg.Connection:
        """A connection to the server's own database."""
        return psycopg.connect(self.dsn, autocommit=True)

    def show(self, setting: str) -> str:
        """One of the server's settings."""
        with self.connect() as conn:
            row = conn.execute("select current_setting(%s)", (setting,)).fetchone()
        assert row is not None
        return str(row[0])

    def fresh_database(self, old: str = "") -> str:
        """The address of a new empty database; that of the `old` one is dropped."""
        self._count += 1
        name = f"bench_{self._count}"
        with self.connect() as conn:
            if old:
                conn.execute(f"drop database {_name(old)} with (force)")
            conn.execute(f"create database {name}")
        parts = conninfo_to_dict(self.dsn)
        return f"postgresql://{parts['user']}@/{name}?host={quote(str(parts['host']), safe='')}"

    def migrated_database(self) -> Client:
        """A client of a new database with pgcelery's schema."""
        client = Client(EngineConfig(dsn=self.fresh_database()))
        client.migrate()
        return client

    def transactions(self, dsn: str) -> float:
        """Transactions ended so far in a database, as far as backends have told of them."""
        query = (
            "select xact_commit + xact_rollback from pg_catalog.pg_stat_database where datname = %s"
        )
        with self.connect() as conn:
            row = conn.execute(query, (_name(dsn),)).fetchone()
        assert row is not None
        return float(row[0])


def _name(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["dbname"])


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Run an embedded PostgreSQL for the block."""
    with ephemeral_server(fsync=True) as server:
        yield Postgres(server.dsn)
