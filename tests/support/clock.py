"""A clock that tests set: all that the database has noted moves into the past.

The engine reads the server's clock, in functions that no test may change. That an hour goes by is
the same as every stored time being an hour earlier.
"""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

_COLUMNS = """
select c.table_name, array_agg(c.column_name::text order by c.ordinal_position)
from information_schema.columns c
join information_schema.tables t using (table_schema, table_name)
where c.table_schema = %s and c.data_type = 'timestamp with time zone'
  and t.table_type = 'BASE TABLE' and c.table_name <> 'migrations'
group by c.table_name
order by c.table_name
"""


class Clock:
    """Moves the time of one schema; finds its columns once."""

    def __init__(self, conn: psycopg.Connection[Any], schema: str = "pgcelery") -> None:
        tables = conn.execute(_COLUMNS, [schema]).fetchall()
        assert tables, f"no schema {schema!r} to keep the time of"
        updates = [
            sql.SQL("{} as (update {} set {})").format(
                sql.Identifier(f"u_{table}"),
                sql.Identifier(schema, table),
                sql.SQL(", ").join(
                    sql.SQL("{0} = {0} - make_interval(secs => %(seconds)s)").format(
                        sql.Identifier(column)
                    )
                    for column in columns
                ),
            )
            for table, columns in tables
        ]
        self._query = sql.SQL("with {} select").format(sql.SQL(", ").join(updates))

    def advance(self, conn: psycopg.Connection[Any], seconds: float) -> None:
        """Let so many seconds go by, in a transaction of the connection's."""
        conn.execute(self._query, {"seconds": seconds}, prepare=True)
