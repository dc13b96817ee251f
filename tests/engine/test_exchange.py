"""Enqueue by libpq itself: what it does when things are not as they should be.

Promise P2 of docs/guarantees.md.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import psycopg
import pytest

from pgcelery.engine import Client, DatabaseUnavailable, EngineConfig, NewJob, SchemaMismatch
from pgcelery.engine.link import Statement
from tests.support.wait import wait_for


@pytest.fixture
def client(dsn: str) -> Iterator[Client]:
    with Client(EngineConfig(dsn=dsn)) as client:
        yield client


@pytest.fixture
def admin(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


def job(id: str, payload: bytes = b"") -> NewJob:
    return NewJob(id=id, queue="q", name="n", payload=payload)


def backends(admin: psycopg.Connection) -> list[int]:
    rows = admin.execute(
        "select pid from pg_stat_activity where datname = current_database()"
        " and pid <> pg_backend_pid() and backend_type = 'client backend'"
    )
    return [row[0] for row in rows]


@pytest.mark.parametrize("listen", [True, False], ids=["prepared", "behind a pooler"])
def test_what_exists_is_named_and_the_rest_is_there(dsn: str, listen: bool):
    with Client(EngineConfig(dsn=dsn, listen=listen)) as client:
        assert client.enqueue([job("a", b"\0\xff"), job("ä")]) == {}
        assert client.enqueue([job("a"), job("b"), job("ä")]) == {"a": "a", "ä": "ä"}
        assert client.job("a").payload == b"\0\xff"  # type: ignore[union-attr]


def test_statements_thrown_away_by_the_server_are_prepared_anew(client: Client):
    client.enqueue([job("a")])
    with client._connections.lend() as conn:
        conn.execute("deallocate all")
    assert client.enqueue([job("a"), job("b")]) == {"a": "a"}
    assert client.counts(["q"])["q"].ready == 2


def test_a_connection_that_died_meanwhile_is_replaced(client: Client, admin: psycopg.Connection):
    client.enqueue([job("a")])
    for pid in backends(admin):
        admin.execute("select pg_terminate_backend(%s)", [pid])
    wait_for(lambda: not backends(admin))
    assert client.enqueue([job("b")]) == {}


def test_a_refusal_leaves_the_connection_usable(client: Client, admin: psycopg.Connection):
    client.enqueue([job("a")])
    before = backends(admin)
    admin.execute("alter schema pgcelery rename to elsewhere")
    with pytest.raises(SchemaMismatch, match="db migrate"):
        client.enqueue([job("b")])
    admin.execute("alter schema elsewhere rename to pgcelery")
    assert client.enqueue([job("c")]) == {}
    assert backends(admin) == before
    assert client.job("b") is None


def test_more_than_the_sockets_hold_goes_through(client: Client):
    big = [job(f"big{number}", bytes(3_000_000)) for number in range(3)]
    assert client.enqueue(big) == {}
    assert client.enqueue([*big, job("d")]) == {one.id: one.id for one in big}


def test_no_server_is_told_at_once():
    with Client(EngineConfig(dsn="postgresql://127.0.0.1:1/none")) as client:
        client._queue_ids["q"] = 1
        with pytest.raises(DatabaseUnavailable):
            client.enqueue([job("a")])


def test_an_interrupted_enqueue_is_cancelled(
    client: Client, admin: psycopg.Connection, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    client.enqueue([job("a")])
    with psycopg.connect(dsn) as other:
        other.execute("lock table pgcelery.jobs")

        def interrupt() -> None:
            waits = "select from pg_locks where not granted"
            wait_for(lambda: admin.execute(waits).fetchone() is not None)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            client.enqueue([job("b")])
        thread.join()
    assert client.enqueue([job("c")]) == {}
    assert client.job("b") is None


def telling(client: Client, text: bytes) -> None:
    """Have another statement wake the workers."""
    oids = client._sql.tell_of_one.oids
    tell = Statement(b"told otherwise", text + b" where $3::text <> ''", oids)
    client._sql = client._sql._replace(tell_of_one=tell)
    client._told_at.clear()


def test_it_returns_before_the_workers_are_woken(
    client: Client, admin: psycopg.Connection, dsn: str
):
    client.enqueue([job("a")])
    telling(client, b"select pg_advisory_xact_lock(7), pg_notify($1, $2)")
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("listen pgcelery")
        admin.execute("select pg_advisory_lock(7)")
        assert client.enqueue([job("b")]) == {}
        assert admin.execute("select from pgcelery.ready where job_id = 'b'").fetchone() is not None
        assert list(other.notifies(timeout=0)) == []
        admin.execute("select pg_advisory_unlock(7)")
        assert client.job("b") is not None  # on the same connection
        assert len(backends(admin)) == 2
        assert len(list(other.notifies(timeout=5, stop_after=1))) == 1


def test_a_waking_that_is_refused_is_nobodys_concern(client: Client, admin: psycopg.Connection):
    client.enqueue([job("a")])
    before = backends(admin)
    for text in (b"select 1 / 0, $1, $2", b"no statement $1 $2"):
        telling(client, text)
        assert client.enqueue([job(f"{text!r}")]) == {}
        assert client.job(f"{text!r}") is not None
    assert client.enqueue([job("a"), job("c")]) == {"a": "a"}
    assert backends(admin) == before


def test_a_connection_that_dies_while_it_wakes_is_replaced(
    client: Client, admin: psycopg.Connection
):
    client.enqueue([job("a")])
    telling(client, b"select pg_terminate_backend(pg_backend_pid()), $1, $2")
    assert client.enqueue([job("b")]) == {}
    telling(client, b"select pg_notify($1, $2)")
    assert client.enqueue([job("b")]) == {"b": "b"}


ENDS = {"closing": "client.close()", "exiting": "pass", "ending at once": "os._exit(0)"}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
@pytest.mark.parametrize("size", [10, 3_000_000])
def test_who_ends_right_after_it_wakes_workers_all_the_same(dsn: str, end: str, size: int):
    program = f"""
import os
from pgcelery.engine import Client, EngineConfig, NewJob
client = Client(EngineConfig(dsn=os.environ["DSN"]))
client.enqueue([NewJob("a", "q", "n", bytes({size}))])
{end}
"""
    with psycopg.connect(dsn, autocommit=True) as other:
        other.execute("listen pgcelery")
        subprocess.run([sys.executable, "-c", program], env=os.environ | {"DSN": dsn}, check=True)
        assert other.execute("select from pgcelery.ready where job_id = 'a'").fetchone() is not None
        assert len(list(other.notifies(timeout=5, stop_after=1))) == 1
