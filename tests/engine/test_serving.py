"""Jobs that pool processes claim by themselves, one at a time, and those they must not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate, State, placement
from pgcelery.engine.pool import child
from tests.support.jobs import new_job, running
from tests.support.relays import (
    MOVING,
    Notes,
    TellingPool,
    at_work,
    chain_of,
    contents,
    rows,
    settled,
)
from tests.support.wait import wait_for

PAST = datetime.now(UTC) - timedelta(seconds=1)
IDS = [f"j{n:03}" for n in range(60)]
LIMITED = (Gate("k", slots=1),)


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that wait for a test count as short ones."""
    monkeypatch.setattr(child, "_SHORT_NS", 60 * 10**9)
    monkeypatch.setattr(child, "_LEAVE_S", 0.0)


def one_each(size: int = 1, **options: Any) -> TellingPool:
    """A pool whose children hold one job at a time."""
    return TellingPool(size, prefetch=1, **options)


def jobs_of(ids: list[str], **options: Any) -> list[Any]:
    return [new_job(b"ok", id=one, **options) for one in ids]


def claimed_by_itself(pool: TellingPool) -> list[str]:
    return [step.job.id for step in pool.steps if step.job is not None]


def test_where_children_hold_one_job_each_they_take_the_next_one_themselves(
    client: Client, dsn: str, notes: Notes
):
    pool = one_each(2)
    with at_work(client, notes, pool):
        client.enqueue(jobs_of(IDS))
        for one in IDS:
            assert client.wait([one], 10)[one].result == b">" + one.encode()
        wait_for(lambda: settled(dsn))
        wait_for(lambda: ("finished", IDS[-1]) in notes.heard)
    served = [one for one in pool.relayed() if one in IDS]
    assert len(served) > len(IDS) // 2
    assert sorted(one for one in notes.ran() if one in IDS) == IDS
    for one in IDS:
        heard = [what for what, id in notes.heard if id == one]
        assert heard == ["received", "finished"]
    tokens = rows(dsn, "select token, expires_at - finished_at from pgcelery.results")
    assert len({token for token, _ in tokens}) == len(tokens)
    assert {kept for _, kept in tokens} == {timedelta(days=1)}
    assert (notes.late_outcomes, notes.losses) == ([], {})


def test_a_pool_that_queues_ahead_leaves_claims_to_the_node(client: Client, notes: Notes):
    pool = TellingPool()
    with at_work(client, notes, pool):
        client.enqueue(jobs_of(IDS))
        for one in IDS:
            assert client.wait([one], 10)
        assert claimed_by_itself(pool) == []


