"""Jobs that wait for others which were enqueued after them: latches, and joining beside a job."""

from __future__ import annotations

import psycopg
import pytest

from pgcelery.engine import Client, Job, Outcome, State
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for


def done(job: Job, state: State = State.COMPLETED, **more) -> Outcome:
    return Outcome(job.id, job.token, state, **more)


def left_over(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        row = conn.execute(
            "select (select count(*) from pgcelery.nodes) + (select count(*) from pgcelery.edges)"
        ).fetchone()
    return row[0]


def test_what_waits_for_a_latch_runs_when_it_is_closed_and_all_that_joined_have_ended(
    client: Client, dsn: str
):
    handler = Recorder()
    body = new_job(b"body", parents=("latch",))
    with running(client.config, handler):
        client.open_latch("latch")
        early = new_job(joins=("latch",))
        client.enqueue([early])
        assert client.wait([early.id], 10)
        late = new_job(joins=("latch",), delay_s=0.3)
        client.enqueue([late])
        assert client.close_latch("latch", [body]) == {}
        assert client.job(body.id).state is State.WAITING
        assert client.wait([body.id], 10)
    assert handler.ran == [early.id, late.id, body.id]
    assert left_over(dsn) == 0


def test_a_latch_that_is_closed_last_lets_everything_go_that_waits_for_it(client: Client):
    handler = Recorder()
    with running(client.config, handler):
        client.open_latch("latch")
        member = new_job(joins=("latch",))
        client.enqueue([member])
        assert client.wait([member.id], 10)
        bodies = [new_job(b"body", parents=("latch",)) for _ in range(3)]
        client.close_latch("latch", bodies)
        for body in bodies:
            assert client.wait([body.id], 10)


def test_what_waits_for_a_latch_is_told_that_one_that_joined_failed(client: Client):
    handler = Recorder(fail=lambda job: done(job, State.FAILED))
    body = new_job(b"body", parents=("latch",))
    with running(client.config, handler):
        client.open_latch("latch")
        client.enqueue([new_job(b"fail", joins=("latch",)), new_job(joins=("latch",))])
        client.close_latch("latch", [body])
        assert client.wait([body.id], 10)
    assert handler.runs[-1].parent_failed


def test_a_latch_that_is_dropped_leaves_nothing_and_its_jobs_run(client: Client, dsn: str):
    client.open_latch("latch")
    client.open_latch("latch")
    member = new_job(joins=("latch",))
    client.enqueue([member])
    client.drop_latch("latch")
    with running(client.config, Recorder()):
        assert client.wait([member.id], 10)
        wait_for(lambda: left_over(dsn) == 0)


def test_a_second_enqueue_of_a_member_does_not_join_twice(client: Client):
    client.open_latch("latch")
    member = new_job(joins=("latch",))
    assert client.enqueue([member]) == {}
    assert client.enqueue([member]) == {member.id: member.id}
    body = new_job(parents=("latch",))
    client.close_latch("latch", [body])
    with running(client.config, Recorder()):
        assert client.wait([body.id], 10)


def test_nothing_is_closed_when_its_jobs_cannot_be_enqueued(client: Client):
    client.open_latch("latch")
    with pytest.raises(Exception, match="non-empty"):
        client.close_latch("latch", [new_job(), new_job(id="body")._replace(name="")])
    body = new_job(parents=("latch",))
    client.close_latch("latch", [body])
    with running(client.config, Recorder()):
        assert client.wait([body.id], 10)


@pytest.mark.parametrize("state", [State.COMPLETED, State.FAILED])
def test_whoever_waits_for_a_job_waits_for_what_joins_beside_it_with_its_outcome(
    client: Client, state: State
):
    added = [new_job(b"added"), new_job(b"added", delay_s=0.2)]
    handler = Recorder(
        grow=lambda job: done(
            job, state, follow_ups=tuple(one._replace(joins=(job.id,)) for one in added)
        ),
        added=lambda job: done(job, result=job.id.encode()),
    )
    member, other = new_job(b"grow"), new_job()
    bodies = [new_job(b"body", parents=(member.id, other.id)) for _ in range(2)]
    client.enqueue([member, other, *bodies])
    with running(client.config, handler):
        for body in bodies:
            assert client.wait([body.id], 10)
            found, joined = client.inputs(body.id, [member.id, other.id])
            assert set(found) == {member.id, other.id}
            assert [row.result for row in joined.values()] == [one.id.encode() for one in added]
    assert set(handler.ran[-2:]) == {body.id for body in bodies}
    assert handler.runs[-1].parent_failed is (state is State.FAILED)


def test_what_joins_beside_a_member_of_a_latch_is_known_to_what_waits_for_that(client: Client):
    added = new_job(b"added")
    handler = Recorder(
        grow=lambda job: done(job, follow_ups=(added._replace(joins=(job.id,)),)),
    )
    body = new_job(b"body", parents=("latch",))
    with running(client.config, handler):
        client.open_latch("latch")
        member = new_job(b"grow", joins=("latch",))
        client.enqueue([member])
        assert client.wait([member.id], 10)
        client.close_latch("latch", [body])
        assert client.wait([body.id], 10)
    assert handler.ran == [member.id, added.id, body.id]
    assert list(client.inputs(body.id, [])[1]) == [added.id]


def test_a_job_can_join_before_it_is_enqueued(client: Client):
    added = new_job(b"added", awaited=True)

    def grow(job: Job) -> Outcome:
        client.join([added.id], job.id)
        return done(job)

    handler = Recorder(grow=grow)
    member = new_job(b"grow")
    body = new_job(b"body", parents=(member.id,))
    client.enqueue([member, body])
    with running(client.config, handler):
        assert client.wait([member.id], 10)
        assert client.job(body.id).state is State.WAITING
        client.enqueue([added])
        assert client.wait([body.id], 10)
    assert handler.ran == [member.id, added.id, body.id]


def test_a_job_that_joins_beside_one_that_has_ended_just_runs(client: Client):
    ended = new_job()
    with running(client.config, Recorder()):
        client.enqueue([ended])
        assert client.wait([ended.id], 10)
        comer = new_job(joins=(ended.id,))
        client.enqueue([comer])
        assert client.wait([comer.id], 10)


def test_an_id_that_was_used_runs_anew_only_if_asked_and_for_another_payload(client: Client):
    handler = Recorder(
        first=lambda job: done(job, result=b"1"), second=lambda job: done(job, result=b"2")
    )
    with running(client.config, handler):
        client.enqueue([new_job(b"first", id="used", again=True)])
        assert client.wait(["used"], 10)["used"].result == b"1"
        assert client.enqueue([new_job(b"first", id="used", again=True)]) == {"used": "used"}
        assert client.enqueue([new_job(b"second", id="used")]) == {"used": "used"}
        assert client.enqueue([new_job(b"second", id="used", again=True)]) == {}
        wait_for(lambda: client.wait(["used"], 10)["used"].result == b"2")
    assert handler.ran == ["used", "used"]


def test_an_id_that_has_not_ended_does_not_run_anew(client: Client):
    client.enqueue([new_job(b"first", id="used", again=True)])
    assert client.enqueue([new_job(b"second", id="used", again=True)]) == {"used": "used"}
    handler = Recorder()
    with running(client.config, handler):
        assert client.wait(["used"], 10)
    assert [run.payload for run in handler.runs] == [b"first"]
