from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pgcelery.engine import Client
from tests.support.process import PGCELERY, Process

VARIABLES = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CELERY_CONFIG_MODULE")


@pytest.fixture
def run(
    spawn: Callable[..., Process], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Process]:
    """Run ``pgcelery ARGS`` to its end, on the database given."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def run(*args: str, dsn: str = "", env: dict[str, str] | None = None) -> Process:
        variables = {"PGCELERY_DATABASE_URL": dsn, **(env or {})}
        process = spawn([*PGCELERY, *args], env=variables, cwd=tmp_path)
        process.wait(60)
        return process

    return run


@pytest.fixture
def home() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="pgc-", dir="/tmp"))
    directory.chmod(0o711)
    yield directory / "home"
    shutil.rmtree(directory)


def code_and_output(process: Process) -> tuple[int, str]:
    return process.popen.returncode, process.output()


def test_migrate_applies_what_is_missing_once(run: Callable[..., Process], fresh_dsn: str) -> None:
    code, output = code_and_output(run("db", "migrate", dsn=fresh_dsn))
    assert code == 0
    assert "applied 0001_initial\n" in output
    code, output = code_and_output(run("db", "migrate", dsn=fresh_dsn))
    assert code == 0
    assert output.startswith("nothing to do")


def test_status_tells_the_database_and_its_schema(
    run: Callable[..., Process], client: Client
) -> None:
    code, output = code_and_output(run("db", "status", dsn=client.config.dsn))
    assert code == 0, output
    assert "(PGCELERY_DATABASE_URL)\n" in output
    assert f"version {client.schema_status().latest}" in output


def test_status_of_a_database_without_the_schema_fails(
    run: Callable[..., Process], fresh_dsn: str
) -> None:
    code, output = code_and_output(run("db", "status", dsn=fresh_dsn))
    assert code == 1
    assert "pending: 0001_initial" in output
    assert "pgcelery db migrate" in output


@pytest.mark.parametrize("command", ["status", "migrate"])
def test_a_database_out_of_reach_is_one_sentence_and_code_69(
    run: Callable[..., Process], command: str
) -> None:
    code, output = code_and_output(
        run("db", command, dsn="postgresql://u:secret@127.0.0.1:1/nowhere")
    )
    assert code == 69
    assert "Error: Cannot reach the database" in output
    assert "Traceback" not in output
    assert "secret" not in output


def test_another_brokers_url_is_one_sentence_and_code_1(run: Callable[..., Process]) -> None:
    code, output = code_and_output(run("-b", "redis://:secret@h/0", "db", "status"))
    assert code == 1
    assert output.startswith("Error: CELERY_BROKER_URL is 'redis://:**@h/0', another broker")


def test_the_embedded_server_is_started_shown_and_stopped(
    run: Callable[..., Process], home: Path
) -> None:
    env = {"PGCELERY_HOME": str(home)}
    assert "not running" in run("db", "status", env=env).output()
    assert not (home / "data").exists()  # to look starts nothing
    try:
        code, output = code_and_output(run("db", "start", env=env))
        assert code == 0, output
        assert f"data in {home}/data\n" in output
        assert run("db", "migrate", env=env).popen.returncode == 0
        assert f"data in {home}/data\n" in run("db", "status", env=env).output()
    finally:
        stopped = run("db", "stop", env=env)
    assert code_and_output(stopped) == (0, "stopped\n")
    assert run("db", "stop", env=env).output() == "no embedded server is running\n"


def test_psql_gets_the_password_in_its_environment_not_in_its_arguments(
    run: Callable[..., Process], tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "psql"
    fake.parent.mkdir()
    fake.write_text('#!/bin/sh\necho "$PGUSER $PGPASSWORD $PGHOST $PGDATABASE | $*"\n')
    fake.chmod(0o755)
    process = run(
        "db",
        "psql",
        "--",
        "-c",
        "select 1",
        dsn="postgresql://me:secret@h/d?keepalives=1",
        env={"PATH": f"{fake.parent}:/usr/bin:/bin"},
    )
    assert process.output() == "me secret h d | -d keepalives=1 -c select 1\n"
