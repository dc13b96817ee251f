"""Jobs that are handed to idle workers by who sends them, and those that go the other way.

Promises P1, P7, P8, P10 of docs/guarantees.md.
"""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate, Job, NewJob, Outcome, State, telling
from pgcelery.engine.database import load
from pgcelery.engine.pool import ThreadPool
from tests.support.jobs import Recorder, new_job, running
from tests.support.nodes import SimNode, call, connect
from tests.support.relays import chain_of, rows
from tests.support.wait import wait_for

CHANNEL = "pgcelery.a-node-of-these-tests"


class Offering(SimNode):
    """A node without a process that listens, and offers when it is told to."""

    def stand(self, *, listens: bool = True) -> None:
        self.conn.execute(f'listen "{CHANNEL}"')
        if listens:
            assert call(self.conn, "stand", [CHANNEL]) == [(True,)]

    def offer(self, many: int = 1, for_s: float = 60.0) -> list[int]:
        ids = list(self.territory.queues.values())
        return [
            token for token, _ in call(self.conn, "offer", [self.id, CHANNEL, ids, many, for_s])
        ]

    def heard(self) -> list[list[Any]]:
        return [json.loads(one.payload) for one in self.conn.notifies(timeout=0.5, stop_after=1)]


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect(dsn)) as conn:
        yield conn


@pytest.fixture
def node(client: Client, conn: psycopg.Connection[Any]) -> Offering:
    return Offering(client, conn, "n", ["q"])


def where(dsn: str, job_id: str) -> list[str]:
    """Name the tables that hold a job."""
    tables = ("ready", "running", "scheduled")
    return [one for one in tables if (job_id,) in rows(dsn, f"select job_id from pgcelery.{one}")]  # noqa: S608


def do(dsn: str, statement: str, *params: Any) -> None:
    with psycopg.connect(dsn) as conn:
        conn.execute(statement, params)


def send(conn: psycopg.Connection[Any], job: NewJob, queue_id: int) -> int:
    """Enqueue as a client does, in this connection's transaction; give the answer."""
    statement = (
        "select pgcelery.enqueue_one_v2(%s, %s, 0::smallint, 'test', %s, null, %s::smallint, 60,"
        " 0::smallint)"
    )
    params = [job.id, queue_id, job.payload, job.max_deliveries]
    ((answer,),) = conn.execute(statement, params).fetchall()
    return int(answer)


# -- the function ---------------------------------------------------------------------------------

HANDED = {
    "nothing said": {},
    "names that need quoting": {"id": "a'\"\\ %s{},é", "name": 'näme\n%"', "queue": "q"},
    "any bytes": {"payload": bytes(range(256)) * 4},
    "no bytes": {"payload": b""},
    "of any priority": {"priority": 32767},
    "at least once": {"max_deliveries": 100_000},
    "awaited": {"awaited": True},
    "expires": {"expires_at": datetime(2999, 1, 1, tzinfo=UTC)},
}


@pytest.mark.parametrize("options", HANDED.values(), ids=HANDED)
def test_a_job_goes_to_who_offers_and_is_all_in_the_notification(
    client: Client, dsn: str, node: Offering, options: dict[str, Any]
):
    node.stand()
    (token,) = node.offer()
    job = new_job(**options)
    assert client.enqueue([job]) == {}
    (heard,) = node.heard()
    flags = rows(dsn, "select flags & 1 from pgcelery.jobs where id = %s", job.id)[0][0]
    queue_id = client.intern(["q"])["q"]
    assert heard[:4] == [token, job.id, queue_id, job.name]
    assert b64decode(heard[4]) == job.payload
    assert heard[5:] == [job.priority, flags]
    columns = "token, job_id, worker_id, queue_id, delivery, flags"
    running_now = rows(dsn, f"select {columns} from pgcelery.running")  # noqa: S608
    assert running_now == [(token, job.id, node.id, queue_id, 1, flags)]
    assert where(dsn, job.id) == ["running"]
    assert rows(dsn, "select * from pgcelery.offers") == []


def _paused(client: Client, dsn: str, node: Offering, job: NewJob) -> None:
    client.pause("q")


def _waits_before(client: Client, dsn: str, node: Offering, job: NewJob) -> None:
    client.enqueue([new_job(), new_job()])  # two in one call are not handed over


def _cancelled(client: Client, dsn: str, node: Offering, job: NewJob) -> None:
    client.cancel([job.id])


def _past(client: Client, dsn: str, node: Offering, job: NewJob) -> None:
    do(dsn, "update pgcelery.offers set until = now() - interval '1 ms'")


def _lease_over(client: Client, dsn: str, node: Offering, job: NewJob) -> None:
    do(dsn, "delete from pgcelery.offers")
    do(dsn, "update pgcelery.workers set lease_until = now() where id = %s", node.id)
    node.offer(for_s=3600)


