from __future__ import annotations

import threading
import time
from dataclasses import replace

import psycopg
import pytest

from pgcelery.engine import Client, EngineConfig, Job, Outcome, State
from pgcelery.engine.pool import ThreadPool
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for


def done(job: Job, state: State = State.COMPLETED, **more) -> Outcome:
    return Outcome(job.id, job.token, state, **more)


def kill_connections(dsn: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as admin:
        rows = admin.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        ).fetchall()
    return len(rows)


def test_a_job_runs_and_its_result_is_kept(client: Client):
    handler = Recorder()
    with running(client.config, handler):
        job = new_job(b"hello")
        client.enqueue([job])
        found = client.wait([job.id], 10)[job.id]
    assert (found.state, found.result) == (State.COMPLETED, b"hello")
    assert found.finished_at is not None
    assert handler.ran == [job.id]


def test_two_thousand_jobs_run_once_each(client: Client):
    handler = Recorder()
    jobs = [new_job() for _ in range(2000)]
    client.enqueue(jobs)
    with running(client.config, handler, name="a"), running(client.config, handler, name="b"):
        wait_for(lambda: len(handler.recorded) == 2000, timeout_s=30)
    assert sorted(handler.ran) == sorted(job.id for job in jobs)


def test_jobs_are_claimed_by_priority_then_in_order(client: Client):
    late = [new_job(priority=5) for _ in range(3)]
    soon = [new_job(priority=0) for _ in range(3)]
    client.enqueue([*late, *soon])
    handler = Recorder()
    with running(client.config, handler, pool=ThreadPool(1)):
        wait_for(lambda: len(handler.ran) == 6)
    assert handler.ran == [job.id for job in (*soon, *late)]


def test_only_its_own_queues_are_served_and_they_can_change(client: Client):
    other = new_job(queue="other")
    client.enqueue([other])
    handler = Recorder()
    with running(client.config, handler) as worker:
        mine = new_job()
        client.enqueue([mine])
        assert client.wait([mine.id], 10)
        assert client.job(other.id).state is State.AVAILABLE
        worker.add_queue("other")
        assert client.wait([other.id], 10)
        worker.cancel_queue("other")
        wait_for(lambda: worker.queues == ["q"])


@pytest.mark.parametrize("listen", [True, False])
def test_a_delayed_job_starts_within_50_ms_of_its_time(dsn: str, listen: bool):
    config = EngineConfig(dsn=dsn, listen=listen)
    client = Client(config)
    starts: dict[str, float] = {}

    def note(job: Job) -> Outcome:
        starts[job.id] = time.monotonic()
        return done(job)

    lags = []
    with running(config, Recorder(note=note)):
        for _ in range(5):
            job = new_job(b"note", delay_s=0.4)
            sent = time.monotonic()
            client.enqueue([job])
            assert client.wait([job.id], 10)
            lags.append(starts[job.id] - sent - 0.4)
    client.close()
    assert min(lags) >= 0
    assert sorted(lags)[2] < 0.05


def test_a_retry_is_the_same_job_later_with_its_new_payload(client: Client):
    def again(job: Job) -> Outcome:
        return done(job, State.RETRYABLE, payload=b"ok", delay_s=0.05, result=b"retrying")

    handler = Recorder(again=again)
    with running(client.config, handler):
        job = new_job(b"again")
        client.enqueue([job])
        assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
    assert handler.ran == [job.id, job.id]
    assert [run.delivery for run in handler.runs] == [1, 1]
    assert handler.runs[0].token != handler.runs[1].token


def test_a_retry_can_move_to_another_queue(client: Client):
    handler = Recorder(move=lambda job: done(job, State.RETRYABLE, queue="other", payload=b"ok"))
    with running(client.config, handler):
        job = new_job(b"move")
        client.enqueue([job])
        wait_for(lambda: client.job(job.id).queue == "other")
        assert client.job(job.id).state is State.AVAILABLE


