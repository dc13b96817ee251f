"""Why a job waits: every reason, brought about by real workers and clients."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from pgcelery.engine import Client, Gate, Job, Outcome, State, Why, placement
from pgcelery.engine.pool import ThreadPool
from pgcelery.engine.reasons import explain
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for

TABLES = ("jobs", "ready", "gated", "results", "scheduled")


def done(job: Job, state: State = State.COMPLETED, **more) -> Outcome:
    return Outcome(job.id, job.token, state, **more)


class Held(Recorder):
    """A handler whose jobs with the payload "hold" stay in their bodies until told."""

    def __init__(self, **bodies: Callable[[Job], Outcome]) -> None:
        super().__init__(hold=self._hold, **bodies)
        self.go_on = threading.Event()

    def _hold(self, held: Job) -> Outcome:
        assert self.go_on.wait(20)
        return done(held)


@pytest.fixture
def held():
    handler = Held()
    yield handler
    handler.go_on.set()


@pytest.fixture
def work(client: Client, held: Held):
    """Start workers that end with the test: ``work("w", size=1)``."""
    with ExitStack() as stack:

        def start(name: str = "w", size: int = 4, handler: Recorder = held, **options):
            options.setdefault("info", {"size": size})
            return stack.enter_context(
                running(client.config, handler, name=name, pool=ThreadPool(size), **options)
            )

        yield start
        held.go_on.set()


def execute(dsn: str, query: str, *params) -> list:
    with psycopg.connect(dsn, autocommit=True) as conn:
        cursor = conn.execute(query, params)
        return cursor.fetchall() if cursor.description else []


def register(dsn: str, queues: str = "{q}") -> int:
    """Enter a worker that does nothing."""
    query = """insert into pgcelery.workers (name, host, pid, queues, info, lease_until)
               values ('idle', 'here', 1, %s, '{"size": 1}', now() + interval '60 s')
               returning id"""
    return execute(dsn, query, queues)[0][0]


def why(client: Client, id: str) -> Why:
    found = client.why(id)
    assert found is not None
    assert (found.id, str(found)) == (id, found.text)
    assert found.text.endswith(".")
    return found


def await_why(client: Client, id: str, reason: str) -> Why:
    def look() -> Why | None:
        found = client.why(id)
        return found if found is not None and found.reason == reason else None

    return wait_for(look, message=lambda: f"{reason} was to come, not {client.why(id)}")


def slots(count: int | None, key: str = "k", name: str = "mail", **options) -> Gate:
    return Gate(name, key, slots=count, **options)


def test_nothing_is_said_of_an_id_that_is_not_known(client: Client):
    assert client.why("nobody") is None
    assert client.why("nul\0") is None


@pytest.mark.parametrize(
    ("state", "text"),
    [(State.COMPLETED, "It completed "), (State.FAILED, "It failed "),
     (State.CANCELLED, "It was cancelled ")],
)  # fmt: skip
def test_one_that_has_ended(client: Client, work, state: State, text: str):
    handler = Recorder(end=lambda job: done(job, state, result=b"kept"))
    work(handler=handler)
    client.enqueue([new_job(b"end", id="a")])
    assert client.wait(["a"], 10)
    found = why(client, "a")
    assert (found.reason, found.state, found.name, found.queue) == ("ended", state, "test", "q")
    assert found.text.startswith(text)
    assert found.since == client.results(["a"])["a"].finished_at
    assert found.result == (b"kept" if state is State.CANCELLED else None)


def test_one_that_runs_and_was_asked_to_end(client: Client, work):
    work("here")
    client.enqueue([new_job(b"hold", id="a")])
    found = await_why(client, "a", "running")
    worker = client.workers()[0]
    assert (found.worker, found.host, found.pid) == ("here", worker.host, worker.pid)
    assert (found.state, found.delivery, found.cancel_at) == (State.RUNNING, 1, None)
    assert found.text.startswith(f"It runs on worker here (host {worker.host}, pid {worker.pid})")
    client.cancel(["a"])
    found = why(client, "a")
    assert found.reason == "running"
    assert found.cancel_at is not None
    assert "asked to end" in found.text


def test_one_whose_worker_is_silent(client: Client, dsn: str, work):
    work("here")
    client.enqueue([new_job(b"hold", id="a", max_deliveries=3)])
    await_why(client, "a", "running")
    with psycopg.connect(dsn) as conn:  # in a transaction that upkeep cannot come between
        conn.execute("lock table pgcelery.workers in exclusive mode")
        conn.execute("update pgcelery.workers set lease_until = now() - interval '1 s'")
        facts = conn.execute("select pgcelery.why_v1('a')").fetchone()[0]
        conn.rollback()
    found = explain("a", facts, None, None)
    assert (found.reason, found.worker) == ("silent", "here")
    assert "has fallen silent" in found.text


def test_a_second_delivery_is_told(client: Client, work):
    def first(job: Job) -> Outcome:
        if job.delivery == 1:
            return done(job, State.AVAILABLE, counted=True)
        return held._hold(job)

    held = Held(first=first)
    work("here", handler=held)
    client.enqueue([new_job(b"first", id="a", max_deliveries=3)])
    found = wait_for(lambda: (x := client.why("a")).reason == "running" and x.delivery == 2 and x)
    assert "delivery 2" in found.text
    held.go_on.set()


@pytest.mark.parametrize("workflow", ["w", None])
def test_one_that_waits_for_others(client: Client, work, workflow: str | None):
    work()
    jobs = [
        new_job(id="a", name="first", workflow=workflow),
        new_job(b"hold", id="b", name="second", workflow=workflow),
        new_job(id="c", name="third", delay_s=90, workflow=workflow),
        new_job(id="d", parents=("a", "b", "c"), workflow=workflow),
        new_job(id="e", parents=("d",), workflow=workflow),
    ]
    client.enqueue(jobs)
    assert client.wait(["a"], 10)
    await_why(client, "b", "running")
    found = why(client, "d")
    assert (found.reason, found.state) == ("parents", State.WAITING)
    assert (found.parents_total, found.parents_pending, found.parents_failed) == (3, 2, 0)
    assert [tuple(one) for one in found.parents] == [
        ("b", "second", State.RUNNING),
        ("c", "third", State.SCHEDULED),
    ]
    assert found.text == (
        "It waits for 2 of 3 that come before it: second b (running), third c (scheduled)."
    )
    assert [tuple(one) for one in why(client, "e").parents] == [("d", "test", State.WAITING)]


def test_of_many_it_waits_for_ten_are_named(client: Client):
    header = [new_job(id=f"m{number:03}", workflow="w") for number in range(50)]
    body = new_job(id="body", parents=tuple(one.id for one in header), workflow="w")
    client.enqueue([*header, body])
    found = why(client, "body")
    assert (len(found.parents), found.parents_pending) == (10, 50)
    assert found.text.endswith("and 47 more.")
    assert {one.state for one in found.parents} == {State.AVAILABLE}


def test_one_of_a_header_that_is_still_being_sent(client: Client):
    client.open_latch("latch")
    client.enqueue([new_job(id="body", parents=("latch",))])
    found = why(client, "body")
    assert [tuple(one) for one in found.parents] == [("latch", None, None)]
    assert "latch (still being sent)" in found.text


def test_one_of_whose_parents_one_has_failed(client: Client, work, held: Held):
    work(handler=(handler := Held(fail=lambda job: done(job, State.FAILED))))
    client.enqueue([
        new_job(b"fail", id="a"), new_job(b"hold", id="b"),
        new_job(id="c", parents=("a", "b"), queue="nobody's"),
    ])  # fmt: skip
    assert client.wait(["a"], 10)
    found = await_why(client, "c", "parent_failed")
    assert (found.parents_pending, found.parents_failed) == (1, 1)
    assert "1 did not complete, so it will not run" in found.text
    handler.go_on.set()
    assert client.wait(["b"], 10)
    found = await_why(client, "c", "parent_failed")  # ready now, to be ended
    assert found.parents_pending == 0
    assert "No live worker serves its queue" in found.text


def test_one_that_waits_for_its_time(client: Client):
    client.enqueue([new_job(id="a", delay_s=90)])
    found = why(client, "a")
    assert (found.reason, found.state) == ("scheduled", State.SCHEDULED)
    assert found.until == client.job("a").due_at
    assert "in 90 s" in found.text or "in 89." in found.text


def test_one_that_waits_for_its_retry(client: Client, work):
    again = Recorder(again=lambda job: done(job, State.RETRYABLE, delay_s=90, payload=b"more"))
    work(handler=again)
    client.enqueue([new_job(b"again", id="a")])
    found = await_why(client, "a", "retry")
    assert (found.state, found.payload) == (State.RETRYABLE, b"more")
    assert "It waits for a retry" in found.text


def test_one_that_is_due_in_a_queue_that_nobody_serves(client: Client, dsn: str):
    client.enqueue([new_job(id="a", due_at=datetime.now(UTC) + timedelta(seconds=0.05))])
    found = await_why(client, "a", "no_worker")
    assert found.since == client.job("a").due_at
    assert found.text == "No live worker serves its queue 'q': no worker lives at all."


def test_one_at_a_limit_with_those_who_hold_it(client: Client, work):
    work("w1", 1)
    work("w2", 1)
    work("w3", 1)
    gates = (slots(2, "tenant:7"),)
    client.enqueue([new_job(b"hold", id=id, name="send", gates=gates) for id in ("a", "b")])
    for id in ("a", "b"):
        await_why(client, id, "running")
    client.enqueue([new_job(id=id, gates=gates) for id in ("c", "d")])
    found = await_why(client, "d", "limit")
    assert (found.line.name, found.line.key, found.line.kind) == ("mail", "tenant:7", "slots")
    assert (found.line.in_use, found.line.slots, found.line.ahead) == (2, 2, 1)
    assert found.line.set_at is None
    assert {(one.id, one.name, one.cancelled) for one in found.holders} == {
        ("a", "send", False), ("b", "send", False),
    }  # fmt: skip
    assert {one.worker for one in found.holders} <= {"w1", "w2", "w3"}
    assert all(one.since for one in found.holders)
    assert found.text.startswith(
        "It waits at limit 'mail', key 'tenant:7': 2 of 2 in use, held by send "
    )
    assert found.text.endswith("; place 2 in its line.")
    client.set_limit("mail", key="tenant:7", slots=1)
    found = why(client, "c")
    assert (found.line.in_use, found.line.slots) == (2, 1)
    assert found.line.set_at is not None
    assert "2 of 1 in use (set at run time" in found.text


def test_a_limit_held_by_what_no_worker_has_claimed(client: Client, work):
    work(queues=("other",))
    gates = (slots(1),)
    client.enqueue([new_job(id="a", gates=gates)])
    client.enqueue([new_job(id="b", gates=gates)])
    client.enqueue([new_job(queue="other")])  # so that a worker looks
    found = await_why(client, "b", "limit")
    assert [(one.id, one.worker) for one in found.holders] == [("a", None)]
    assert "let through, not claimed yet" in found.text
    found = why(client, "a")
    assert (found.reason, found.ahead) == ("no_worker", 0)
    assert found.text == "No live worker serves its queue 'q': w serves other."


def test_of_several_limits_the_one_that_blocks_is_named(client: Client, work):
    work()
    shared, own = slots(1, "", "shared"), slots(1, "me", "own")
    client.enqueue([new_job(b"hold", id="a", gates=(shared,))])
    await_why(client, "a", "running")
    client.enqueue([new_job(id="b", gates=(own, shared))])
    found = await_why(client, "b", "limit")
    assert (found.line.name, found.line.key) == ("shared", "")
    assert [one.id for one in found.holders] == ["a"]
    assert "It waits at limit 'shared': 1 of 1 in use" in found.text


def test_one_at_a_rate(client: Client, work):
    work()
    gates = (Gate("api", "x", rate=1, period_s=3600.0),)
    client.enqueue([new_job(id="a", gates=gates)])
    assert client.wait(["a"], 10)
    client.enqueue([new_job(id=id, gates=gates) for id in ("b", "c")])
    second = await_why(client, "b", "rate")
    third = why(client, "c")
    assert (second.line.kind, second.line.rate, second.line.ahead) == ("rate", 1, 0)
    assert third.line.ahead == 1
    hour = timedelta(hours=1)
    assert timedelta(minutes=59) < second.until - second.at <= hour
    assert abs(third.until - second.until - hour) < timedelta(seconds=1)
    assert "limit 'api', key 'x', 1 in 3600 s: the next one may start in 60 min" in second.text


def test_one_at_a_rate_within_fixed_windows(client: Client, work):
    work()
    gates = (Gate("api", "", rate=2, period_s=3600.0, fixed=True),)
    client.enqueue([new_job(id=str(number), gates=gates) for number in range(2)])
    for number in range(2):
        assert client.wait([str(number)], 10)
    client.enqueue([new_job(id=id, gates=gates) for id in ("b", "c", "d")])
    await_why(client, "b", "rate")
    ends = [why(client, id).until for id in ("b", "c", "d")]
    assert ends[0] == ends[1]
    assert ends[2] - ends[0] == timedelta(hours=1)


def test_a_rate_that_is_open_does_not_hide_that_nobody_serves_the_queue(client: Client):
    client.enqueue([new_job(id="a", gates=(Gate("api", rate=1, period_s=3600.0),))])
    assert why(client, "a").reason == "no_worker"


def test_one_of_a_paused_queue(client: Client, dsn: str, work):
    work()
    (queue_id,) = client.intern(["q"]).values()
    execute(dsn, "insert into pgcelery.paused (queue_id) values (%s)", queue_id)
    client.enqueue([new_job(id="a"), new_job(id="b", gates=(slots(None),))])
    for id in ("a", "b"):
        found = why(client, id)
        assert (found.reason, found.queue) == ("paused", "q")
        assert found.text.startswith("Its queue 'q' is paused since ")
        assert found.since == execute(dsn, "select at from pgcelery.paused")[0][0]
    execute(dsn, "delete from pgcelery.paused")
    await_why(client, "a", "ended")


@pytest.mark.parametrize("how", ["ready", "scheduled", "gated"])
def test_one_that_has_expired_and_was_not_swept(client: Client, work, how: str):
    more = {"delay_s": 60} if how == "scheduled" else {}
    gates = (slots(1),) if how == "gated" else ()
    if how == "gated":
        work()
        client.enqueue([new_job(b"hold", id="first", gates=gates)])
        await_why(client, "first", "running")
    past = datetime.now(UTC) - timedelta(seconds=5)
    client.enqueue([new_job(id="a", queue="nobody's", expires_at=past, gates=gates, **more)])
    found = await_why(client, "a", "expired")
    assert found.since == found.expires_at == past
    assert found.text.startswith("It expired 5")
    assert {"ready": "No live worker", "scheduled": "It waits for a time",
            "gated": "It waits at limit"}[how] in found.text  # fmt: skip


def test_one_that_was_cancelled_before_it_came(client: Client):
    client.cancel(["a"])
    client.enqueue([new_job(id="a")])
    found = why(client, "a")
    assert (found.reason, found.since) == ("cancelled", found.cancel_at)
    assert found.text.startswith("It was cancelled ")


@pytest.mark.parametrize(
    ("strategy", "reason", "text"),
    [(1, "no_slot", "no slot of its limit was free when it came"),
     (3, "replaced", "a newer one of its limit took its place")],
)  # fmt: skip
def test_one_that_is_being_ended_for_its_limit(
    client: Client, dsn: str, strategy: int, reason: str, text: str
):
    gates = (slots(1, strategy=strategy),)
    for id in ("a", "b", "c"):
        client.enqueue([new_job(id=id, gates=gates)])
    worker = register(dsn)
    with psycopg.connect(dsn, autocommit=True) as conn:
        # A beat has a full worker look at lines, and leaves what is to be ended to a step.
        conn.execute("select * from pgcelery.beat_v2(%s, 30)", [worker])
    found = why(client, "b")
    assert found.reason == reason
    assert found.text == f"It will not run: {text}; the next worker to look ends it."


def test_the_queue_that_is_served_and_the_workers_there_are(client: Client, work):
    work("w1", queues=("mail", "reports"))
    client.enqueue([new_job(id="a", queue="typo")])
    found = why(client, "a")
    assert found.reason == "no_worker"
    assert found.text == "No live worker serves its queue 'typo': w1 serves mail, reports."
    assert [(one.name, one.serves) for one in found.workers] == [("w1", False)]


def label(dsn: str, worker: str, **info: object) -> None:
    query = "update pgcelery.workers set info = info || %s::jsonb where name = %s"
    execute(dsn, query, json.dumps(info), worker)


def test_one_that_requires_labels_that_no_worker_has(client: Client, dsn: str, work):
    work("cpu")
    work("other", queues=("other",))
    label(dsn, "cpu", labels={"gpu": "no"})
    label(dsn, "other", labels={"gpu": "yes"})
    wants = placement.encode({"gpu": "yes"})
    client.enqueue([new_job(id="a", placement=wants)])
    found = why(client, "a")
    assert (found.reason, found.wants) == ("no_suitable_worker", wants)
    assert "None of the live workers of its queue 'q'" in found.text
    assert "cpu serves q." in found.text
    assert {one.name: (one.serves, one.suits) for one in found.workers} == {
        "cpu": (True, False), "other": (False, True),
    }  # fmt: skip
    label(dsn, "cpu", labels={"gpu": "yes"})
    assert why(client, "a").reason in ("next", "running")


def test_one_whose_workers_are_draining(client: Client, dsn: str, work):
    work("w1")
    label(dsn, "w1", draining=True)
    client.enqueue([new_job(id="a", queue="q2")])
    execute(dsn, "update pgcelery.workers set queues = '{q2}'")
    found = why(client, "a")
    assert (found.reason, [one.name for one in found.workers]) == ("draining", ["w1"])
    assert found.text == "Those that could take it are draining, and claim nothing: w1."


def test_one_that_waits_behind_others_of_busy_workers(client: Client, work):
    work("w1", 1)
    client.enqueue([new_job(b"hold", id="run")])
    running_since = await_why(client, "run", "running").since
    client.enqueue([new_job(id=f"low{number}", priority=5) for number in range(3)])
    client.enqueue([new_job(id=f"high{number}", priority=1) for number in range(2)])
    last = why(client, "low2")
    assert (last.reason, last.ahead, last.last_claim) == ("busy", 4, running_since)
    assert last.text.startswith(
        "All workers that could take it are busy: w1 (1 of 1); 4 before it in the queue 'q'."
    )
    assert last.since == client.job("low2").created_at
    assert why(client, "high0").ahead == 0


def test_both_lanes_of_a_queue_count_by_turns(client: Client, work):
    work("w1", 1)
    client.enqueue([new_job(b"hold", id="run")])
    await_why(client, "run", "running")
    client.enqueue([new_job(id=f"plain{number}") for number in range(10)])
    client.enqueue([new_job(id=f"gated{number}", gates=(slots(None),)) for number in range(4)])
    client.enqueue([new_job(queue="other")])
    with running(client.config, Recorder(), queues=("other",), name="w2"):
        await_why(client, "gated3", "busy")
        wait_for(lambda: client.why("gated3").line is None)
    assert [why(client, f"gated{number}").ahead for number in range(4)] == [0, 2, 4, 6]
    assert [why(client, f"plain{number}").ahead for number in (0, 3, 9)] == [0, 6, 13]


def test_what_is_before_it_is_counted_to_a_thousand(client: Client):
    client.enqueue([new_job(id=f"j{number}") for number in range(1100)])
    assert why(client, "j999").ahead == 999
    assert why(client, "j1099").ahead == 1000


def test_one_that_is_ready_behind_others(client: Client, dsn: str, work):
    with psycopg.connect(dsn) as conn:  # as long as this is not over nobody can claim
        client.enqueue([new_job(id="a"), new_job(id="b")])
        conn.execute("select from pgcelery.ready for update")
        work("w1", 3)
        found = why(client, "a")
        assert (found.reason, found.ahead) == ("next", 0)
        assert "It is next in the queue 'q': w1 (0 of 3) will take it in a moment." in found.text
        found = why(client, "b")
        assert (found.reason, found.ahead) == ("queued", 1)
        assert "with 1 before it in the queue 'q', which w1 (0 of 3) take first" in found.text
    await_why(client, "b", "ended")


def test_one_whose_line_nobody_has_looked_at(client: Client, work):
    work("w1", 1)
    client.enqueue([new_job(b"hold", id="run")])
    await_why(client, "run", "running")
    client.enqueue([new_job(id="a", gates=(slots(3),))])
    found = why(client, "a")
    assert (found.reason, found.line.in_use, found.line.slots) == ("busy", 0, 3)
    assert "0 before it in the line of limit 'mail', key 'k'" in found.text


def test_one_that_was_given_up_to_a_replacement(client: Client, work):
    work(handler=Recorder(park=lambda job: done(job, State.WAITING)))
    client.enqueue([new_job(b"park", id="a")])
    assert await_why(client, "a", "parked").state is State.WAITING
    client.enqueue([new_job(b"hold", id="a")])
    await_why(client, "a", "ended")


def test_what_was_stored_by_hand_is_no_job(client: Client):
    client.put_result("a", State.RUNNING, b"progress")
    assert why(client, "a").reason == "nowhere"
    client.put_result("a", State.COMPLETED, b"end")
    assert why(client, "a").reason == "ended"


def test_a_job_whose_row_was_taken_away(client: Client, dsn: str):
    client.enqueue([new_job(id="a")])
    execute(dsn, "delete from pgcelery.ready")
    assert "taken away by hand" in why(client, "a").text


def test_it_can_be_said_as_plain_values(client: Client, work):
    work()
    client.enqueue([new_job(b"hold", id="a", gates=(slots(1),))])
    await_why(client, "a", "running")
    client.enqueue([new_job(id="b", gates=(slots(1),))])
    said = json.loads(json.dumps(await_why(client, "b", "limit").to_dict()))
    assert (said["reason"], said["state"], said["line"]["strategy"]) == (
        "limit", "available", "wait",
    )  # fmt: skip
    assert said["holders"][0]["id"] == "a"
    assert "payload" not in said


def fill(dsn: str, many: int, queue_id: int) -> None:
    """Put as many jobs into each table; in the queue in both of its lanes, and at a limit."""
    places = {"ended": 0, "later": 0, "ready": 0, "fair": 2, "line": 2}
    with psycopg.connect(dsn, autocommit=True) as conn:
        for name, flags in places.items():
            conn.execute(
                "insert into pgcelery.jobs (id, queue_id, priority, max_deliveries, flags, parents,"
                " name, payload, due_at, gates)"
                " select %s || i, %s, 0, 1, %s, 0, 't', '', now() + interval '1 h',"
                " array[row('mail', 'k', 1, 1, 0, null, 1, 1, false, 1)::pgcelery.gate]"
                " from generate_series(1, %s) i",
                [name, queue_id, flags, many],
            )
        conn.execute(
            "insert into pgcelery.results (id, state, finished_at)"
            " select id, 10, now() from pgcelery.jobs where name = 't' and id ~ '^ended'"
        )
        conn.execute(
            "insert into pgcelery.scheduled select queue_id, due_at, seq, id, 0, 0, 0"
            " from pgcelery.jobs where id ~ '^later'"
        )
        conn.execute(
            "insert into pgcelery.ready select queue_id, 0, seq, id, 0, 0, 0"
            " from pgcelery.jobs where id ~ '^ready'"
        )
        conn.execute(
            "insert into pgcelery.ready select -queue_id, 0, seq, id, 0, 2, seq"
            " from pgcelery.jobs where id ~ '^fair'"
        )
        conn.execute(
            "insert into pgcelery.gated select 'mail', 'k', 0, seq, id, queue_id, 0, 2"
            " from pgcelery.jobs where id ~ '^line'"
        )
        conn.execute("analyze")  # fmt: skip


def pages_read(dsn: str, id: str) -> int:
    """How many pages of tables and indexes it looks at, once it is planned."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("vacuum full pgcelery.running")  # what other tests left is not its reading
        conn.execute("select pgcelery.why_v1(%s)", [id])
        plan = conn.execute(
            "explain (analyze, buffers, format json) select pgcelery.why_v1(%s)", [id]
        ).fetchone()[0][0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def test_little_is_read_however_much_there_is(client: Client, dsn: str, work):
    work("w1", 2)
    client.enqueue([new_job(b"hold", id="runs", gates=(slots(1),))])
    await_why(client, "runs", "running")
    (queue_id,) = client.intern(["nobody's"]).values()
    fill(dsn, 5000, queue_id)
    header = [new_job(id=f"m{number}", workflow="w", queue="other") for number in range(1000)]
    body = new_job(id="body", workflow="w", parents=tuple(one.id for one in header))
    client.enqueue([*header, body])
    asked = {"runs": "running", "ready4999": "no_worker", "line4999": "limit", "body": "parents",
             "later4999": "scheduled", "fair4999": "no_worker", "ended4999": "ended",
             "nobody": None}  # fmt: skip
    for id, reason in asked.items():
        found = client.why(id)
        assert (found and found.reason) == reason
        with psycopg.connect(dsn) as conn:
            conn.execute("select pgcelery.why_v1(%s)", [id])
            counts = conn.execute(
                "select relname, seq_scan, idx_tup_fetch from pg_stat_xact_user_tables"
                " where schemaname = 'pgcelery' and relname = any (%s)",
                [list(TABLES)],
            ).fetchall()
        assert {name: scans for name, scans, _ in counts} == dict.fromkeys(TABLES, 0)
        read = {name: rows for name, _, rows in counts}
        most = {"jobs": 30, "ready": 3000, "gated": 1001, "results": 11, "scheduled": 11}
        assert {name: rows for name, rows in read.items() if rows > most[name]} == {}, id
        if id in ("runs", "later4999", "ended4999", "nobody"):  # that walk along nothing
            assert pages_read(dsn, id) < 100, id


def test_the_rates_that_workers_keep_are_named_until_one_has_none(client: Client, work):
    jobs = [new_job(name="limited") for _ in range(5)]
    client.enqueue(jobs)
    work("a", rates={"limited": 1 / 360})
    work("b", rates={"limited": 0.025})
    said = (
        "It waits for the rate of its workers, which each start so many limited: a 10/h, b 1.5/m;"
        " 2 before it."
    )
    wait_for(lambda: str(why(client, jobs[4].id)) == said, 10)
    found = why(client, jobs[4].id)
    assert found.reason == "worker_rate"
    assert (found.queue, found.wants, found.state) == ("q", "", State.AVAILABLE)
    assert {one.name: one.rate for one in found.workers} == {
        "a": pytest.approx(1 / 360),
        "b": 0.025,
    }
    json.dumps(found.to_dict())
    work("c")
    wait_for(lambda: why(client, jobs[4].id).reason == "ended", 10)