def _withdrawn(client: Client, dsn: str, node: Offering, job: NewJob) -> None:
    node.conn.execute(load("nodes/withdraw", "pgcelery").replace(b"$1", b"%s"), [node.id])


def _gone(client: Client, dsn: str, node: Offering, job: NewJob) -> None:
    node.conn.execute("select pg_advisory_unlock_all()")


def _nothing(client: Client, dsn: str, node: Offering, job: NewJob) -> None: ...


OTHERWISE = {
    "its queue is paused": (_paused, {}),
    "others wait before it": (_waits_before, {}),
    "it was cancelled before": (_cancelled, {}),
    "the offer is past its time": (_past, {}),
    "its worker's lease is over": (_lease_over, {}),
    "it was withdrawn": (_withdrawn, {}),
    "its worker's connection has ended": (_gone, {}),
    "it has expired": (_nothing, {"expires_at": datetime(1999, 1, 1, tzinfo=UTC)}),
    "it is too long to tell": (_nothing, {"payload": b"x" * 5000}),
    "it is too long to tell, encoded": (_nothing, {"payload": b"x" * 4990, "name": "\x01" * 255}),
    "its queue is another": (_nothing, {"queue": "other"}),
    "it waits for a time": (_nothing, {"delay_s": 60.0}),
}


@pytest.mark.parametrize(("before", "options"), OTHERWISE.values(), ids=OTHERWISE)
def test_it_is_not_handed_over_where(
    client: Client, dsn: str, node: Offering, before: Any, options: dict[str, Any]
):
    node.stand()
    node.offer()
    job = new_job(**options)
    try:
        before(client, dsn, node, job)
        assert client.enqueue([job]) == {}
        (place,) = where(dsn, job.id)
        assert place in ("ready", "scheduled")
        assert node.heard() == []
    finally:
        client.resume("q")


def test_an_id_that_exists_takes_no_offer(client: Client, dsn: str, node: Offering):
    node.stand()
    job = new_job()
    client.enqueue([job])
    client.purge(["q"])
    client.enqueue([again := new_job()])
    (kept,) = node.offer()
    assert client.enqueue([again]) == {again.id: again.id}
    assert rows(dsn, "select token from pgcelery.offers") == [(kept,)]


def test_the_newest_offer_goes_first_and_each_once(client: Client, dsn: str, node: Offering):
    node.stand()
    tokens = node.offer(3)
    jobs = [new_job() for _ in range(4)]
    for job in jobs:
        client.enqueue([job])
    taken = dict(rows(dsn, "select job_id, token from pgcelery.running"))
    assert [taken.get(job.id) for job in jobs] == [*sorted(tokens, reverse=True), None]


def test_producers_at_once_take_different_offers(client: Client, dsn: str, node: Offering):
    """One that is being taken is passed over, and comes back if that is undone."""
    node.stand()
    low, high = node.offer(2)
    queue_id = client.intern(["q"])["q"]
    with psycopg.connect(dsn) as other:
        assert send(other, new_job(), queue_id) == 2
        client.enqueue([job := new_job()])
        assert rows(dsn, "select token, job_id from pgcelery.running") == [(low, job.id)]
        other.rollback()
    client.enqueue([later := new_job()])
    assert rows(dsn, "select job_id from pgcelery.running where token = %s", high) == [(later.id,)]


def test_slow_looks_are_left_alone_for_a_while(client: Client, dsn: str, node: Offering):
    """What decides that is in the session: it is told that a look was slow before."""
    node.stand()
    node.offer(2)
    queue_id = client.intern(["q"])["q"]
    answers = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        for setting in ("9999999999", "1", "once"):
            conn.execute("select set_config('pgcelery_claims.offers', %s, false)", [setting])
            answers.append(send(conn, new_job(), queue_id))
            client.purge(["q"])
    assert answers == [0, 2, 2]


# -- workers --------------------------------------------------------------------------------------


def offers(dsn: str) -> list[int]:
    return [token for (token,) in rows(dsn, "select token from pgcelery.offers order by token")]


def offered(dsn: str, many: int = 1) -> list[int]:
    return wait_for(lambda: (found := offers(dsn)) and len(found) == many and found)


class Gated(Recorder):
    """Bodies that wait until they are let go."""

    def __init__(self) -> None:
        super().__init__(hold=self._hold)
        self.go = threading.Event()
        self.begun: list[str] = []  # as far as the pool was given them

    def received(self, jobs: list[Job]) -> None:
        self.begun += [job.id for job in jobs]

    def _hold(self, job: Job) -> Outcome:
        self.go.wait(30)
        return Outcome(job.id, job.token, State.COMPLETED, b"held")