def test_follow_ups_are_enqueued_with_the_outcome(client: Client):
    child = new_job(b"child")
    handler = Recorder(parent=lambda job: done(job, follow_ups=(child,)))
    with running(client.config, handler):
        parent = new_job(b"parent")
        client.enqueue([parent])
        assert client.wait([child.id], 10)[child.id].result == b"child"
    assert handler.ran == [parent.id, child.id]


def test_a_job_waits_for_its_parents(client: Client):
    header = [new_job() for _ in range(7)]
    body = new_job(b"body", parents=tuple(job.id for job in header))
    client.enqueue([*header, body])
    assert client.job(body.id).state is State.WAITING
    handler = Recorder()
    with running(client.config, handler):
        assert client.wait([body.id], 10)
    assert handler.ran[-1] == body.id
    assert not handler.runs[-1].parent_failed


def test_a_child_is_told_that_a_parent_failed(client: Client):
    parents = [new_job(b"fail"), new_job()]
    body = new_job(b"body", parents=tuple(job.id for job in parents))
    client.enqueue([*parents, body])
    handler = Recorder(fail=lambda job: done(job, State.FAILED))
    with running(client.config, handler):
        assert client.wait([body.id], 10)
    assert handler.runs[-1].parent_failed


def test_an_expired_job_does_not_run(client: Client, dsn: str):
    job = new_job()
    client.enqueue([job])
    with psycopg.connect(dsn) as conn:
        conn.execute("update pgcelery.jobs set expires_at = now() - interval '1 second'")
    handler = Recorder()
    with running(client.config, handler):
        assert client.wait([job.id], 10)
    assert handler.ran == []
    assert handler.lost_jobs[0][1].kind == "expired"


def abandon(client: Client, dsn: str, **options) -> str:
    """Leave a run behind as a worker does that died: claimed, its lease over."""
    job = new_job(**options)
    client.enqueue([job])
    with psycopg.connect(dsn) as conn:
        conn.execute("delete from pgcelery.ready where job_id = %s", [job.id])
        conn.execute(
            "insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)"
            " select nextval('pgcelery.tokens'), id, 999999, queue_id, 1, flags"
            " from pgcelery.jobs where id = %s",
            [job.id],
        )
    return job.id


def test_a_run_of_a_dead_worker_is_repeated_if_it_may_be(client: Client, dsn: str):
    id = abandon(client, dsn, max_deliveries=3)
    handler = Recorder()
    with running(replace(client.config, maintain_s=0.1), handler):
        assert client.wait([id], 10)[id].state is State.COMPLETED
    assert handler.runs[0].delivery == 2


def test_a_run_of_a_dead_worker_is_ended_if_it_may_not_be_repeated(client: Client, dsn: str):
    id = abandon(client, dsn, max_deliveries=1)
    handler = Recorder()
    with running(replace(client.config, maintain_s=0.1), handler, queues=("unrelated",)):
        assert client.wait([id], 10)[id].result == b"worker_lost"
    assert handler.ran == []


def test_a_late_outcome_is_refused_and_kept_with_its_reason(client: Client, dsn: str):
    def steal(job: Job) -> Outcome:
        with psycopg.connect(dsn) as conn:
            conn.execute("update pgcelery.running set token = token + 1000000")
        return done(job, result=b"zombie", follow_ups=(new_job(id="never"),))

    handler = Recorder(steal=steal)
    with running(client.config, handler):
        job = new_job(b"steal")
        client.enqueue([job])
        wait_for(lambda: handler.late_outcomes)
        assert client.results([job.id]) == {}
        assert client.job("never") is None
    assert handler.late_outcomes == [(job.id, "reassigned")]
    with psycopg.connect(dsn) as conn:
        assert conn.execute("select job_id, reason from pgcelery.late").fetchall() == [
            (job.id, "reassigned")
        ]


