"""Whole workflows in the engine: looking at them, cancelling them, running their jobs again."""

from __future__ import annotations

import itertools
import json
import re
import threading

import psycopg
import pytest
from psycopg import sql

from pgcelery.engine import Client, Gate, Job, NotEnded, Outcome, Rerun, State, workflows
from pgcelery.engine.database import load
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for


def done(job: Job, state: State = State.COMPLETED, **more) -> Outcome:
    return Outcome(job.id, job.token, state, **more)


ONE = (Gate("k", slots=1),)


def job(id: str, body: bytes = b"ok", parents: tuple[str, ...] = (), **options):
    options.setdefault("workflow", "w")
    return new_job(body, id=id, parents=parents, leads=id == "a", **options)


def rows(dsn: str, query: str):
    with psycopg.connect(dsn) as conn:
        return conn.execute(query).fetchall()


def left_over(dsn: str, *tables: str) -> list[str]:
    """Which of these tables have rows."""
    with psycopg.connect(dsn) as conn:
        return [
            table
            for table in tables
            if conn.execute(
                sql.SQL("select from {} limit 1").format(sql.Identifier("pgcelery", table))
            ).fetchone()
            is not None
        ]


def states(client: Client, id: str = "w") -> dict[str, State]:
    return {one.id: one.state for one in client.workflow(id).members}


class Held(Recorder):
    """A handler whose jobs with the payload "hold" stay in their bodies until told."""

    def __init__(self, **bodies) -> None:
        super().__init__(hold=self._hold, **bodies)
        self.holding = threading.Event()
        self.go_on = threading.Event()

    def _hold(self, held: Job) -> Outcome:
        self.holding.set()
        assert self.go_on.wait(20)
        return done(held)


def test_a_workflow_is_found_by_its_id_and_by_that_of_any_job(client: Client):
    client.enqueue([job("a"), job("b", parents=("a",)), job("c", parents=("b",))])
    client.enqueue([new_job(id="alone")])
    for id in ("w", "a", "c"):
        found = client.workflow(id)
        assert found.id == "w"
        assert [one.id for one in found.members] == ["a", "b", "c"]
    assert states(client) == {"a": State.AVAILABLE, "b": State.WAITING, "c": State.WAITING}
    assert [one.id for one in client.workflow("alone").members] == ["alone"]
    assert client.workflow("nobody") is None


def test_a_workflow_that_began_as_a_single_job_has_its_id(client: Client):
    made = new_job(id="link")
    handler = Recorder(link=lambda job: done(job, follow_ups=(made,)))
    with running(client.config, handler):
        client.enqueue([new_job(b"link", id="root")])
        assert client.wait(["link"], 10)
    for id in ("root", "link"):
        found = client.workflow(id)
        assert (found.id, [one.id for one in found.members]) == ("root", ["root", "link"])


def test_the_members_of_a_workflow_are_told_where_they_are(client: Client):
    handler = Held(fail=lambda job: done(job, State.FAILED), again=lambda job: done(
        job, State.RETRYABLE, delay_s=60, payload=b"again!", result=b""))  # fmt: skip
    jobs = [
        job("a"), job("held", b"hold"), job("failed", b"fail"), job("retried", b"again"),
        job("later", delay_s=60), job("waits", parents=("held",)),
        job("elsewhere", queue="other"),
    ]  # fmt: skip
    with running(client.config, handler):
        client.enqueue(jobs)
        wait_for(lambda: states(client)["retried"] is State.RETRYABLE and handler.holding.is_set())
        wait_for(lambda: states(client)["failed"].final and states(client)["a"].final)
        members = {one.id: one for one in client.workflow("w").members}
        handler.go_on.set()
        assert client.wait(["waits"], 10)
    assert {id: one.state for id, one in members.items()} == {
        "a": State.COMPLETED, "held": State.RUNNING, "failed": State.FAILED,
        "retried": State.RETRYABLE, "later": State.SCHEDULED, "waits": State.WAITING,
        "elsewhere": State.AVAILABLE,
    }  # fmt: skip
    assert members["held"].started_at > members["held"].created_at
    assert members["a"].finished_at > members["a"].created_at
    assert members["a"].started_at is None
    assert (members["retried"].payload, members["retried"].sent) == (b"again!", b"again")
    assert members["a"].sent is None


