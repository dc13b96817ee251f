"""What clients read and await: a result is seen whenever it comes, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pgcelery.engine import Client, State, results
from tests.support.wait import wait_for

SOON_S, LONG_S = 20, 40  #: until something has to have happened, and would by itself


@pytest.fixture
def admin(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture
def hearing(client: Client) -> Client:
    """A client that has waited before, and keeps a connection that listens."""
    assert client.wait(["nobody"], 0.01) == {}
    return client


@pytest.fixture
def never_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "_LOOK_AGAIN_S", (60.0, 60.0))


def waiters(admin: psycopg.Connection) -> list[str]:
    return [row[0] for row in admin.execute("select job_id from pgcelery.waiters order by job_id")]


def test_a_result_is_read_as_it_was_written(client: Client, admin: psycopg.Connection):
    client.put_result("ä/1", State.COMPLETED, b"\0\xff")
    client.put_result("half", State.RUNNING, b"50%")
    found = client.results(["half", "unknown", "ä/1"])
    assert sorted(found) == ["half", "ä/1"]
    assert (found["half"].state, found["half"].result) == (State.RUNNING, b"50%")
    assert found["half"].finished_at is None
    ended = found["ä/1"]
    assert (ended.id, ended.state, ended.result) == ("ä/1", State.COMPLETED, b"\0\xff")
    row = admin.execute("select finished_at from pgcelery.results where id = 'ä/1'").fetchone()
    assert row == (ended.finished_at,)
    assert ended.finished_at is not None
    assert abs(datetime.now(UTC) - ended.finished_at) < timedelta(hours=1)


def test_who_finds_a_result_there_leaves_no_wish_to_be_told(
    hearing: Client, admin: psycopg.Connection
):
    admin.execute("delete from pgcelery.waiters")
    hearing.put_result("x", State.COMPLETED, b"1")
    assert hearing.wait(["x", "y"], 10)["x"].result == b"1"
    assert waiters(admin) == []


def test_one_that_ends_while_a_client_asks_to_be_told_is_seen(
    hearing: Client, dsn: str, pool: ThreadPoolExecutor, never_looks_again: None
):
    with psycopg.connect(dsn) as ending:
        # Its end does not see who waits: that is not committed, and cannot be before it is.
        ending.execute("select pgcelery.put_result_v1('x', 10::smallint, '1', null)")
        ending.execute("lock table pgcelery.waiters in share mode")
        waiting = pool.submit(hearing.wait, ["x"], LONG_S)
        blocked = "select 1 from pg_locks where not granted"
        with psycopg.connect(dsn, autocommit=True) as admin:
            wait_for(lambda: admin.execute(blocked).fetchone())
        ending.commit()
        assert waiting.result(SOON_S)["x"].result == b"1"


def test_who_waits_is_told_of_the_end_and_does_not_look_for_it(
    hearing: Client, client: Client, admin: psycopg.Connection, pool: ThreadPoolExecutor,
    never_looks_again: None,
):  # fmt: skip
    waiting = pool.submit(hearing.wait, ["x", "y"], LONG_S)
    wait_for(lambda: {"x", "y"} <= set(waiters(admin)))
    with psycopg.connect(client.config.dsn) as conn:
        conn.execute("select pgcelery.put_result_v1('y', 10::smallint, '1', null)")
    assert list(waiting.result(SOON_S)) == ["y"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_connection_that_listens_and_breaks_costs_no_result(
    when: str, hearing: Client, admin: psycopg.Connection, pool: ThreadPoolExecutor
):
    def cut() -> None:
        admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and query like 'listen %'"
        )

    if when == "before":
        cut()
    waiting = pool.submit(hearing.wait, ["x"], LONG_S)
    wait_for(lambda: "x" in waiters(admin))
    if when == "meanwhile":
        cut()
    other = Client(hearing.config)
    other.put_result("x", State.COMPLETED, b"1")
    other.close()
    assert waiting.result(SOON_S)["x"].result == b"1"


def test_a_database_that_is_away_is_told_at_the_first_look(
    hearing: Client, fresh_dsn: str, admin: psycopg.Connection, pool: ThreadPoolExecutor
):
    name = admin.info.dbname
    with psycopg.connect(fresh_dsn, autocommit=True) as elsewhere:
        admin.close()
        elsewhere.execute(f"alter database {name} allow_connections false")
        try:
            elsewhere.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name]
            )
            with pytest.raises(results.DatabaseUnavailable):
                pool.submit(hearing.wait, ["x"], LONG_S).result(SOON_S)
        finally:
            elsewhere.execute(f"alter database {name} allow_connections true")