def test_connections_killed_again_and_again_lose_nothing(client: Client, dsn: str):
    handler = Recorder()
    jobs = [new_job() for _ in range(3000)]
    client.enqueue(jobs)
    with running(client.config, handler):
        for _ in range(6):
            before = len(handler.recorded)
            kill_connections(dsn)
            wait_for(lambda seen=before: len(handler.recorded) > seen or seen == 3000, timeout_s=20)
        wait_for(lambda: client.counts(["q"])["q"][:3] == (0, 0, 0), timeout_s=30)
    assert set(client.results([job.id for job in jobs])) == {job.id for job in jobs}
    assert sorted(handler.ran) == sorted(job.id for job in jobs)
    assert handler.late_outcomes == []


def test_warm_stop_finishes_what_runs_and_gives_the_rest_back(client: Client):
    begun, go = threading.Event(), threading.Event()

    def hold(job: Job) -> Outcome:
        begun.set()
        go.wait(10)
        return done(job)

    first = new_job(b"hold")
    rest = [new_job(b"hold") for _ in range(5)]
    client.enqueue([first, *rest])
    handler = Recorder(hold=hold)
    with running(client.config, handler, pool=ThreadPool(1)) as worker:
        assert begun.wait(10)
        worker.stop("warm")
        go.set()
        assert worker.stopped.wait(10)
    assert client.results([first.id])[first.id].state is State.COMPLETED
    counts = client.counts(["q"])["q"]
    assert (counts.running, counts.ready) == (0, 6 - len(handler.ran))
    assert client.workers() == []


def test_a_result_that_the_server_refuses_fails_its_job_and_no_other(client: Client, dsn: str):
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "alter table pgcelery.results add constraint small check (octet_length(result) < 100)"
        )
    try:
        handler = Recorder(big=lambda job: done(job, result=b"x" * 200))
        jobs = [new_job(), new_job(b"big"), new_job(), new_job()]
        client.enqueue(jobs)
        with running(client.config, handler):
            wait_for(lambda: len(client.results([job.id for job in jobs])) == 4)
        states = [client.results([job.id])[job.id].state for job in jobs]
        assert states == [State.COMPLETED, State.FAILED, State.COMPLETED, State.COMPLETED]
    finally:
        with psycopg.connect(dsn) as conn:
            conn.execute("alter table pgcelery.results drop constraint small")


def test_expired_results_and_their_jobs_are_deleted(client: Client, dsn: str):
    handler = Recorder()
    job = new_job(ttl_s=0.0)
    client.enqueue([job])
    with running(replace(client.config, maintain_s=0.1), handler):
        wait_for(lambda: handler.recorded)
        wait_for(lambda: client.job(job.id) is None)
    assert client.results([job.id]) == {}


def test_a_result_written_by_hand_never_takes_a_waiting_job_along(client: Client, dsn: str):
    job = new_job(delay_s=3600.0)
    client.enqueue([job])
    client.put_result(job.id, State.RUNNING, b"progress", ttl_s=0.0)
    with running(replace(client.config, maintain_s=0.1), Recorder()):
        wait_for(lambda: client.results([job.id]) == {})
    assert client.job(job.id) is not None


def test_a_worker_that_was_buried_registers_anew(client: Client, dsn: str):
    handler = Recorder()
    with running(replace(client.config, heartbeat_s=0.1), handler):
        with psycopg.connect(dsn) as conn:
            conn.execute("delete from pgcelery.workers")
        wait_for(lambda: client.workers())
        job = new_job()
        client.enqueue([job])
        assert client.wait([job.id], 10)