def test_a_large_workflow_is_cut_but_has_members_of_every_name(client: Client):
    many = [job(f"m{place:03}", name="member") for place in range(300)]
    body = job("body", parents=tuple(one.id for one in many), name="body")
    client.enqueue([*many, body])
    found = client.workflow("w", limit=10)
    assert [one.id for one in found.members] == [*(f"m{place:03}" for place in range(9)), "body"]
    assert found.total == 301
    assert found.counts == {"member": {State.AVAILABLE: 300}, "body": {State.WAITING: 1}}
    assert len(client.workflow("w", limit=None).members) == 301


def test_workflows_are_listed_the_newest_first_with_their_counts(client: Client):
    for name in "uvw":
        client.enqueue([
            new_job(id=f"{name}1", workflow=name, leads=True, name=f"first of {name}"),
            new_job(id=f"{name}2", workflow=name, parents=(f"{name}1",)),
        ])  # fmt: skip
    client.enqueue([new_job(), new_job()])
    assert [one.id for one in client.workflows()] == ["w", "v", "u"]
    newest = client.workflows(limit=2)
    assert [(one.id, one.name, one.counts) for one in newest] == [
        ("w", "first of w", {State.AVAILABLE: 1, State.WAITING: 1}),
        ("v", "first of v", {State.AVAILABLE: 1, State.WAITING: 1}),
    ]
    assert [one.id for one in client.workflows(before=newest[-1].seq)] == ["u"]
    assert client.workflows(limit=1)[0].finished_at is None
    with running(client.config, Recorder()):
        assert client.wait(["w2"], 10)
        assert client.wait(["u2"], 10)
    assert client.workflows(limit=1)[0].counts == {State.COMPLETED: 2}
    assert client.workflows(limit=1)[0].finished_at is not None


@pytest.mark.parametrize("statement", ["members", "tally", "newest", "unfinished"])
def test_looking_at_workflows_reads_no_table_of_jobs_from_end_to_end(
    client: Client, dsn: str, statement: str
):
    numbers = itertools.count()
    with psycopg.connect(dsn, autocommit=True) as conn:
        for _ in range(100):
            client.enqueue([
                new_job(id=str(next(numbers)), workflow=f"w{next(numbers) // 20}" if part else None,
                        leads=part == 1)
                for part in [*[1] * 2, *[0] * 98]
            ])  # fmt: skip
        conn.execute("insert into pgcelery.results (id, state, finished_at) "
                     "select id, 10, now() from pgcelery.jobs")  # fmt: skip
        conn.execute("delete from pgcelery.ready")
        conn.execute("vacuum analyze pgcelery.jobs, pgcelery.results")
        conn.execute("vacuum pgcelery.ready")
        text = load(f"workflows/{statement}", "pgcelery").decode()
        for name, value in {"id": "'w3'", "limit": "20", "before": "null::bigint"}.items():
            text = re.sub(rf"%\({name}\)s", value, text)
        plan = conn.execute(f"explain (format json) {text}").fetchone()[0]
    said = json.dumps(plan)
    scanned = re.findall(r'"Node Type": "Seq Scan"[^{}]*?"Relation Name": "(\w+)"', said)
    assert set(scanned) <= {"running", "nodes", "places", "queues", "scheduled"}
    assert "jobs_leading" in said if statement == "newest" else "jobs_workflow" in said


