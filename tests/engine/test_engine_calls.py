"""Calls of nodes and clients, in orders in which the engine's model found them to go wrong.

Promise P2 of docs/guarantees.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate, Outcome, State
from pgcelery.engine.arrays import BigintArray, IntegerArray, TextArray
from tests.support.clock import Clock
from tests.support.jobs import new_job
from tests.support.nodes import Claim, SimNode, call, connect

LOST = 32


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect(dsn)) as conn:
        yield conn


@pytest.fixture
def nodes(client: Client, conn: psycopg.Connection[Any]) -> tuple[SimNode, SimNode]:
    return SimNode(client, conn, "one", ["q"]), SimNode(client, conn, "two", ["q"])


def bury(conn: psycopg.Connection[Any], node: SimNode) -> None:
    conn.execute("delete from pgcelery.workers where id = %s", [node.id])
    conn.execute("delete from pgcelery.leases")


def claimed(node: SimNode, want: int = 10) -> dict[str, Claim]:
    return {claim.job_id: claim for claim in node.step(want).claims}


def test_an_id_that_comes_twice_in_one_call_is_one_job(client: Client, nodes: tuple[SimNode, ...]):
    first = new_job(b"first", id="a")
    assert client.enqueue([first, first._replace(payload=b"second")]) == {}
    parent = new_job(id="p")
    twice = [new_job(id="b", parents=("p",)), new_job(id="b", parents=("p",))]
    assert client.enqueue([parent, *twice]) == {}
    runs = claimed(nodes[0])
    assert sorted(runs) == ["a", "p"]
    assert client.workflow("a").members[0].payload == b"first"
    assert [claim.job_id for claim in nodes[0].finish(runs["p"], want=5).claims] == ["b"]


def test_two_outcomes_of_one_batch_may_have_the_same_follow_up(
    client: Client, nodes: tuple[SimNode, ...]
):
    client.enqueue([new_job(id="a"), new_job(id="b")])
    link = new_job(id="link")
    runs = claimed(nodes[0])
    ended = [
        Outcome(run.job_id, run.token, State.FAILED, follow_ups=(link,)) for run in runs.values()
    ]
    answer = nodes[0].step(5, ended)
    assert answer.late == []
    assert [claim.job_id for claim in answer.claims] == ["link"]


def test_a_late_outcome_leaves_the_wish_to_cancel_the_run_that_is_current(
    client: Client, conn: psycopg.Connection[Any], nodes: tuple[SimNode, ...]
):
    client.enqueue([new_job(id="a", max_deliveries=3)])
    silent, other = nodes
    old = claimed(silent)["a"]
    bury(conn, silent)
    other.maintain()
    new = claimed(other)["a"]
    client.cancel(["a"])
    assert silent.finish(old).late == ["a"]
    assert [(row[0], row[2]) for row in other.beat()] == [(3, new.token)]


def test_a_wish_to_cancel_is_kept_as_long_as_its_job_has_not_ended(
    client: Client, conn: psycopg.Connection[Any], nodes: tuple[SimNode, ...]
):
    client.enqueue([new_job(id="a")])
    run = claimed(nodes[0])["a"]
    client.cancel(["a", "never sent"])
    two_days_s = 2 * 86400.0
    again = Outcome("a", run.token, State.RETRYABLE, delay_s=two_days_s)
    assert nodes[0].again([again]) == []
    Clock(conn).advance(conn, two_days_s - 60)
    nodes[1].register()
    nodes[1].maintain()
    left = conn.execute("select job_id from pgcelery.cancels").fetchall()
    assert left == [("a",)]
    Clock(conn).advance(conn, 120)
    nodes[1].register()
    assert claimed(nodes[1])["a"].flags & 8


def test_a_lost_run_whose_handing_over_got_lost_too_does_not_run_again(
    client: Client, conn: psycopg.Connection[Any], nodes: tuple[SimNode, ...]
):
    """At most once: who did upkeep never got its answer, and gives back what it does not know."""
    client.enqueue([new_job(id="a", max_deliveries=1)])
    silent, other = nodes
    assert claimed(silent)
    bury(conn, silent)
    assert other.maintain()
    other.runs = {}  # that answer is lost
    other.reclaim()
    assert claimed(other) == {}
    (again,) = other.maintain()
    assert again.flags & LOST
    assert other.finish(again, state=State.FAILED).late == []
    assert client.results(["a"])["a"].state is State.FAILED


def test_what_upkeep_gave_a_worker_that_then_leaves_is_given_to_the_next(
    client: Client, conn: psycopg.Connection[Any], nodes: tuple[SimNode, ...]
):
    client.enqueue([new_job(id="a", max_deliveries=1)])
    silent, leaving = nodes
    assert claimed(silent)
    bury(conn, silent)
    assert leaving.maintain()
    call(conn, "reclaim", [leaving.id, BigintArray.of([])])  # as `Node.leave` does
    bury(conn, leaving)
    silent.register()
    assert claimed(silent) == {}
    (again,) = silent.maintain()
    assert again.flags & LOST


def test_a_job_that_joins_at_two_places_that_one_waits_for_counts_once(
    client: Client, nodes: tuple[SimNode, ...]
):
    client.enqueue([new_job(id="a"), new_job(id="b"), new_job(id="c", parents=("a", "b"))])
    client.enqueue([new_job(id="beside", joins=("a", "b"))])
    ended = claimed(nodes[0])
    assert [claim.job_id for claim in nodes[0].finish(*ended.values(), want=5).claims] == ["c"]


def test_what_waits_for_one_more_than_it_was_sent_with_is_not_fed(
    client: Client, conn: psycopg.Connection[Any], nodes: tuple[SimNode, ...]
):
    """Nor is it handed on by a pool process, which would not know that another parent failed."""
    client.enqueue([new_job(id="a"), new_job(id="b", parents=("a",))])
    client.enqueue([new_job(id="more", joins=("b",))])
    node = nodes[0]
    runs = claimed(node)
    assert node.finish(runs["more"], state=State.FAILED, want=5).claims == []
    ((spare,),) = call(conn, "reserve", [])
    queues = IntegerArray.of(list(client.intern(["q"]).values()))
    params = [node.id, runs["a"].token, "a", b"", None, spare, queues, 1.0, TextArray.of([])]
    assert call(conn, "relay", params)[0][0] is None
    (claim,) = node.finish(runs["a"], want=5).claims
    assert (claim.job_id, claim.flags & 4) == ("b", 4)


def test_what_waits_for_a_purged_job_is_ended(client: Client, nodes: tuple[SimNode, ...]):
    client.enqueue([new_job(id="a"), new_job(id="b", parents=("a",), queue="p")])
    assert client.purge(["q"]) == 1
    other = SimNode(client, nodes[0].conn, "other", ["p"])
    (claim,) = other.step(5).claims
    assert (claim.job_id, claim.flags & 4) == ("b", 4)


@pytest.mark.parametrize("expires", [False, True], ids=["forgotten", "past its time"])
def test_a_job_goes_on_whose_result_was_written_by_hand_and_is_gone(
    client: Client, conn: psycopg.Connection[Any], nodes: tuple[SimNode, ...], expires: bool
):
    """Wherever it is: the result said that it had ended, and it had not."""
    limited = new_job(id="limited", gates=(Gate("limit", slots=1),))
    client.enqueue([new_job(id="runs"), new_job(id="child", parents=("runs",))])
    client.enqueue([new_job(id="retries"), limited, limited._replace(id="gated")])
    runs = claimed(nodes[0])
    retry = runs.pop("retries")
    nodes[0].again([Outcome(retry.job_id, retry.token, State.RETRYABLE, delay_s=60, result=b"why")])
    client.enqueue(
        [
            new_job(id="waits"),
            new_job(id="later", delay_s=60),
            new_job(id="ended"),
        ]
    )
    ids = {"runs", "retries", "limited", "gated", "waits", "later", "child"}
    for id in ids:
        assert client.put_result(id, State.COMPLETED, b"by hand", ttl_s=60)
    client.cancel(["ended"])
    if expires:
        Clock(conn).advance(conn, 120)
        nodes[0].maintain()
    assert client.forget([*ids, "ended"]) == (1 if expires else len(ids) + 1)
    left = {row[0] for row in conn.execute("select id from pgcelery.jobs")}
    assert left == ids
    ran = set(runs)
    Clock(conn).advance(conn, 120)
    while nodes[0].runs:
        answer = nodes[0].finish(*nodes[0].runs.values(), want=10)
        ran |= {claim.job_id for claim in answer.claims}
    assert ran == ids