def test_a_parked_job_is_gone_on_with_by_who_takes_its_id(client: Client):
    """The run is over, its children go on waiting, and the follow-up with its id ends it."""
    second = new_job(b"second")

    def first(job: Job) -> Outcome:
        middle = new_job(b"middle", id="middle")
        return done(job, State.WAITING, follow_ups=(middle,))

    def middle(job: Job) -> Outcome:
        return done(job, follow_ups=(second._replace(id="parked"),))

    handler = Recorder(first=first, middle=middle)
    body = new_job(b"body", parents=("parked",))
    client.enqueue([new_job(b"first", id="parked"), body])
    with running(client.config, handler):
        assert client.wait([body.id], 10)
        assert client.results(["parked"])["parked"].result == b"second"
    assert handler.ran == ["parked", "middle", "parked", body.id]


def test_an_outcome_without_bytes_keeps_what_was_written_before(client: Client):
    handler = Recorder(quiet=lambda job: done(job))
    job = new_job(b"quiet")
    client.put_result(job.id, State.RUNNING, b"progress")
    client.enqueue([job])
    with running(client.config, handler):
        assert client.wait([job.id], 10)[job.id].result == b"progress"


def test_the_delay_of_a_job_with_parents_counts_from_its_release(client: Client):
    ends: dict[str, float] = {}

    def note(job: Job) -> Outcome:
        ends[job.id] = time.monotonic()
        return done(job)

    parent = new_job(b"note", delay_s=0.3)
    child = new_job(b"note", delay_s=0.3, parents=(parent.id,))
    client.enqueue([parent, child])
    with running(client.config, Recorder(note=note)):
        assert client.wait([child.id], 10)
    assert ends[child.id] - ends[parent.id] >= 0.29


def test_what_was_queued_behind_a_long_job_goes_back_at_the_stop(client: Client):
    begun, go = threading.Event(), threading.Event()

    def hold(job: Job) -> Outcome:
        begun.set()
        go.wait(10)
        return done(job)

    handler = Recorder(hold=hold)
    with running(client.config, handler, pool=ThreadPool(1)) as worker:
        lesson = [new_job() for _ in range(100)]  # its name is fast, so more are queued ahead
        client.enqueue(lesson)
        wait_for(lambda: len(handler.recorded) == 100)
        rest = [new_job() for _ in range(5)]
        client.enqueue([new_job(b"hold"), *rest])
        assert begun.wait(10)
        wait_for(lambda: client.counts(["q"])["q"].running > 1)
        worker.stop("warm")
        go.set()
        assert worker.stopped.wait(10)
    counts = client.counts(["q"])["q"]
    assert (counts.running, counts.ready) == (0, 5 - (len(handler.ran) - 101))


def test_a_claim_whose_answer_got_lost_goes_back_unharmed(client: Client, dsn: str):
    """At most once, and yet it runs: the node knows that it never began."""
    handler = Recorder()
    with running(client.config, handler):
        job = new_job(queue="elsewhere")
        client.enqueue([job])
        with psycopg.connect(dsn) as conn:  # as a step does that commits when the line is cut
            conn.execute("delete from pgcelery.ready")
            conn.execute(
                "insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)"
                " select nextval('pgcelery.tokens'), j.id, w.id, j.queue_id, 1, 0"
                " from pgcelery.jobs j, pgcelery.workers w"
            )
        kill_connections(dsn)
        wait_for(lambda: client.job(job.id).state is State.AVAILABLE)
    assert handler.lost_jobs == []


def test_what_threads_have_queued_behind_a_long_job_goes_to_others_at_once(client: Client):
    go = threading.Event()
    handler = Recorder(
        hold=lambda job: (go.wait(10), Outcome(job.id, job.token, State.COMPLETED))[1]
    )
    config = replace(client.config, poll_max_s=30.0)
    with running(config, handler, pool=ThreadPool(1), name="1"):
        short = [new_job() for _ in range(20)]  # so that it queues ahead
        client.enqueue(short)
        wait_for(lambda: len(client.results([job.id for job in short])) == 20)
        client.enqueue([long := new_job(b"hold"), behind := new_job()])
        wait_for(lambda: long.id in handler.ran)
        with running(config, handler, pool=ThreadPool(1), name="2"):
            assert client.wait([behind.id], 2)
            go.set()
