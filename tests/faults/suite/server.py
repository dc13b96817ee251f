"""A PostgreSQL of one trial's own, which can be crashed, started again, copied and promoted."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg

from pgcelery.engine import Client, EngineConfig
from pgcelery.engine.embedded import account, binaries, ephemeral_server, server
from pgcelery.engine.embedded.places import SOCKET_NAME
from tests.support.wait import wait_for

#: Ends are counted where they are written; what reads them is outside of what is tested.
_AUDIT = """
create schema audit;
create table audit.ended (id text, token bigint, at timestamptz);
create function audit.note() returns trigger language plpgsql as $$
begin
    if new.finished_at is not null then
        insert into audit.ended values (new.id, new.token, clock_timestamp());
    end if;
    return null;
end
$$;
create trigger note after insert or update of state, token, result, finished_at
on pgcelery.results for each row execute function audit.note();
"""


class Server:
    """One cluster. It survives crashes of its processes, not of the machine: none is injected."""

    def __init__(self) -> None:
        self._ephemeral = ephemeral_server(fsync=True)
        self.dsn = self._ephemeral.dsn
        self.data_dir: Path = self._ephemeral.data_dir
        self.account = account.server_account(self.data_dir)
        self.settings: dict[str, str] = {}
        for setting in ("fsync = off", "full_page_writes = off", "max_wal_size = '4GB'"):
            self.execute(f"alter system set {setting}")
        self.execute("select pg_reload_conf()")

    def migrate(self) -> None:
        with Client(EngineConfig(dsn=self.dsn)) as client:
            client.migrate()
        self.execute(_AUDIT)

    @property
    def socket_dir(self) -> Path:
        return self.data_dir.parent

    @property
    def socket(self) -> str:
        return str(self.socket_dir / SOCKET_NAME)

    def execute(self, query: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            cursor = conn.execute(query, params or None)
            return cursor.fetchall() if cursor.description else []

    def write(self, query: str) -> None:
        """Execute, though transactions are read only by default."""
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            conn.execute("set default_transaction_read_only = off")
            conn.execute(query)

    def postmaster(self) -> int:
        found = server.running(self.data_dir)
        assert found is not None
        return found.pid

    def crash(self) -> None:
        """Stop at once, as `pg_ctl -m immediate`: it has to recover."""
        server.stop(self.account, self.data_dir, how=signal.SIGQUIT, timeout_s=30)

    def start(self) -> None:
        found = binaries.find_binaries(self.account)
        log = self.data_dir.parent / "server.log"
        server.start(
            found, self.account, self.data_dir, self.socket_dir, log, settings=self.settings
        )

    def recovered(self) -> None:
        """Wait until it takes connections (after a backend was killed it starts anew by itself)."""

        def takes() -> bool:
            with suppress(psycopg.OperationalError):
                self.execute("select")
                return True
            return False

        wait_for(takes, 30)

    def copy(self) -> Server:
        """Make a base backup of it beside it; not started."""
        copy = object.__new__(Server)
        copy._ephemeral = self._ephemeral
        copy.account = self.account
        home = self.account.make_directory(self.socket_dir / secrets.token_hex(2))
        copy.data_dir = home / "data"
        copy.settings = dict(self.settings)
        copy.dsn = self.dsn.replace(self.socket_dir.name, f"{self.socket_dir.name}%2F{home.name}")
        program = binaries.find_binaries(self.account).program("pg_basebackup")
        args = [program, "-D", copy.data_dir, "-h", self.socket_dir, "-U", server.SUPERUSER]
        made = self.account.run([*args, "-X", "stream", "-c", "fast", "--no-sync"])
        assert made.returncode == 0, made.stdout
        return copy

    def follow(self, primary: Server, name: str) -> None:
        """Start as a standby of another."""
        self.account.run(["touch", self.data_dir / "standby.signal"])
        info = f"host={primary.socket_dir} user={server.SUPERUSER} application_name={name}"
        conf = self.data_dir / "postgresql.auto.conf"
        line = f"primary_conninfo = '{info}'\nsynchronous_standby_names = ''\n"
        self.account.run(["sh", "-c", 'cat >> "$1"', "sh", conf], stdin=line)
        self.start()

    def promote(self) -> None:
        """Stop following, and take writes."""
        self.execute("select pg_promote(true, 30)")
        self.execute("alter system reset synchronous_standby_names")
        self.execute("select pg_reload_conf()")

    def close(self) -> None:
        """End it, and delete it and its copies."""
        for copy in self.socket_dir.glob("*/data"):
            if copy != self.data_dir:
                with suppress(Exception):
                    server.stop(self.account, copy, how=signal.SIGQUIT, timeout_s=30)
        self._ephemeral.stop()