def test_replayed_jobs_run_in_order_and_nothing_else_does(client: Client, dsn: str):
    handler = Recorder()
    steps = [job("a"), job("b", parents=("a",)), job("c", parents=("b",))]
    with running(client.config, handler):
        client.enqueue(steps)
        assert client.wait(["c"], 10)
        tokens = {run.token for run in handler.runs}
        client.replay([Rerun("b", waits=1), Rerun("c")], [("b", "c")])
        assert client.wait(["c"], 10)
    assert handler.ran == ["a", "b", "c", "b", "c"]
    assert len({run.token for run in handler.runs} | tokens) == 5
    assert rows(dsn, "select parents from pgcelery.jobs where id in ('b', 'c')") == [(1,), (1,)]
    assert left_over(dsn, "nodes", "edges", "ready", "scheduled", "running") == []


def test_a_body_that_is_replayed_waits_for_the_members_that_are(client: Client):
    handler = Held(fail=lambda job: done(job, State.FAILED))
    header = [job("a"), job("b"), job("late", b"hold")]
    with running(client.config, handler):
        handler.go_on.set()
        client.enqueue([*header, job("body", parents=("a", "b", "late"))])
        assert client.wait(["body"], 10)
        handler.go_on.clear()
        handler.holding.clear()
        again = [Rerun("b"), Rerun("late"), Rerun("body", waits=3)]
        client.replay(again, [("b", "body"), ("late", "body")], needs=["a"])
        assert handler.holding.wait(10)
        wait_for(lambda: states(client)["b"].final)
        assert states(client)["body"] is State.WAITING
        handler.go_on.set()
        assert client.wait(["body"], 10)
    assert handler.ran.count("a") == 1
    assert not handler.runs[-1].parent_failed


def test_a_gated_job_waits_for_its_slot_when_it_is_replayed(client: Client, dsn: str):
    handler = Held()
    with running(client.config, handler):
        client.enqueue([job("a", gates=ONE), job("other", b"hold", gates=ONE, workflow="v")])
        assert client.wait(["a"], 10)
        assert handler.holding.wait(10)
        client.replay([Rerun("a")])
        wait_for(lambda: rows(dsn, "select * from pgcelery.gated"))
        handler.go_on.set()
        assert client.wait(["a"], 10)
    assert handler.ran.count("a") == 2
    assert rows(dsn, "select * from pgcelery.lines where in_use > 0") == []


@pytest.mark.parametrize("way", ["runs", "waits", "ready", "later", "unknown"])
def test_what_has_not_ended_is_refused_and_nothing_is_done(client: Client, way: str):
    handler = Held()
    with running(client.config, handler):
        client.enqueue([
            job("a"), job("runs", b"hold"), job("waits", parents=("runs",)),
            job("ready", queue="nobody's"), job("later", delay_s=60),
        ])  # fmt: skip
        assert client.wait(["a"], 10)
        assert handler.holding.wait(10)
        for way_in in (
            {"jobs": [Rerun("a"), Rerun(way)]},
            {"jobs": [Rerun("a")], "needs": [way]},
            {"jobs": [Rerun("a")], "drops": [way]},
        ):
            with pytest.raises(NotEnded, match=f"job '{way}' has not ended"):
                client.replay(**way_in)
        assert states(client)["a"] is State.COMPLETED
        handler.go_on.set()
        assert client.wait(["waits"], 10)
    assert handler.ran.count("a") == 1


def test_a_result_that_was_written_by_hand_does_not_make_a_job_run_twice(client: Client):
    handler = Held()
    with running(client.config, handler):
        client.enqueue([job("a", b"hold")])
        assert handler.holding.wait(10)
        client.put_result("a", State.COMPLETED, b"by hand")
        with pytest.raises(NotEnded):
            client.replay([Rerun("a")])
        handler.go_on.set()
    assert handler.ran == ["a"]


