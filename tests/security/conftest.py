from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgcelery.engine import Client, EngineConfig
from tests.support.database import new_database
from tests.support.process import PGCELERY, Process

PASSWORD = "S3cr3tPa55"
KINDS = ("producer", "worker", "viewer")

PROJECT = """\
import os
from pgcelery import Celery, Concurrency, Unique

app = Celery("shop", broker=os.environ["SHOP_DSN"], set_as_current=False)
app.conf.beat_schedule = {"often": {"task": "shop.tick", "schedule": 0.2}}

@app.task
def add(x, y):
    return x + y

@app.task
def total(numbers):
    return sum(numbers)

@app.task(bind=True, max_retries=3)
def flaky(self):
    if self.request.retries < 1:
        raise self.retry(countdown=0.05)
    return "done"

@app.task
def tick():
    return "tick"

@app.task
def echo(*args, **kwargs):
    return [list(args), kwargs]

@app.task(concurrency=Concurrency("{key}", limit=1), unique=Unique("{key}"))
def keyed(key):
    return key

@app.task
def secret(password, note=None):
    return len(password)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(PROJECT)
    return tmp_path


@pytest.fixture
def pgcelery(
    spawn: Callable[..., Process], project: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Process]:
    """Start ``pgcelery -A shop ARGS`` on a database: ``pgcelery(dsn, "worker", wait=False)``."""
    for name in ("CELERY_BROKER_URL", "PGCELERY_DATABASE_URL", "CELERY_RESULT_BACKEND"):
        monkeypatch.delenv(name, raising=False)

    def start(dsn: str, *args: str, wait: bool = True, app: bool = True, **env: str) -> Process:
        chosen = ["-A", "shop"] if app else []
        variables = {"SHOP_DSN": dsn, "PGCELERY_DATABASE_URL": dsn, **env}
        process = spawn([*PGCELERY, *chosen, *args], env=variables, cwd=project)
        if wait:
            process.wait(60)
        return process

    return start


class Roles:
    """A migrated database where `pgcelery db roles` ran, and users of each role."""

    def __init__(self, dsn: str, prefix: str) -> None:
        self.dsn, self.prefix = dsn, prefix

    def dsn_of(self, kind: str) -> str:
        return make_conninfo(self.dsn, user=f"{self.prefix}_app_{kind}", password=PASSWORD)

    def run(self, text: str, *names: str) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as conn:
            identifiers = [sql.Identifier(f"{self.prefix}_{name}") for name in names]
            conn.execute(sql.SQL(text).format(*identifiers, password=PASSWORD))


@pytest.fixture
def roles(server_dsn: str, pgcelery: Callable[..., Process]) -> Iterator[Roles]:
    with new_database(server_dsn) as dsn:
        with closing(Client(EngineConfig(dsn=dsn))) as client:
            client.migrate()
        found = Roles(dsn, f"s{secrets.token_hex(4)}")
        made = pgcelery(dsn, "db", "roles", "--prefix", found.prefix)
        assert made.popen.returncode == 0, made.output()
        for kind in KINDS:
            found.run("create role {} login password {password} in role {}", f"app_{kind}", kind)
        yield found
        for kind in KINDS:
            found.run("drop role {}", f"app_{kind}")
        found.run("drop schema pgcelery cascade")
        for kind in ("owner", *KINDS):
            found.run("drop owned by {}", kind)
            found.run("drop role {}", kind)


def shop_of(project: Path, dsn: str) -> Any:
    """The application's module, as a process that sends has it."""
    namespace: dict[str, Any] = {"__name__": "shop"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_DSN", dsn)
        exec(compile(PROJECT, "shop.py", "exec"), namespace)
    return namespace
