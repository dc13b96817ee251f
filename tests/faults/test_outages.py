"""The database goes away in all the ways it can: nobody crashes, spins, leaks or loses a result.

Promise P21 of docs/guarantees.md.
"""

from __future__ import annotations

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgcelery.engine import Client, DatabaseUnavailable, EngineConfig, Job, Outcome, State
from pgcelery.engine.session import Session
from tests.faults import failing
from tests.faults.failing import Forked
from tests.support.jobs import Recorder, new_job, running
from tests.support.relays import Notes, Proxy, TellingPool, at_work, chain_of, rows
from tests.support.wait import wait_for

pytestmark = pytest.mark.fault


@pytest.fixture
def proxy(dsn: str, tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(dsn, tmp_path)
    yield proxy
    proxy.close()


def run(dsn: str, *statements: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set default_transaction_read_only = off")
        for statement in statements:
            conn.execute(statement)


@contextmanager
def reads_only(dsn: str, who: str = "true") -> Iterator[None]:
    """As a primary that became a standby: new connections cannot write, and old ones are cut."""
    with psycopg.connect(dsn) as conn:
        name = conn.info.dbname

    def turn(word: str) -> None:
        alter = sql.SQL("alter database {} set default_transaction_read_only = {}")
        text = alter.format(sql.Identifier(name), sql.SQL(word)).as_string(None)
        kill = (
            "select pg_terminate_backend(pid) from pg_stat_activity"  # noqa: S608
            f" where datname = current_database() and pid <> pg_backend_pid() and {who}"
        )
        run(dsn, text, *([kill] if word == "on" else []))

    turn("on")
    try:
        yield
    finally:
        turn("off")


@contextmanager
def refusing(dsn: str, state: str) -> Iterator[Callable[[], int]]:
    """Results cannot be written, for a reason that the server may have; counts how often."""
    run(
        dsn,
        "create sequence public.refusals",
        f"""create function public.refuse() returns trigger language plpgsql as $$ begin
            perform nextval('public.refusals');
            raise exception 'refused' using errcode = '{state}'; end $$""",
        "create trigger refuse before insert on pgcelery.results"
        " for each row execute function public.refuse()",
    )

    def count() -> int:
        return rows(
            dsn, "select case when is_called then last_value else 0 end from public.refusals"
        )[0][0]

    try:
        yield count
    finally:
        run(
            dsn,
            "drop trigger if exists refuse on pgcelery.results",
            "drop function public.refuse()",
            "drop sequence public.refusals",
        )


def restore(dsn: str) -> None:
    run(dsn, "drop trigger refuse on pgcelery.results")


@pytest.mark.parametrize(
    "state", ["25006", "25P03", "40001", "40P01", "53100", "53300", "55P03", "57014", "57P03"]
)
def test_a_worker_keeps_what_the_server_refuses_for_a_while(dsn: str, client: Client, state: str):
    handler = Recorder()
    jobs = [new_job(b"%d" % n) for n in range(5)]
    with running(client.config, handler) as worker:
        with refusing(dsn, state) as count:
            client.enqueue(jobs)
            wait_for(lambda: count() >= 2)
            restore(dsn)
            ids = [job.id for job in jobs]
            wait_for(lambda: len(client.results(ids)) == 5)
        found = client.results(ids)
        assert worker.registration is not None
    assert [found[job.id].result for job in jobs] == [b"%d" % n for n in range(5)]
    assert sorted(handler.ran) == sorted(ids)
    assert handler.late_outcomes == []


def test_a_worker_leaves_a_server_that_only_reads(dsn: str, client: Client):
    """On a connection that it kept it could never write again."""
    go = threading.Event()

    def hold(job: Job) -> Outcome:
        go.wait(30)
        return Outcome(job.id, job.token, State.COMPLETED, b"kept")

    handler = Recorder(hold=hold)
    held, after = new_job(b"hold"), new_job()
    config = replace(client.config, heartbeat_s=0.2)
    with running(config, handler) as worker:
        client.enqueue([held])
        wait_for(lambda: handler.ran)
        registration = worker.registration
        with reads_only(dsn):
            wait_for(lambda: worker._node._reconnect_s > 0.15)  # it was there twice
            go.set()
            with pytest.raises(DatabaseUnavailable):
                client.enqueue([after])
            with pytest.raises(DatabaseUnavailable):
                client.enqueue([after])
        client.enqueue([after])
        assert client.wait([after.id], 20)[after.id].state is State.COMPLETED
        assert client.wait([held.id], 20)[held.id].result == b"kept"
        assert worker.registration == registration


def test_a_pool_process_leaves_a_server_that_only_reads(
    dsn: str, client: Client, proxy: Proxy, tmp_path: Path
):
    notes, pool = Notes(tmp_path), TellingPool(1, via=proxy)
    with at_work(replace_heart(client), notes, pool):
        relay = "application_name = 'pgcelery relay'"
        names = (f"refused-{n}" for n in itertools.count())
        with reads_only(dsn, who=relay):  # the node's connection is older, and can write
            before = proxy.accepted  # each connection that is refused is left for another
            wait_for(lambda: go_through_a_chain(client, next(names)) or proxy.accepted > before + 1)
        pool.steps.clear()
        # Its pauses between attempts have grown by now, to ten seconds at the most.
        wait_for(lambda: pool.steps or go_through_a_chain(client, next(names)), 45)


def go_through_a_chain(client: Client, name: str) -> None:
    ids = [f"{name}-{n}" for n in range(3)]
    client.enqueue(chain_of(ids))
    assert client.wait(ids[-1:], 20)


def replace_heart(client: Client) -> Client:
    client.config = replace(client.config, heartbeat_s=0.2)
    return client


def test_a_connection_whose_other_end_is_gone_is_noticed_long_before_the_lease_ends(
    dsn: str, client: Client, proxy: Proxy, caplog: pytest.LogCaptureFixture
):
    config = replace(client.config, dsn=proxy.dsn, lease_s=12.0, heartbeat_s=0.2)
    handler = Recorder()
    with running(config, handler) as worker:
        before = worker.registration
        proxy.hold = "answers"
        wait_for(lambda: proxy.held)
        at = time.monotonic()
        proxy.hold = ""  # only for new ones
        wait_for(lambda: "no answer in time" in caplog.text)
        assert time.monotonic() - at < 0.5 * config.lease_s
        job = new_job()
        client.enqueue([job])
        assert client.wait([job.id], 10)
        assert worker.registration == before


def test_connecting_takes_as_long_as_is_allowed(dsn: str, proxy: Proxy):
    """A server that accepts and says nothing, like a load balancer without a backend."""
    proxy.hold = "answers"
    session = Session(EngineConfig(dsn=proxy.dsn, connect_timeout_s=0.3))
    began = time.monotonic()

    def gave_up() -> bool:
        session.advance(time.monotonic())
        return session._reconnect_s > 0.05

    wait_for(gave_up)
    assert 0.3 <= time.monotonic() - began < 3
    session.link.close()


def test_a_statement_that_waits_for_a_lock_does_not_pile_up(
    dsn: str, client: Client, caplog: pytest.LogCaptureFixture
):
    config = replace(client.config, lease_s=10.0, heartbeat_s=0.2)
    handler = Recorder()
    job = new_job()
    with running(config, handler) as worker:
        with psycopg.connect(dsn) as conn:
            conn.execute("lock table pgcelery.results in exclusive mode")
            client.enqueue([job])
            wait_for(lambda: handler.ran)
            wait_for(lambda: worker._node.ended.waiting)  # refused, and kept
            waiting = conn.execute(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database()"
            ).fetchone()
            assert waiting is not None
            assert waiting[0] <= 2  # and upkeep
            assert "no answer in time" not in caplog.text  # the server was quicker
        assert client.wait([job.id], 20)[job.id].state is State.COMPLETED


def deadlock(dsn: str, first: str, then: str, victim: Callable[[], Any]) -> Any:
    """Lock what `first` says, let the victim wait for that, and then want what it holds."""
    found: list[Any] = []
    with psycopg.connect(dsn) as conn, psycopg.connect(dsn, autocommit=True) as look:
        before = _deadlocks(look)
        conn.execute("set deadlock_timeout = '20s'")  # so that the other one is chosen
        conn.execute(first)
        thread = threading.Thread(target=lambda: found.append(victim()))
        thread.start()
        wait_for(
            lambda: look.execute(
                "select 1 from pg_stat_activity where wait_event_type = 'Lock'"
                " and datname = current_database()"
            ).fetchone()
        )
        conn.execute(then)
        conn.rollback()
        thread.join(20)
        wait_for(lambda: _deadlocks(look) > before)
    return found[0]


def _deadlocks(conn: Any) -> int:
    conn.execute("select pg_stat_clear_snapshot()")
    return conn.execute(
        "select deadlocks from pg_stat_database where datname = current_database()"
    ).fetchone()[0]


INSERT = "insert into pgcelery.cancels (job_id, terminate, signum) values ('{}', false, 0)"


def test_a_deadlock_is_no_concern_of_who_calls(dsn: str, client: Client):
    states = deadlock(
        dsn, INSERT.format("b"), INSERT.format("a"), lambda: client.cancel(["a", "b"])
    )
    assert states == {"a": None, "b": None}
    assert rows(dsn, "select job_id from pgcelery.cancels order by 1") == [("a",), ("b",)]


def test_a_deadlock_in_a_worker_is_repeated_at_once(
    dsn: str, client: Client, caplog: pytest.LogCaptureFixture
):
    job = new_job(b"hold", id="a")
    go = threading.Event()

    def hold(job: Job) -> Outcome:
        go.wait(30)
        return Outcome(job.id, job.token, State.COMPLETED, b"once")

    handler = Recorder(hold=hold)
    with running(client.config, handler):
        client.enqueue([job])
        wait_for(lambda: handler.ran)

        def end() -> Any:
            go.set()
            return client.wait(["a"], 20)["a"]

        found = deadlock(
            dsn,
            "insert into pgcelery.results (id, state) values ('a', 3)",
            "select from pgcelery.running for update",
            end,
        )
    assert found.result == b"once"
    assert "refused" not in caplog.text
    assert handler.late_outcomes == []


def test_who_waits_for_a_result_outlives_an_outage(dsn: str, client: Client, proxy: Proxy):
    with closing(Client(replace(client.config, dsn=proxy.dsn))) as far:
        job = new_job()
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(far.wait([job.id], 30)))
        thread.start()
        wait_for(lambda: rows(dsn, "select from pgcelery.waiters"))
        with reads_only(dsn):
            pass
        client.enqueue([job])
        with running(client.config, Recorder()):
            thread.join(30)
        assert found[0][job.id].state is State.COMPLETED
        proxy.close()
        with pytest.raises(DatabaseUnavailable):
            far.wait(["other"], 30)


@contextmanager
def hanging_up() -> Iterator[tuple[int, list[float]]]:
    """A port where calls are taken and ended at once, and the times of these calls."""
    calls: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    server.accept()[0].close()
                    calls.append(time.monotonic())

        threading.Thread(target=answer, daemon=True).start()
        yield server.getsockname()[1], calls
        server.shutdown(socket.SHUT_RDWR)


def test_a_worker_that_finds_no_database_tries_less_and_less(dsn: str, tmp_path: Path):
    with hanging_up() as (port, calls):
        worker = Forked(
            failing.work, f"host=127.0.0.1 port={port} dbname=none", tmp_path, marks=tmp_path
        )
        try:
            wait_for(lambda: calls)
            _measure(worker.pid)
        finally:
            worker.kill()
        assert 2 <= len(calls) <= 10, "pauses double, from 0.05 s on"


def test_a_worker_that_may_only_read_costs_next_to_nothing(dsn: str, tmp_path: Path):
    worker = Forked(failing.work, dsn, tmp_path, marks=tmp_path)
    try:
        wait_for(lambda: rows(dsn, "select from pgcelery.workers"))
        with reads_only(dsn):
            _measure(worker.pid)
    finally:
        worker.kill()


def _measure(pid: int) -> None:
    pause = threading.Event()
    pause.wait(1.0)  # the first tries are quick ones
    before, began = _cpu_s(pid), time.monotonic()
    pause.wait(2.0)
    assert (_cpu_s(pid) - before) / (time.monotonic() - began) < 0.05
    assert len(os.listdir(f"/proc/{pid}/fd")) < 64


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