def test_an_idle_worker_is_handed_one_job_after_the_other(client: Client, dsn: str):
    """Its offers are replaced as they are taken, not with the next beat."""
    config = replace(client.config, heartbeat_s=60.0, lease_s=240.0)
    with running(config, recorder := Recorder(), pool=ThreadPool(2)):
        known = set(offered(dsn, 2))
        for _ in range(5):
            client.enqueue([job := new_job()])
            assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
            ((token,),) = rows(dsn, "select token from pgcelery.results where id = %s", job.id)
            assert token in known
            known = set(offered(dsn, 2)) | known
    assert len(recorder.ran) == 5
    assert offers(dsn) == []
    assert rows(dsn, "select * from pgcelery.running") == []


def test_a_worker_offers_what_it_has_room_for(client: Client, dsn: str):
    recorder = Gated()
    with running(client.config, recorder, pool=ThreadPool(2)) as worker:
        offered(dsn, 2)
        first, second, third = (new_job(b"hold") for _ in range(3))
        client.enqueue([first])
        wait_for(lambda: first.id in recorder.ran)
        client.enqueue([second])
        wait_for(lambda: second.id in recorder.ran)
        wait_for(lambda: offers(dsn) == [])
        client.enqueue([third])
        assert where(dsn, third.id) == ["ready"]
        assert worker.registration is not None
        recorder.go.set()
        for job in (first, second, third):
            assert client.wait([job.id], 10)[job.id].result == b"held"
        offered(dsn, 2)
    assert recorder.ran == [first.id, second.id, third.id]


def test_what_it_is_handed_without_room_goes_back_uncounted(client: Client, dsn: str):
    recorder, pool = Gated(), ThreadPool(1)
    with running(client.config, recorder, pool=pool):
        offered(dsn)
        ((worker_id, channel),) = rows(dsn, "select worker_id, channel from pgcelery.offers")
        first, second = new_job(b"hold"), new_job(b"hold", max_deliveries=1)
        client.enqueue([first])
        wait_for(lambda: first.id in recorder.ran and pool.capacity() == 0 and offers(dsn) == [])
        values = "%s, nextval('pgcelery.tokens'), %s, %s, now() + interval '1 minute'"
        queue_id = client.intern(["q"])["q"]
        do(dsn, f"insert into pgcelery.offers select {values}", queue_id, worker_id, channel)
        client.enqueue([second])
        assert offers(dsn) == []
        wait_for(lambda: where(dsn, second.id) == ["ready"])
        assert recorder.begun == [first.id]
        recorder.go.set()
        assert client.wait([second.id], 10)[second.id].result == b"held"
    assert recorder.ran == [first.id, second.id]
    assert recorder.lost_jobs == []


def test_a_worker_that_is_told_to_stop_or_drain_takes_its_offers_back(client: Client, dsn: str):
    recorder = Recorder()
    with running(client.config, recorder, pool=ThreadPool(1)) as worker:
        offered(dsn)
        worker.drain()
        wait_for(lambda: offers(dsn) == [])
        client.enqueue([job := new_job()])
        assert where(dsn, job.id) == ["ready"]
        worker.undrain()
        assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
        offered(dsn)
        worker.set_rates({"slow": 1.0})
        wait_for(lambda: offers(dsn) == [])
        worker.set_rates({})
        offered(dsn)
    assert offers(dsn) == []


def taken_meanwhile(dsn: str, job: NewJob, queue_id: int) -> psycopg.Connection[Any]:
    """Take an offer in a transaction that is left open."""
    conn = psycopg.connect(dsn)
    assert send(conn, job, queue_id) == 2
    return conn


def waits(dsn: str, statement: str) -> bool:
    query = "select wait_event_type from pg_stat_activity where query like %s and state = 'active'"
    return ("Lock",) in rows(dsn, query, f"%{statement}%")


def test_a_job_that_is_handed_over_as_the_worker_leaves_goes_back(client: Client, dsn: str):
    recorder = Recorder()
    job = new_job(max_deliveries=1)
    with running(client.config, recorder, pool=ThreadPool(1)) as worker:
        offered(dsn)
        with closing(taken_meanwhile(dsn, job, client.intern(["q"])["q"])) as conn:
            worker.stop()
            wait_for(lambda: waits(dsn, "reclaim_v3"))
            conn.commit()
            assert worker.stopped.wait(20)
    assert where(dsn, job.id) == ["ready"]
    assert recorder.ran == []


