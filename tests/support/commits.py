"""Transactions of runs: a table for what they do, and connections that break at the commit."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict

from tests.support.relays import Proxy


class CommitProxy(Proxy):
    """Loses one commit.

    Attributes:
        at_commit: ``requests``: it does not reach the server; ``answers``: nobody hears that it
            did.
    """

    def __init__(self, dsn: str, folder: Path) -> None:
        self.at_commit = ""
        super().__init__(dsn, folder)

    @property
    def url(self) -> str:
        """The DSN as a URL."""
        return "postgresql:///?" + urlencode(conninfo_to_dict(self.dsn), quote_via=quote)

    def _pump(self, word: str, source: socket.socket, sink: socket.socket) -> None:
        super()._pump(word, _Watched(self, source) if word == "requests" else source, sink)


class _Watched:
    def __init__(self, proxy: CommitProxy, source: socket.socket) -> None:
        self.proxy, self.source = proxy, source

    def recv(self, size: int) -> bytes:
        data = self.source.recv(size)
        if b"COMMIT\0" in data and self.proxy.at_commit:
            self.proxy.lose, self.proxy.at_commit = self.proxy.at_commit, ""
        return data

    def shutdown(self, how: int) -> None:
        self.source.shutdown(how)


class Effects:
    """The rows that runs insert."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        with psycopg.connect(dsn) as conn:
            conn.execute("drop table if exists effects")
            conn.execute("create table effects (number integer not null)")

    def numbers(self) -> list[int]:
        """All of them, in order."""
        with psycopg.connect(self.dsn) as conn:
            return [n for (n,) in conn.execute("select number from effects order by 1")]

    def close(self) -> None:
        with suppress(psycopg.Error), psycopg.connect(self.dsn) as conn:
            conn.execute("set local lock_timeout = '10s'")
            conn.execute("drop table effects")


def insert(conn: psycopg.Connection[Any], number: int) -> None:
    """Do what a run does."""
    conn.execute("insert into effects values (%s)", [number])


def fetch(dsn: str, query: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Ask with a connection of its own."""
    with psycopg.connect(dsn) as conn:
        return conn.execute(query, params).fetchall()
