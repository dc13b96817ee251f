"""Jobs of one workflow: what a freed job gets, what joins, what is dropped, how long it is kept."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pgcelery.engine import Client, InvalidJob, Job, Outcome, State
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for


def done(job: Job, state: State = State.COMPLETED, **more) -> Outcome:
    return Outcome(job.id, job.token, state, b"result of " + job.id.encode(), **more)


def rows(dsn: str, query: str, *params) -> list[tuple]:
    with psycopg.connect(dsn) as conn:
        return conn.execute(query, params).fetchall()


def workflow_of(dsn: str, *ids: str) -> list[str | None]:
    found = dict(rows(dsn, "select id, workflow from pgcelery.jobs where id = any (%s)", [*ids]))
    return [found[one] for one in ids]


def chain_of(*ids: str, **options):
    """Jobs that wait for one another; their payload is their id."""
    return [
        new_job(one.encode(), id=one, parents=(ids[place - 1],) if place else (), **options)
        for place, one in enumerate(ids)
    ]


def test_a_freed_job_comes_with_the_result_of_its_one_parent(client: Client):
    handler = Recorder(a=done, b=done, c=done)
    with running(client.config, handler):
        client.enqueue(chain_of("a", "b", "c"))
        assert client.wait(["c"], 10)
    assert [job.fed for job in handler.runs] == [
        None,
        ("a", State.COMPLETED, b"result of a"),
        ("b", State.COMPLETED, b"result of b"),
    ]


def test_a_job_with_several_parents_comes_without_their_results(client: Client):
    handler = Recorder(a=done, b=done)
    with running(client.config, handler):
        client.enqueue([*chain_of("a"), *chain_of("b"), new_job(id="c", parents=("a", "b"))])
        assert client.wait(["c"], 10)
    assert handler.runs[-1].fed is None


def test_a_freed_job_of_a_queue_that_its_parent_is_not_of_goes_there(client: Client):
    here, there = Recorder(a=done), Recorder(b=done)
    first, second = chain_of("a", "b")
    with running(client.config, here), running(client.config, there, queues=("r",)):
        client.enqueue([first, second._replace(queue="r")])
        assert client.wait(["b"], 10)
    assert (here.ran, there.ran) == (["a"], ["b"])


def test_more_are_freed_than_a_worker_has_room_for(client: Client):
    handler = Recorder(a=done)
    children = [new_job(parents=("a",)) for _ in range(500)]
    with running(client.config, handler):
        client.enqueue([*chain_of("a"), *children])
        for child in children:
            assert client.wait([child.id], 10)
    assert sorted(handler.ran) == sorted(["a", *(child.id for child in children)])


def test_a_freed_job_that_was_cancelled_or_has_expired_does_not_run(client: Client):
    past = datetime.now(UTC) - timedelta(seconds=1)
    handler = Recorder(a=done)
    with running(client.config, handler):
        client.enqueue([*chain_of("a"), new_job(id="b", parents=("a",), expires_at=past)])
        assert client.wait(["b"], 10)
    assert (handler.ran, [why.kind for _, why in handler.lost_jobs]) == (["a"], ["expired"])


def test_the_life_of_a_job_that_waits_begins_when_it_is_freed(client: Client, dsn: str):
    first, second = chain_of("a", "b")
    client.enqueue([first, second._replace(queue="r", lives_s=60.0)])
    assert client.job("b").expires_at is None
    with running(client.config, Recorder(a=done)):
        assert client.wait(["a"], 10)
    left = client.job("b").expires_at - datetime.now(UTC)
    assert timedelta(seconds=30) < left <= timedelta(seconds=60)


def test_follow_ups_are_part_of_the_workflow_of_the_run_that_made_them(client: Client, dsn: str):
    def go_on(job: Job) -> Outcome:
        return done(job, follow_ups=(new_job(id=f"after {job.id}"),))

    handler = Recorder(part=go_on, alone=go_on)
    with running(client.config, handler):
        client.enqueue([new_job(b"part", id="p", workflow="w"), new_job(b"alone", id="s")])
        for one in ("after p", "after s"):
            wait_for(lambda one=one: client.job(one) is not None)
            assert client.wait([one], 10)
    assert workflow_of(dsn, "p", "after p", "s", "after s") == ["w", "w", None, "s"]


def test_an_id_that_runs_again_stays_in_its_workflow_unless_another_takes_it(
    client: Client, dsn: str
):
    with running(client.config, Recorder(a=done, b=done)):
        client.enqueue([new_job(b"a", id="a", workflow="one")])
        assert client.wait(["a"], 10)
        client.enqueue([new_job(b"b", id="a", workflow="two", again=True)])
        assert workflow_of(dsn, "a") == ["two"]


def test_a_name_of_a_workflow_that_cannot_be_stored_is_refused(client: Client):
    with pytest.raises(InvalidJob, match="workflow"):
        client.enqueue([new_job(workflow="w" * 256)])


def test_dropped_jobs_are_as_if_never_sent(client: Client, dsn: str):
    handler = Recorder(a=lambda job: done(job, drops=("b", "c")))
    with running(client.config, handler):
        client.enqueue(chain_of("a", "b", "c"))
        assert client.wait(["a"], 10)
    assert handler.ran == ["a"]
    assert client.job("b") is client.job("c") is None
    assert rows(dsn, "select from pgcelery.nodes union all select from pgcelery.edges") == []


def test_what_waits_for_a_dropped_job_hears_that_it_failed(client: Client):
    handler = Recorder(a=lambda job: done(job, drops=("b",)))
    with running(client.config, handler):
        client.enqueue(chain_of("a", "b", "c"))
        assert client.wait(["c"], 10)
    assert handler.ran == ["a", "c"]
    assert handler.runs[-1].parent_failed


def test_a_dropped_job_can_be_brought_back_as_another(client: Client):
    handler = Recorder(
        a=lambda job: done(job, drops=("b",), follow_ups=(new_job(b"new", id="b", awaited=True),)),
        new=done,
    )
    with running(client.config, handler):
        client.enqueue(chain_of("a", "b", "c"))
        assert client.wait(["c"], 10)
    assert [job.payload for job in handler.runs] == [b"a", b"new", b"c"]
    assert handler.runs[-1].fed == ("b", State.COMPLETED, b"result of b")
    assert not handler.runs[-1].parent_failed


def test_only_what_waits_can_be_dropped_and_only_by_a_run_that_is_current(client: Client, dsn: str):
    bystander = new_job(b"ok", id="bystander", queue="r")
    handler = Recorder(a=lambda job: done(job, drops=("bystander", "unknown")))
    handler.bodies["late"] = lambda job: Outcome(
        job.id, job.token + 1000, State.COMPLETED, drops=("waits",)
    )
    with running(client.config, handler):
        client.enqueue([bystander, *chain_of("a")])
        assert client.wait(["a"], 10)
        client.enqueue([new_job(b"late", id="late"), new_job(id="waits", parents=("late",))])
        wait_for(lambda: handler.late_outcomes)
        assert client.job("bystander").state is State.AVAILABLE
        assert client.job("waits").state is State.WAITING
        client.cancel(["late", "waits"])


def test_a_result_stays_as_long_as_its_workflow_may_need_it(client: Client, dsn: str):
    """The second step waits in a queue without a worker, longer than the result is to be kept."""
    first, second = chain_of("a", "b", workflow="w", ttl_s=0.0)
    other = chain_of("x", workflow="v", ttl_s=0.0)[0]
    config = replace(client.config, maintain_s=0.05)
    with running(config, Recorder(a=done, x=done)):
        client.enqueue([first, second._replace(queue="r"), other])
        assert client.wait(["a"], 10)
        wait_for(lambda: client.job("x") is None)
        assert client.results(["a"])["a"].result == b"result of a"
    handler = Recorder(b=done)
    with running(config, handler, queues=("r",)):
        assert client.wait(["b"], 10)
        with psycopg.connect(dsn) as conn:
            conn.execute("update pgcelery.results set expires_at = now()")
        wait_for(lambda: client.job("a") is None)