def test_after_a_long_run_the_node_claims(
    client: Client, notes: Notes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(child, "_SHORT_NS", 0)
    pool = one_each()
    with at_work(client, notes, pool):
        client.enqueue(jobs_of(["a", "b", "c"]))
        assert client.wait(["c"], 10)
        assert claimed_by_itself(pool) == []


def test_with_rates_of_its_own_the_node_claims(client: Client, notes: Notes):
    pool = one_each()
    with at_work(client, notes, pool, rates={"other": 1000.0}):
        client.enqueue(jobs_of(IDS))
        for one in IDS:
            assert client.wait([one], 10)
        assert claimed_by_itself(pool) == []


def test_where_there_are_places_the_node_claims(client: Client, notes: Notes):
    """Else jobs that ask for this worker would wait for all that ask for none."""
    pool = one_each()
    with at_work(client, notes, pool, labels={"gpu": "yes"}):
        client.enqueue(jobs_of(["placed"], placement=placement.encode({"gpu": "yes"})))
        assert client.wait(["placed"], 10)
        wait_for(lambda: pool._crew.terms is not None and not pool._crew.terms.serves)
        pool.steps.clear()
        client.enqueue(jobs_of(IDS))
        for one in IDS:
            assert client.wait([one], 10)
        assert claimed_by_itself(pool) == []


def test_each_queue_has_its_turn(client: Client, notes: Notes):
    ones = [f"one-{n:02}" for n in range(20)]
    others = [f"other-{n:02}" for n in range(20)]
    client.enqueue([*jobs_of(ones, queue="q"), *jobs_of(others, queue="r")])
    with running(client.config, notes, pool=one_each(), queues=("q", "r")):  # type: ignore[arg-type]
        for one in (ones[-1], others[-1]):
            assert client.wait([one], 10)
    half = notes.ran()[:20]
    assert 8 <= len([one for one in half if one in ones]) <= 12


#: What stands behind a first job, and what becomes of it.
BEHIND = {
    "expired": (jobs_of(["b"], expires_at=PAST), State.FAILED),
    "urgent": (jobs_of(["c"], priority=5) + jobs_of(["b"]), State.COMPLETED),
    "limited": (jobs_of(["b"], gates=LIMITED), State.COMPLETED),
    "chain": (chain_of(["b", "c"]), State.COMPLETED),
    "elsewhere": (jobs_of(["b"], queue="elsewhere"), State.AVAILABLE),
    "fails": ([new_job(b"fail", id="b")], State.FAILED),
    "dies": ([new_job(b"die", id="b")], State.FAILED),
}


@pytest.mark.parametrize("case", BEHIND)
def test_what_is_no_plain_job_fares_as_it_does_with_the_node(
    client: Client, dsn: str, notes: Notes, case: str
):
    behind, state = BEHIND[case]
    with at_work(client, notes, one_each()):
        client.enqueue([new_job(b"hold", id="a")])
        wait_for(lambda: notes.begun("a"))
        client.enqueue(behind)
        notes.release("a")
        wait_for(lambda: client.job("b").state is state)
        if case != "elsewhere":
            wait_for(lambda: settled(dsn))
    assert notes.late_outcomes == []
    assert set(notes.losses) == ({"b"} if case in ("expired", "dies") else set())
    assert notes.ran().count("b") == (case not in ("expired", "elsewhere"))


@pytest.mark.parametrize(
    "case",
    [
        *("token", "worker", "lease", "paused", "cancelled", "due", "to_end", "priorities"),
        *("awaited", "gated", "empty", "line", "comer", "timer"),
    ],
)
def test_in_any_other_case_the_function_changes_nothing(client: Client, dsn: str, case: str):
    client.enqueue(jobs_of(["a"]))
    with psycopg.connect(dsn, autocommit=True) as conn:
        me, queue_id = begun(conn, "a")
        if case != "empty":
            client.enqueue(jobs_of(["b"]))
        changes = {
            "worker": "delete from pgcelery.workers",
            "lease": "update pgcelery.workers set lease_until = now() + interval '5 s'",
            "paused": "insert into pgcelery.paused (queue_id) select id from pgcelery.queues",
            "cancelled": "insert into pgcelery.cancels values ('z', false, 15)",
            "to_end": "update pgcelery.ready set queue_id = 0 where job_id = 'c'",
            "awaited": "update pgcelery.running set flags = 1",
            "gated": "update pgcelery.running set flags = 2",
            "line": "insert into pgcelery.lines"
            " (name, key, own, weight, strategy, period_s, burst, fixed) values ('k', '',"
            " row('k', '', 1, 1, 0, null, 1, 1, false, 1)::pgcelery.gate, 1, 0, 1, 1, false)",
            "timer": "insert into pgcelery.timers (queue_id, name, key, due_at)"
            " select id, 'k', '', now() + interval '1 h' from pgcelery.queues",
        }
        if case == "to_end":
            client.enqueue(jobs_of(["c"]))
        if case in changes:
            conn.execute(changes[case])
        if case == "due":
            client.enqueue(jobs_of(["c"], delay_s=3600))
            conn.execute("update pgcelery.scheduled set due_at = now()")
        if case == "priorities":
            client.enqueue(jobs_of(["c"], priority=7))
        if case == "comer":
            client.enqueue(jobs_of(["c"], gates=LIMITED))
        before = contents(dsn, *MOVING, "results", "jobs")
        row = serve(conn, me, queue_id, 7 if case == "token" else 1).fetchone()
    assert row == (None,) * 9
    assert contents(dsn, *MOVING, "results", "jobs") == before


@pytest.mark.parametrize("case", ["expired", "gated", "taken"])
def test_what_turns_out_to_be_no_plain_job_undoes_the_step(client: Client, dsn: str, case: str):
    client.enqueue(jobs_of(["a"]))
    with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn) as other:
        me, queue_id = begun(conn, "a")
        client.enqueue(jobs_of(["b"], expires_at=PAST if case == "expired" else None))
        if case == "gated":
            conn.execute("update pgcelery.ready set flags = 2")
        if case == "taken":
            other.execute("select from pgcelery.ready for update")
        before = contents(dsn, *MOVING, "results", "jobs")
        with pytest.raises(psycopg.errors.SerializationFailure):
            serve(conn, me, queue_id, 1)
    assert contents(dsn, *MOVING, "results", "jobs") == before


