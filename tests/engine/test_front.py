"""While a snapshot is open, claims go past what was claimed and cannot be cleaned away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Outcome, State
from tests.support.jobs import new_job
from tests.support.nodes import SimNode, connect
from tests.support.wait import wait_for

DEAD = 150_000


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect(dsn)) as conn:
        yield conn


@pytest.fixture
def node(client: Client, conn: psycopg.Connection[Any]) -> SimNode:
    return SimNode(client, conn, "n", ["q"])


@pytest.fixture
def pinned(
    dsn: str, client: Client, node: SimNode, conn: psycopg.Connection[Any]
) -> Iterator[None]:
    """The queue has had many jobs, and a snapshot from before is open."""
    with psycopg.connect(dsn) as old:
        old.execute("set transaction isolation level repeatable read")
        old.execute("select count(*) from pgcelery.ready")
        queue = client.intern(["q"])["q"]
        conn.execute(
            "insert into pgcelery.ready (queue_id, priority, seq, job_id, deliveries, flags)"
            " select %s, n %% 3, -n, n::text, 0, 0 from generate_series(1, %s) n",
            [queue, DEAD],
        )
        conn.execute("delete from pgcelery.ready")
        yield


def read(conn: psycopg.Connection[Any]) -> int:
    """Entries of the index that were looked at so far."""
    conn.execute("select pg_stat_force_next_flush()")
    ((count,),) = conn.execute(
        "select idx_tup_read from pg_stat_user_indexes where indexrelname = 'ready_pkey'"
    ).fetchall()
    return int(count)


def step(node: SimNode, want: int = 1) -> list[str]:
    return [claim.job_id for claim in node.step(want).claims]


def go_past(node: SimNode) -> None:
    for _ in range(3):  # a slow look, another one, and the floors
        node.step(1)


@pytest.mark.usefixtures("pinned")
def test_a_claim_does_not_pass_what_is_gone(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    jobs = [new_job(priority=2) for _ in range(40)]
    client.enqueue(jobs)
    before = read(conn)
    assert step(node) == [jobs[0].id]
    assert read(conn) - before > DEAD
    go_past(node)
    before = read(conn)
    assert step(node, 30) == [job.id for job in jobs[4:34]]
    assert read(conn) - before < 500


@pytest.mark.usefixtures("pinned")
def test_what_is_new_is_found_by_priority_meanwhile(client: Client, node: SimNode):
    client.enqueue([new_job(priority=2) for _ in range(5)])
    go_past(node)
    low, middle, high = (new_job(priority=level) for level in (400, 9, 0))
    client.enqueue([low, middle, high])
    assert step(node) == [high.id]
    assert step(node, 10)[-2:] == [middle.id, low.id]


@pytest.mark.usefixtures("pinned")
def test_what_comes_back_is_found_when_the_floors_are_over(client: Client, node: SimNode):
    jobs = [new_job(max_deliveries=3) for _ in range(6)]
    client.enqueue(jobs)
    (first,) = node.step(1).claims
    go_past(node)
    node.again([Outcome(first.job_id, first.token, State.AVAILABLE)])
    assert step(node, 10) == [job.id for job in jobs[4:]]
    answer = node.step(10)
    assert not answer.claims
    assert answer.due_ms is not None
    assert 0 < answer.due_ms <= 5000  # so the node looks again by itself
    wait_for(lambda: step(node, 10) == [first.job_id])


@pytest.mark.usefixtures("pinned")
def test_a_pool_process_leaves_such_claims_to_its_node(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    queue = client.intern(["q"])["q"]
    jobs = [new_job() for _ in range(5)]
    client.enqueue(jobs)
    (run,) = node.step(1).claims

    def serve(id: str, token: int) -> str | None:
        ((next_id,),) = conn.execute(
            "select s.next_id from pgcelery.serve_v1("
            "%s, %s, %s, ''::bytea, null, nextval('pgcelery.tokens'), array[%s], 0) s",
            [node.id, token, id, queue],
        ).fetchall()
        return next_id

    # The step's look was the first of this session that was slow.
    assert serve(run.job_id, run.token) is None
    before = read(conn)
    assert serve(run.job_id, run.token) is None
    assert read(conn) - before < 500
    assert [claim.job_id for claim in node.finish(run, want=1).claims] == [jobs[1].id]


def test_one_slow_look_is_not_believed(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    queue = client.intern(["q"])["q"]

    def look(took_ms: float) -> str:
        took = f"{took_ms} ms"
        conn.execute("select pgcelery.watch_front_v1(%s, %s::interval)", [queue, took])
        ((kept,),) = conn.execute(
            "select current_setting(%s)", [f"pgcelery_claims.q{queue}"]
        ).fetchall()
        return str(kept)

    assert look(2) == "{0}"
    assert look(0.5) == ""
    assert look(2) == "{0}"
    assert look(2).endswith(",0,0,0,0,0,0,0,0,0,0}")
    assert look(0.5) == ""