def test_of_two_replays_at_the_same_time_one_is_refused(client: Client, dsn: str):
    handler = Recorder()
    with running(client.config, handler):
        client.enqueue([job("a")])
        assert client.wait(["a"], 10)
    refused = []

    def replay():
        with pytest.raises(NotEnded):
            client.replay([Rerun("a")])
        refused.append(True)

    with psycopg.connect(dsn) as first:
        first.execute(
            "select pgcelery.replay_v1('w', '{a}', '{0}', '{0}', '{f}', '{null}', '{}', '{}', '{}',"
            " '{}', '{}')"
        )
        second = threading.Thread(target=replay)
        second.start()
        wait_for(lambda: rows(dsn, "select from pg_locks where not granted"))
        first.commit()
        second.join(10)
    assert refused
    with running(client.config, handler):
        assert client.wait(["a"], 10)
    assert handler.ran == ["a", "a"]


def test_a_repeated_outcome_of_the_run_before_is_neither_late_nor_taken(client: Client, dsn: str):
    first: list[Job] = []
    handler = Held(note=lambda job: first.append(job) or done(job))
    with running(client.config, handler):
        client.enqueue([job("a", b"note")])
        assert client.wait(["a"], 10)
        client.replay([Rerun("a", payload=b"hold")])
        assert handler.holding.wait(10)
        with psycopg.connect(dsn) as conn:
            conn.execute(
                "select pgcelery.finish_v3(0, array[%s], '{a}', '{10}', array['x'::bytea], '{1}',"
                " '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}',"
                " '{}', '{}', '{}', '{}', '{}', '{}', '{}')",
                [first[0].token],
            )
        assert rows(dsn, "select * from pgcelery.late") == []
        assert states(client)["a"] is State.RUNNING
        handler.go_on.set()
        assert client.wait(["a"], 10)


def test_a_retried_job_can_be_replayed_as_it_was_sent(client: Client):
    def again(job: Job) -> Outcome:
        return done(job, State.RETRYABLE, payload=b"ok", queue="q2", priority=7, delay_s=0)

    handler = Recorder(again=again)
    with running(client.config, handler, queues=("q", "q2")):
        client.enqueue([job("a", b"again", priority=3)])
        assert client.wait(["a"], 10)
        client.replay([Rerun("a", restored=True)])
        assert client.wait(["a"], 10)
        client.replay([Rerun("a")])
        assert client.wait(["a"], 10)
    ran = [(run.payload, run.queue, run.priority) for run in handler.runs]
    assert ran[:2] == ran[2:4] == [(b"again", "q", 3), (b"ok", "q2", 7)]
    assert ran[4] == (b"ok", "q2", 7)


def test_a_job_that_was_replaced_can_be_replayed_as_it_was_sent(client: Client):
    def replace(job: Job) -> Outcome:
        part = new_job(b"part", name="part")
        end = new_job(b"end", id=job.id, name="end", parents=(part.id,), again=True)
        return done(job, State.WAITING, follow_ups=(part, end))

    handler = Recorder(replace=replace)
    with running(client.config, handler):
        client.enqueue([job("a", b"replace", name="first", gates=ONE), job("b", parents=("a",))])
        assert client.wait(["b"], 10)
        found = {one.name: one for one in client.workflow("w").members}
        assert (found["end"].id, found["end"].sent) == ("a", b"replace")
        again = [Rerun("a", restored=True), Rerun("b")]
        client.replay(again, [("a", "b")], drops=[found["part"].id])
        assert client.wait(["b"], 10)
    names = [run.name for run in handler.runs]
    assert names == ["first", "part", "end", "test"] * 2
    assert client.results([found["part"].id]) == {}
    assert found["part"].id not in states(client)


def test_an_id_that_another_workflow_uses_anew_is_not_restored_to_its_first_use(client: Client):
    handler = Recorder(one=lambda job: done(job, State.RETRYABLE, payload=b"more", delay_s=0))
    with running(client.config, handler):
        client.enqueue([job("a", b"one", again=True)])
        assert client.wait(["a"], 10)
        assert client.workflow("w").members[0].sent == b"one"
        client.enqueue([job("a", b"two", again=True)])
        wait_for(lambda: client.workflow("w").members[0].payload == b"two")
        assert client.wait(["a"], 10)
    assert client.workflow("w").members[0].sent is None


