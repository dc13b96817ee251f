"""Workers that are cut off: no run overlaps with another one of its job, and none is lost.

Promises P7, P9 of docs/guarantees.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from pgcelery.engine import Client, EngineConfig, Gate, Job, Outcome, State
from pgcelery.engine.lease import Lease
from pgcelery.engine.pool import PreforkPool, ThreadPool
from tests.support.jobs import Recorder, new_job, running
from tests.support.relays import Notes, Proxy, rows
from tests.support.wait import wait_for

pytestmark = pytest.mark.fault

FAST = {"lease_s": 2.0, "heartbeat_s": 0.25, "maintain_s": 0.2}


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
def proxy(dsn: str, tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(dsn, tmp_path)
    yield proxy
    proxy.close()


@pytest.fixture
def config(client: Client) -> EngineConfig:
    return replace(client.config, relay=False, **FAST)


def cut(proxy: Proxy, config: EngineConfig) -> EngineConfig:
    """The configuration of a worker that reaches the database by the proxy."""
    return replace(config, dsn=proxy.dsn)


def lease_left_s(dsn: str, name: str) -> float:
    found = rows(
        dsn,
        "select extract(epoch from lease_until - clock_timestamp()) from pgcelery.workers"
        " where name = %s",
        name,
    )
    return float(found[0][0]) if found else -1.0


def test_a_lease_counts_from_the_asking():
    lease = Lease(10.0, 100.0)
    lease.asked(105.0)
    assert lease.safe_until == 108.0
    lease.renewed()  # however late the answer is
    assert lease.safe_until == 113.0
    assert lease.safe(112.9)
    assert not lease.safe(113.1)
    lease.bury()
    assert not lease.safe(105.0)


def test_a_run_that_another_may_begin_is_killed_before_the_lease_ends(
    dsn: str, client: Client, config: EngineConfig, notes: Notes, proxy: Proxy
):
    """Then it is begun once more, without having overlapped; the worker comes back and works."""
    job = new_job(b"hold", name="late", max_deliveries=5)
    pool = PreforkPool(1)
    with running(cut(proxy, config), notes, pool=pool, name="cut") as worker:
        client.enqueue([job])
        wait_for(lambda: notes.begun(job.id))
        first = worker.registration
        pid = pool.children()[0].pid
        proxy.hold = "answers"
        with running(config, notes, pool=PreforkPool(1), name="other"):
            wait_for(lambda: all(child.pid != pid for child in pool.children()))
            assert lease_left_s(dsn, "cut") > 0
            assert notes.ran() == [job.id]
            wait_for(lambda: notes.ran() == [job.id] * 2)
            proxy.hold = ""
            wait_for(lambda: worker.registration not in (None, first))
            notes.release(job.id)
            assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
            assert client.job(job.id).max_deliveries == 5
        after = new_job(b"ok")
        client.enqueue([after])
        assert client.wait([after.id], 10)[after.id].state is State.COMPLETED
    assert notes.losses == {}
    assert notes.late_outcomes == []
    assert rows(dsn, "select from pgcelery.late") == []


def test_what_is_begun_once_and_holds_nothing_outlives_an_outage(
    dsn: str, client: Client, config: EngineConfig, notes: Notes, proxy: Proxy
):
    """Its worker is back before another one looks; what was killed is given back uncounted."""
    once, again = new_job(b"hold", name="once"), new_job(b"hold", name="late", max_deliveries=5)
    with running(cut(proxy, config), notes, pool=PreforkPool(2), name="cut") as worker:
        client.enqueue([once, again])
        wait_for(lambda: len(notes.ran()) == 2)
        first = worker.registration
        proxy.hold = "answers"
        wait_for(lambda: not worker._node.lease.safe(time.monotonic()))
        proxy.hold = ""
        wait_for(lambda: notes.ran().count(again.id) == 2)
        assert worker.registration == first
        assert rows(dsn, "select delivery from pgcelery.running where job_id = %s", again.id) == [
            (1,)
        ]
        for job in (once, again):
            notes.release(job.id)
            assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
    assert notes.ran().count(once.id) == 1


def test_what_holds_a_slot_is_killed_and_ended_though_it_is_begun_once(
    dsn: str, client: Client, config: EngineConfig, notes: Notes, proxy: Proxy
):
    job = new_job(b"hold", name="once", gates=(Gate("limit", "", 1),))
    with running(cut(proxy, config), notes, pool=PreforkPool(1), name="cut") as worker:
        client.enqueue([job])
        wait_for(lambda: notes.begun(job.id))
        proxy.hold = "answers"
        wait_for(lambda: job.id in notes.losses)
        assert lease_left_s(dsn, "cut") > 0
        proxy.hold = ""
        assert client.wait([job.id], 10)[job.id].result == b"lease_lost"
        assert worker.ready.is_set()
    assert notes.ran() == [job.id]


def test_a_worker_can_be_told_to_finish(
    client: Client, config: EngineConfig, notes: Notes, proxy: Proxy
):
    job = new_job(b"hold", name="late", max_deliveries=5)
    lenient = replace(cut(proxy, config), lease_lost="finish")
    with running(lenient, notes, pool=PreforkPool(1), name="cut") as worker:
        client.enqueue([job])
        wait_for(lambda: notes.begun(job.id))
        proxy.hold = "answers"
        wait_for(lambda: not worker._node.lease.safe(time.monotonic()))
        proxy.hold = ""
        wait_for(lambda: worker._node.lease.safe(time.monotonic()))
        notes.release(job.id)
        assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
    assert notes.ran() == [job.id]
    with pytest.raises(ValueError, match="kill or finish"):
        replace(config, lease_lost="other")


def test_a_thread_goes_on_and_what_it_comes_to_is_refused(
    dsn: str,
    client: Client,
    config: EngineConfig,
    proxy: Proxy,
    caplog: pytest.LogCaptureFixture,
):
    go = threading.Event()

    def wait(job: Job) -> Outcome:
        if job.delivery == 1:
            go.wait(30)
        return Outcome(job.id, job.token, State.COMPLETED, b"%d" % job.delivery)

    handler, other = Recorder(wait=wait), Recorder(wait=wait)
    job = new_job(b"wait", max_deliveries=5)
    with running(cut(proxy, config), handler, pool=ThreadPool(1), name="cut"):
        client.enqueue([job])
        wait_for(lambda: handler.ran)
        proxy.hold = "answers"
        with running(config, other, name="other"):
            assert client.wait([job.id], 10)[job.id].result == b"2"
        said = [r for r in caplog.records if getattr(r, "action", "") == "fence.goes_on"]
        assert len(said) == 1
        proxy.hold = ""
        go.set()
        wait_for(lambda: handler.late_outcomes)
    assert handler.late_outcomes == [(job.id, "already finished")]
    assert client.results([job.id])[job.id].result == b"2"


def test_a_worker_that_was_buried_kills_what_it_runs(
    dsn: str, client: Client, config: EngineConfig, notes: Notes
):
    """Nothing of it can be recorded any more, whoever may begin it."""
    job = new_job(b"hold", name="once")
    pool = PreforkPool(1)
    with running(config, notes, pool=pool) as worker:
        client.enqueue([job])
        wait_for(lambda: notes.begun(job.id))
        pid, first = pool.children()[0].pid, worker.registration
        rows_deleted(dsn, "delete from pgcelery.workers")
        wait_for(lambda: all(child.pid != pid for child in pool.children()))
        assert client.wait([job.id], 10)[job.id].result == b"worker_lost"
        wait_for(lambda: worker.registration not in (None, first))
    assert notes.ran() == [job.id]
    assert rows(dsn, "select from pgcelery.late") == []


def rows_deleted(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(statement)


@pytest.mark.parametrize("most", [1, 5])
def test_a_cancel_reaches_a_run_whose_worker_is_cut_off(
    dsn: str, client: Client, config: EngineConfig, notes: Notes, proxy: Proxy, most: int
):
    """It ends as cancelled without its worker; that one kills it when it can, and is refused."""
    job = new_job(b"hold", name="late" if most > 1 else "once", max_deliveries=most)
    pool = PreforkPool(1)
    with running(cut(proxy, config), notes, pool=pool, name="cut"):
        client.enqueue([job])
        wait_for(lambda: notes.begun(job.id))
        pid = pool.children()[0].pid
        proxy.hold = "answers"
        assert client.cancel([job.id], terminate=True) == {job.id: State.RUNNING}
        asked = time.monotonic()
        # It serves no queue of the job, so that only upkeep can end it.
        with running(config, notes, pool=PreforkPool(1), name="other", queues=("else",)):
            found = client.wait([job.id], 10)[job.id]
            assert time.monotonic() - asked < config.lease_s + 2 * config.maintain_s + 1
            assert found.result == b"cancelled"
            proxy.hold = ""
            wait_for(lambda: all(child.pid != pid for child in pool.children()))
    assert notes.ran() == [job.id]
    assert rows(dsn, "select from pgcelery.cancels") == []
    assert client.results([job.id])[job.id].result == b"cancelled"


def test_an_outage_buries_nobody_who_comes_back(dsn: str, client: Client, config: EngineConfig):
    """Whoever is back first does not take the runs of those that are on their way."""
    slow = replace(config, maintain_s=0.5)
    job = new_job(b"wait")
    go = threading.Event()

    def wait(job: Job) -> Outcome:
        go.wait(30)
        return Outcome(job.id, job.token, State.COMPLETED)

    handler = Recorder(wait=wait)
    with closing(Client(slow)) as other, running(slow, handler, pool=ThreadPool(1)) as worker:
        other.enqueue([job])
        wait_for(lambda: handler.ran)
        first = worker.registration
        # As if all leases had run out while the server was away, and this one is back first.
        with psycopg.connect(dsn) as conn:
            conn.execute(
                "insert into pgcelery.workers (name, host, pid, queues, info, started_at,"
                " lease_until) values ('first', 'h', 1, '{}', '{}', now() - interval '1 day',"
                " now() + interval '1 h')"
            )
            conn.execute("update pgcelery.leases set until = now() - interval '1 minute'")
            conn.execute(
                "update pgcelery.workers set lease_until = now() - interval '1 s'"
                " where name <> 'first'"
            )
            found = conn.execute(
                "select kind, priority from pgcelery.maintain_v2("
                "(select id from pgcelery.workers where name = 'first'), 5, 10)"
            ).fetchall()
        assert found == [(7, 0)]
        go.set()
        assert other.wait([job.id], 10)[job.id].state is State.COMPLETED
        assert worker.registration == first
    assert handler.late_outcomes == []


def test_who_was_silent_is_named_with_the_verdict(dsn: str, client: Client, config: EngineConfig):
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "insert into pgcelery.workers (name, host, pid, queues, info, lease_until)"
            " values ('gone@host', 'h', 4711, '{}', '{}', now() - interval '1 s')"
        )
    job = new_job()
    client.enqueue([job])
    rows_deleted(
        dsn,
        "with r as (delete from pgcelery.ready returning *) insert into pgcelery.running (token,"
        " job_id, worker_id, queue_id, delivery, flags) select nextval('pgcelery.tokens'), job_id,"
        " (select max(id) from pgcelery.workers), queue_id, 1, flags from r",
    )
    handler = Recorder()
    with running(config, handler):
        assert client.wait([job.id], 10)
    assert [(why.kind, why.detail) for _, why in handler.lost_jobs] == [
        ("worker_lost", "worker gone@host (pid 4711) fell silent")
    ]