def test_a_job_that_is_handed_to_a_connection_that_broke_runs_once(client: Client, dsn: str):
    """It was taken before the connection broke and is committed after."""
    recorder = Recorder()
    job = new_job(max_deliveries=1)
    with running(client.config, recorder, pool=ThreadPool(1)):
        offered(dsn)
        with closing(taken_meanwhile(dsn, job, client.intern(["q"])["q"])) as conn:
            held = "select pid from pg_locks where classid = 1885823845 and mode = 'ExclusiveLock'"
            ((pid,),) = rows(dsn, f"{held} and locktype = 'advisory' and objsubid = 2")
            rows(dsn, "select pg_terminate_backend(%s)", pid)
            wait_for(lambda: waits(dsn, "reclaim_v3"))
            conn.commit()
        assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
        offered(dsn)
    assert recorder.ran == [job.id]
    assert (recorder.lost_jobs, recorder.late_outcomes) == ([], [])


def test_offers_are_renewed_with_the_lease_and_made_anew_when_they_are_gone(
    client: Client, dsn: str
):
    config = replace(client.config, heartbeat_s=0.1)
    with running(config, Recorder(), pool=ThreadPool(1)):
        offered(dsn)
        ((until,),) = rows(dsn, "select until from pgcelery.offers")
        wait_for(lambda: rows(dsn, "select until from pgcelery.offers")[0][0] > until)
        do(dsn, "truncate pgcelery.offers")  # as a crash of the server does
        offered(dsn)


@pytest.mark.parametrize("led", [False, True], ids=["alone", "leads others"])
def test_a_job_that_nobody_was_handed_is_told_of(
    client: Client, dsn: str, monkeypatch: pytest.MonkeyPatch, led: bool
):
    """However soon after one that was: of that nobody was told, and a poll would take a minute."""
    monkeypatch.setattr(telling, "_TELL_EVERY_S", 20.0)
    config = replace(client.config, poll_min_s=60.0, poll_max_s=60.0)
    busy, other = Gated(), Recorder()
    with running(config, busy, pool=ThreadPool(1)):
        offered(dsn)
        with running(replace(config, offers=False), other, pool=ThreadPool(1), name="other"):
            first, second = new_job(b"hold"), new_job()
            client.enqueue([first, new_job(parents=(first.id,))] if led else [first])
            wait_for(lambda: first.id in busy.ran)
            client.enqueue([second])
            assert client.wait([second.id], 20)[second.id].state is State.COMPLETED
            assert other.ran == [second.id]
            busy.go.set()


def test_only_its_own_channel_hands_jobs_to_a_worker(client: Client, dsn: str):
    recorder = Recorder()
    with running(client.config, recorder, pool=ThreadPool(1)):
        (token,) = offered(dsn)
        forged = json.dumps([token, "forged", client.intern(["q"])["q"], "test", "", 0, 0])
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("select pg_notify('pgcelery', %s)", [forged])
        client.enqueue([job := new_job()])
        assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
    assert recorder.ran == [job.id]


@pytest.mark.parametrize("options", [{"offers": False}, {"listen": False}], ids=str)
def test_a_worker_that_may_not_or_cannot_offers_nothing(
    client: Client, dsn: str, options: dict[str, Any]
):
    recorder = Recorder()
    with running(replace(client.config, **options), recorder, pool=ThreadPool(1)):
        for _ in range(3):
            client.enqueue([job := new_job()])
            assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
            assert offers(dsn) == []


def test_the_first_of_jobs_that_wait_for_one_another_is_handed_over(
    client: Client, dsn: str, node: Offering
):
    node.stand()
    (token,) = node.offer()
    jobs = chain_of(["a", "b", "c"])
    assert client.enqueue(jobs) == {}
    (heard,) = node.heard()
    assert heard[:2] == [token, "a"]
    assert heard[6] == 1
    assert rows(dsn, "select token, job_id, flags from pgcelery.running") == [(token, "a", 1)]
    assert [where(dsn, job.id) for job in jobs] == [["running"], [], []]


def test_a_first_one_that_is_there_already_is_not(client: Client, dsn: str, node: Offering):
    """It has been delivered once, which another delivery has to count."""
    jobs = chain_of(["a", "b"])
    client.enqueue(jobs)
    do(dsn, "update pgcelery.ready set deliveries = 1")
    node.stand()
    kept = node.offer()
    assert client.enqueue(jobs) == {"a": "a", "b": "b"}
    assert rows(dsn, "select job_id, deliveries from pgcelery.ready") == [("a", 1)]
    assert offers(dsn) == kept


@pytest.mark.parametrize(
    "options", [{"delay_s": 60.0}, {"gates": (Gate("k", slots=1),)}], ids=["a time", "a slot"]
)
def test_a_first_one_that_waits_for_something_is_not(
    client: Client, dsn: str, node: Offering, options: dict[str, Any]
):
    node.stand()
    kept = node.offer()
    first, second = new_job(awaited=True, **options), new_job()
    client.enqueue([first, second._replace(parents=(first.id,))])
    assert where(dsn, first.id) != ["running"]
    assert offers(dsn) == kept
