"""The servers of one run: started here, on Unix sockets, and stopped here."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import psutil
import psycopg
import redis
from psycopg.conninfo import conninfo_to_dict

from pgcelery.engine import Client, EngineConfig
from pgcelery.engine.embedded import ephemeral_server


class Redis:
    """A Redis without persistence, which is its fastest."""

    def __init__(self, socket: Path, process: psutil.Popen) -> None:
        self.socket = socket
        self.process = process
        self.client = redis.Redis(unix_socket_path=str(socket))
        self.version = f"Redis {self.client.info('server')['redis_version']}, no persistence"


@contextlib.contextmanager
def redis_server() -> Iterator[Redis]:
    """Run a `redis-server` for the block.

    Raises:
        RuntimeError: There is none on the PATH, or it does not answer.
    """
    binary = shutil.which("redis-server")
    if binary is None:
        raise RuntimeError("redis-server is not installed (Debian: apt install redis-server)")
    with tempfile.TemporaryDirectory(prefix="bench-redis-") as folder:
        socket, log = Path(folder, "redis.sock"), Path(folder, "redis.log")
        command = [binary, "--port", "0", "--unixsocket", str(socket), "--dir", folder]
        command += ["--save", "", "--appendonly", "no", "--logfile", str(log)]
        process = psutil.Popen(command, stdout=subprocess.DEVNULL)
        try:
            _answers(socket, log)
            yield Redis(socket, process)
        finally:
            process.terminate()
            process.wait(10)


def _answers(socket: Path, log: Path) -> None:
    end = time.monotonic() + 10
    with redis.Redis(unix_socket_path=str(socket)) as client:
        while True:
            try:
                client.ping()
            except redis.ConnectionError:
                if time.monotonic() > end:
                    raise RuntimeError(f"redis-server: {log.read_text()}") from None
                time.sleep(0.05)
            else:
                return


class Postgres:
    """A PostgreSQL with every setting at its default: fsync and synchronous_commit on."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._count = 0
        settings = [self.show(x) for x in ("server_version", "fsync", "synchronous_commit")]
        self.version = "PostgreSQL {}, fsync {}, synchronous_commit {}".format(*settings)
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

    def fresh_database(self, old: Client | None) -> Client:
        """A client of a new migrated database named broker; the `old` client's one is dropped."""
        if old:
            old.close()
        self._count += 1
        with self.connect() as conn:
            if old:
                conn.execute(f"drop database bench_{self._count - 1} with (force)")
            conn.execute(f"create database bench_{self._count}")
        client = Client(EngineConfig(dsn=_url(self.dsn, f"bench_{self._count}")))
        client.migrate()
        return client


def _url(dsn: str, dbname: str) -> str:
    parts = conninfo_to_dict(dsn) | {"dbname": dbname}
    return "postgresql:///?" + urlencode(parts)


@contextlib.contextmanager
def postgres_server() -> Iterator[Postgres]:
    """Run an embedded PostgreSQL for the block."""
    with ephemeral_server(fsync=True) as server:
        yield Postgres(server.dsn)