def test_a_job_that_was_delivered_before_says_so(client: Client, dsn: str):
    client.enqueue(jobs_of(["a"]))
    with psycopg.connect(dsn, autocommit=True) as conn:
        me, queue_id = begun(conn, "a")
        client.enqueue(jobs_of(["b"]))
        conn.execute("update pgcelery.ready set deliveries = 2")
        row = serve(conn, me, queue_id, 1).fetchone()
    assert (row[0], row[8]) == ("b", 3)
    assert rows(dsn, "select token, job_id, delivery from pgcelery.running") == [(99, "b", 3)]


def begun(conn: psycopg.Connection[Any], job_id: str) -> tuple[int, int]:
    """Let a worker have claimed a job under token 1; the worker's id and the job's queue's."""
    (me,) = conn.execute(
        "insert into pgcelery.workers (name, host, pid, queues, info, lease_until)"
        " values ('w', 'h', 1, '{}', '{}', now() + interval '1 min') returning id"
    ).fetchone()
    conn.execute("delete from pgcelery.ready")
    (queue_id,) = conn.execute(
        "insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)"
        " select 1, id, %s, queue_id, 1, flags & 3 from pgcelery.jobs where id = %s"
        " returning queue_id",
        [me, job_id],
    ).fetchone()
    return me, queue_id


def serve(conn: psycopg.Connection[Any], me: int, queue_id: int, token: int) -> Any:
    return conn.execute(
        "select * from pgcelery.serve_v1(%s, %s, 'a', 'x', null, 99, %s, 6)",
        [me, token, [queue_id]],
    )


@pytest.mark.parametrize("how", ["stop", "drain"])
def test_nothing_more_is_claimed_once_the_worker_takes_no_more(
    client: Client, notes: Notes, how: str
):
    pool = one_each()
    with at_work(client, notes, pool) as worker:
        client.enqueue([new_job(b"hold", id="a"), *jobs_of(["b"])])
        wait_for(lambda: notes.begun("a"))
        worker.stop() if how == "stop" else worker.drain()
        wait_for(lambda: pool._crew.terms is None)
        notes.release("a")
        wait_for(lambda: client.results(["a"]))
        assert client.job("b").state is State.AVAILABLE
    assert "b" not in notes.ran()


def test_a_job_that_was_claimed_by_a_child_can_be_terminated(client: Client, notes: Notes):
    pool = one_each()
    with at_work(client, notes, pool) as worker:
        client.enqueue([new_job(b"hold", id="a"), new_job(b"hold", id="b"), *jobs_of(["c"])])
        wait_for(lambda: notes.begun("a"))
        notes.release("a")
        wait_for(lambda: [one.job.id for one in worker.active()] == ["b"])
        assert "a" in pool.relayed()
        client.cancel(["b"], terminate=True)
        assert client.wait(["c"], 10)
    assert notes.losses["b"].kind == "terminated"
    assert notes.late_outcomes == []
