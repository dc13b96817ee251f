"""SQL lives in files; every file is used, and every statement is known to the database."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import psycopg
import pytest

from pgcelery.engine.database import load
from pgcelery.engine.schema import migrations

ENGINE = Path(__file__).parents[2] / "src" / "pgcelery" / "engine"
SQL = ENGINE / "sql"
STATEMENTS = sorted(
    path.relative_to(SQL).with_suffix("").as_posix()
    for path in SQL.rglob("*.sql")
    if path.parent.name not in {"migrations", "functions"}
)


def named_in_code() -> str:
    return "\n".join(path.read_text() for path in ENGINE.rglob("*.py"))


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_statement_is_named_by_the_code(statement: str):
    folder, _, stem = statement.partition("/")
    wanted = f'"{stem}"' if folder == "nodes" else f'"{statement}"'
    assert wanted in named_in_code()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_every_statement_is_planned_by_a_migrated_database(statement: str, dsn: str):
    text = load(statement, "pgcelery").decode()
    named = sorted(set(re.findall(r"%\((\w+)\)s", text)))
    for place, parameter in enumerate(named, 1):
        text = text.replace(f"%({parameter})s", f"${place}")
    while "%s" in text:
        named.append("positional")
        text = text.replace("%s", f"${len(named)}", 1)
    with psycopg.connect(dsn) as conn:
        result = conn.pgconn.prepare(b"house", text.rstrip(" ;\n").encode())
    assert result.status == psycopg.pq.ExecStatus.COMMAND_OK, result.error_message


def test_every_function_file_is_installed_by_a_migration():
    installed = "".join((SQL / f"migrations/{one.name}.sql").read_text() for one in migrations())
    for path in (SQL / "functions").glob("*.sql"):
        assert f"-- install functions/{path.stem}.sql" in installed
        defined = re.findall(r"create (?:or replace )?function pgcelery\.(\w+)\(", path.read_text())
        assert path.stem in defined


def test_migrations_are_numbered_without_a_gap():
    assert [one.number for one in migrations()] == list(range(1, len(migrations()) + 1))


def test_the_engine_executes_no_sql_of_its_own_making():
    allowed = {"schema.py", "ears.py"}  # lock, regclass and listen take no file
    for path in ENGINE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "execute"
                and isinstance(node.args[0], ast.Constant | ast.JoinedStr)
            ):
                assert path.name in allowed, f"{path.name}:{node.lineno}"