def test_cancelling_a_workflow_ends_what_waits_and_lets_what_runs_come_to_its_end(
    client: Client, dsn: str
):
    handler = Held()
    jobs = [
        job("a"), job("held", b"hold"), *(job(f"m{n}", queue="slow") for n in range(5)),
        job("later", delay_s=60), job("keyed", gates=ONE, delay_s=60),
        job("body", parents=("a", "held", "m0", "m1")), job("end", parents=("body",)),
    ]  # fmt: skip
    with running(client.config, handler):
        client.enqueue(jobs)
        client.enqueue([new_job(id="alone", queue="slow")])
        assert client.wait(["a"], 10)
        assert handler.holding.wait(10)
        told = client.cancel_workflow("body", result=lambda id: id.encode())
        assert told.pop("held") is State.RUNNING
        assert set(told.values()) == {State.CANCELLED}
        assert "a" not in told
        handler.go_on.set()
        assert client.wait(["held"], 10)
    with running(client.config, handler, queues=("q", "slow")):
        assert client.wait(["alone"], 10)
    assert {"a": State.COMPLETED, "held": State.COMPLETED, **told} == states(client)
    assert client.results(["end"])["end"].result == b"end"
    assert handler.ran == ["a", "held", "alone"]
    assert left_over(dsn, "nodes", "ready", "scheduled", "gated", "cancels") == []


def test_what_waits_is_cancelled_before_what_it_waits_for(client: Client, monkeypatch):
    monkeypatch.setattr(workflows, "_BATCH", 1)
    client.enqueue(
        [job("a"), job("b"), job("body", parents=("a", "b")), job("end", parents=("body",))]
    )
    assert list(client.cancel_workflow("w")) == ["end", "body", "b", "a"]


def test_what_a_cancelled_workflow_still_comes_to_is_cancelled(client: Client):
    link = new_job(id="link")
    after = new_job(id="after", parents=("link",))
    handler = Held()
    handler.bodies["hold"] = lambda held: (
        handler._hold(held)._replace(follow_ups=(link, after))
    )  # fmt: skip
    with running(client.config, handler):
        client.enqueue([job("a", b"hold")])
        assert handler.holding.wait(10)
        client.cancel_workflow("w")
        handler.go_on.set()
        assert client.wait(["after"], 10)
        assert [one[1].kind for one in handler.lost_jobs] == ["cancelled", "cancelled"]
        assert handler.ran == ["a"]
        # Replayed, or used by another workflow, it is not cancelled any more.
        client.replay([Rerun("a", payload=b"ok")], workflow="w")
        assert client.wait(["a"], 10)
        client.enqueue([new_job(id="more", workflow="w")])
        assert client.wait(["more"], 10)
        client.cancel_workflow("w")
        client.enqueue([job("a", b"anew", again=True), job("b", parents=("a",))])
        assert client.wait(["b"], 10)
    assert handler.ran == ["a", "a", "more", "a", "b"]


def test_cancelling_waits_for_runs_that_are_just_being_ended(client: Client, dsn: str):
    client.enqueue([job("a")])
    with psycopg.connect(dsn) as conn:
        conn.execute("delete from pgcelery.ready")
        conn.execute(
            "insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)"
            " select 1, id, 1, queue_id, 1, 0 from pgcelery.jobs"
        )
    with psycopg.connect(dsn) as ending:
        # As finish_v2 does it: the run is over, and then come the follow-ups.
        ending.execute("delete from pgcelery.running where token = 1")
        thread = threading.Thread(target=client.cancel_workflow, args=("w",))
        thread.start()
        wait_for(lambda: rows(dsn, "select * from pgcelery.stopped"))
        client.enqueue([job("link", parents=())], conn=ending)
        ending.execute("delete from pgcelery.cancels")  # as if it had looked a moment before
        ending.commit()
        thread.join(10)
    assert states(client)["link"] is State.CANCELLED
