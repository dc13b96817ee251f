"""Databases for tests: making, emptying and dropping them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote, urlencode, urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict


@contextmanager
def new_database(server_dsn: str) -> Iterator[str]:
    """Create an empty database, yield its DSN (a URL) and drop it, whoever is still connected."""
    name = f"pgcelery_test_{secrets.token_hex(5)}"
    _run(server_dsn, "create database {}", name)
    try:
        yield with_database(server_dsn, name)
    finally:
        _run(server_dsn, "drop database {} with (force)", name)


def with_database(dsn: str, name: str) -> str:
    """Return the DSN of another database of the same server, always as a URL."""
    if "://" in dsn:
        return urlsplit(dsn)._replace(path=f"/{name}").geturl()
    return "postgresql:///?" + urlencode(conninfo_to_dict(dsn, dbname=name), quote_via=quote)


def empty_tables(dsn: str, schema: str = "pgcelery") -> list[str]:
    """List the tables without rows: after migrating, those that tests fill."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        names = conn.execute(
            "select tablename from pg_tables where schemaname = %s order by 1", [schema]
        ).fetchall()
        return [
            name
            for (name,) in names
            if not conn.execute(
                sql.SQL("select 1 from {} limit 1").format(sql.Identifier(schema, name))
            ).fetchone()
        ]


def delete_rows(dsn: str, tables: list[str], schema: str = "pgcelery") -> None:
    """Empty the tables. Waits at most 10 s for the locks of something a test left running."""
    with psycopg.connect(dsn) as conn:
        conn.execute("set local lock_timeout = '10s'")
        for name in tables:
            conn.execute(sql.SQL("delete from {}").format(sql.Identifier(schema, name)))


def _run(server_dsn: str, statement: str, name: str) -> None:
    with psycopg.connect(server_dsn, autocommit=True) as conn:
        conn.execute(sql.SQL(statement).format(sql.Identifier(name)))
