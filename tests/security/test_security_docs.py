"""The SQL of docs/security.md, as it stands there, on a database with roles."""

from __future__ import annotations

import re
from pathlib import Path

import psycopg

from tests.security.conftest import Roles

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()


def test_the_logins_of_the_page_get_their_roles(roles: Roles) -> None:
    (text,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    assert text.count("create role") == 3
    text = text.replace("pgcelery_", f"{roles.prefix}_").replace("shop_", f"{roles.prefix}_shop_")
    with psycopg.connect(roles.dsn, autocommit=True) as conn:
        conn.execute(text.encode())
        members = conn.execute(
            "select m.rolname, pg_has_role(m.oid, %s, 'member') from pg_roles m"
            " where m.rolname like %s order by 1",
            [f"{roles.prefix}_producer", f"{roles.prefix}_shop_%"],
        ).fetchall()
    names = ("support", "web", "worker")
    assert members == [(f"{roles.prefix}_shop_{name}", name == "web") for name in names]
    for name in names:
        roles.run("drop role {}", f"shop_{name}")
