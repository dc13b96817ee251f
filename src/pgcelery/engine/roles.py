"""Roles with the least that producers, workers and people who look need.

Four roles that cannot log in: ``<prefix>_owner`` owns the schema, ``_producer`` may send, cancel
and read results, ``_worker`` may do what workers do, ``_viewer`` may look. Roles that log in are
made members of them by whoever runs the database.
"""

from __future__ import annotations

import psycopg

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import connect, load, translated
from pgcelery.engine.errors import NotPermitted

KINDS = ("owner", "producer", "worker", "viewer")
_LONGEST_PREFIX = 50  # PostgreSQL cuts names at 63 bytes


def statements(config: EngineConfig, prefix: str) -> list[str]:
    """List the statements that make the roles of a schema, or bring them up to date.

    Raises:
        ValueError: A prefix with which no role can be named.
    """
    if not prefix or len(prefix.encode()) > _LONGEST_PREFIX or "\0" in prefix:
        raise ValueError(f"a prefix has 1 to {_LONGEST_PREFIX} bytes, not {prefix!r:.80}")
    with connect(config) as conn, translated():
        return _statements(conn, config, prefix)


def apply(config: EngineConfig, prefix: str) -> list[str]:
    """Run the `statements`, in one transaction; return them.

    Raises:
        NotPermitted: This role may not; nothing was changed.
    """
    statements(config, prefix)
    with connect(config) as conn, translated(), conn.transaction():
        found = _statements(conn, config, prefix)
        for statement in found:
            conn.execute(statement.encode())
    return found


def newer(config: EngineConfig) -> int | None:
    """Count the functions that are newer than the roles; None if the schema has no roles."""
    with connect(config) as conn, translated():
        row = conn.execute(load("roles/newer", config.schema), {"schema": config.schema}).fetchone()
    return None if row is None else row[0]


def _statements(
    conn: psycopg.Connection[tuple[object, ...]], config: EngineConfig, prefix: str
) -> list[str]:
    conn.execute(load("roles/plain", config.schema))
    params = {"schema": config.schema, "prefix": prefix}
    rows = conn.execute(load("roles/statements", config.schema), params).fetchall()
    return [str(statement) for (statement,) in rows]


__all__ = ["KINDS", "NotPermitted", "apply", "newer", "statements"]
