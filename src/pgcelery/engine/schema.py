"""Numbered migrations under one advisory lock, and the check that a release fits a database.

A migration runs once, in a transaction that also records it; twenty processes that start together
apply it once. Functions carry their version in their name: an old worker on a new schema goes on
calling the ones it knows.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import NamedTuple

import psycopg
from psycopg import sql as pgsql

from pgcelery.engine.database import load
from pgcelery.engine.errors import SchemaMismatch
from pgcelery.engine.exchange import Connection

_LOCK_KEY = 0x70676365  # "pgce"
_INSTALL = re.compile(r"^-- install (functions/\w+)\.sql$", re.MULTILINE)


class Migration(NamedTuple):
    """One file of ``sql/migrations``."""

    number: int
    name: str
    breaking: bool  #: its first line is ``-- breaking``: workers of older releases must not start


class SchemaStatus(NamedTuple):
    """What a database has and what this release knows."""

    current: int  #: number of the newest migration applied; 0 for none
    latest: int  #: number of the newest migration known here
    pending: list[str]  #: names not applied yet, in order
    breaking: bool  #: the database is newer, by a migration that this release cannot live with


def migrations() -> list[Migration]:
    """List the migrations of this release, in order."""
    found = []
    for entry in resources.files("pgcelery.engine.sql").joinpath("migrations").iterdir():
        match = re.fullmatch(r"(\d{4})_(\w+)\.sql", entry.name)
        if match:
            first = entry.read_text("utf-8").partition("\n")[0]
            found.append(Migration(int(match[1]), entry.name[:-4], first == "-- breaking"))
    return sorted(found)


def check(conn: Connection, schema: str) -> None:
    """Refuse a database that this release cannot work with.

    Raises:
        SchemaMismatch: It is older, or newer and breaking; the message says what to do.
    """
    found = status(conn, schema)
    if found.pending:
        had = f"version {found.current}" if found.current else "missing"
        raise SchemaMismatch(
            f"the pgcelery schema in the database is {had} and this release needs version"
            f" {found.latest}; run `pgcelery db migrate`"
        )
    if found.breaking:
        raise SchemaMismatch(
            f"the pgcelery schema in the database is version {found.current}, which this release"
            f" (version {found.latest}) cannot work with; upgrade pgcelery"
        )


def migrate(conn: Connection, schema: str) -> list[str]:
    """Bring the schema to this release's version; return the names applied, in order.

    Each migration is one transaction. Safe to run from many processes at once and to interrupt.

    Raises:
        SchemaMismatch: The role may not create what is missing.
    """
    if not status(conn, schema).pending:
        return []
    applied: list[str] = []
    try:
        for migration in migrations():
            if _apply(conn, schema, migration):
                applied.append(migration.name)
    except psycopg.errors.InsufficientPrivilege as exc:
        raise SchemaMismatch(
            f"this role may not create the pgcelery schema ({exc.diag.message_primary});"
            " run `pgcelery db migrate` as its owner"
        ) from exc
    return applied


def status(conn: Connection, schema: str) -> SchemaStatus:
    """Compare the database's schema with this release's. Changes nothing."""
    known = migrations()
    row = conn.execute(
        "select to_regclass(%s) is not null",
        [pgsql.Identifier(schema, "migrations").as_string(conn)],
    ).fetchone()
    have: dict[int, bool] = {}
    if row and row[0]:
        have = dict(conn.execute(load("migrations/applied", schema)).fetchall())
    numbers = {migration.number for migration in known}
    return SchemaStatus(
        current=max(have, default=0),
        latest=known[-1].number,
        pending=[migration.name for migration in known if migration.number not in have],
        breaking=any(breaking for number, breaking in have.items() if number not in numbers),
    )


def _apply(conn: Connection, schema: str, migration: Migration) -> bool:
    with conn.transaction():
        conn.execute("select pg_advisory_xact_lock(%s)", [_LOCK_KEY])
        conn.execute(pgsql.SQL("create schema if not exists {}").format(pgsql.Identifier(schema)))
        conn.execute(load("migrations/own", schema), [schema])
        conn.execute(load("migrations/prepare", schema))
        done = conn.execute(load("migrations/applied", schema)).fetchall()
        if migration.number in dict(done):
            return False
        text = load(f"migrations/{migration.name}", schema)
        conn.execute(text)
        for name in _INSTALL.findall(text.decode()):
            conn.execute(load(name, schema))
        conn.execute(
            load("migrations/record", schema),
            [migration.number, migration.name, migration.breaking],
        )
    return True
