"""Chains whose steps the pool processes record and claim by themselves, and those they must not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate, Job, State
from pgcelery.engine.pool import child
from tests.support.jobs import new_job, running
from tests.support.relays import (
    MOVING,
    Notes,
    TellingPool,
    at_work,
    chain_of,
    contents,
    result_of,
    rows,
    settled,
)
from tests.support.wait import wait_for


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


IDS = [f"s{n:02}" for n in range(12)]


def left_by(client: Client, folder: Path, dsn: str, *, relay: bool) -> tuple[Any, list[str]]:
    """Run a chain; what it leaves in the tables, and who heard what."""
    folder.mkdir()
    notes, pool = Notes(folder), TellingPool()
    config = replace(client.config, relay=relay)
    with closing(Client(config)) as other, at_work(other, notes, pool):
        notes.heard.clear()
        client.enqueue(chain_of(IDS, workflow="w"))
        assert client.wait(IDS[-1:], 10)[IDS[-1]].result == result_of(IDS)
        wait_for(lambda: ("finished", IDS[-1]) in notes.heard)
        assert [one for one in notes.ran() if one in IDS] == IDS
        assert [one for one in pool.relayed() if one in IDS] == (IDS if relay else [])
    left = {
        "jobs": rows(
            dsn,
            "select id, flags, parents, payload, due_at, expires_at, last_token, parked, workflow,"
            " sent is null, lives_s from pgcelery.jobs where id = any (%s) order by id",
            IDS,
        ),
        "results": rows(
            dsn,
            "select id, state, token is null, result, expires_at - finished_at"
            " from pgcelery.results where id = any (%s) order by id",
            IDS,
        ),
        **contents(dsn, *MOVING),
    }
    client.forget(IDS)
    return left, notes.heard


def test_a_chain_leaves_the_same_and_is_heard_of_in_the_same_order_either_way(
    client: Client, dsn: str, tmp_path: Path
):
    by_itself = left_by(client, tmp_path / "on", dsn, relay=True)
    by_the_node = left_by(client, tmp_path / "off", dsn, relay=False)
    assert by_itself == by_the_node
    assert by_itself[1][:4] == [
        ("received", IDS[0]),
        ("finished", IDS[0]),
        ("received", IDS[1]),
        ("finished", IDS[1]),
    ]


def test_tokens_of_runs_are_never_used_twice(client: Client, dsn: str, notes: Notes):
    with at_work(client, notes, TellingPool(2)):
        for n in range(6):
            client.enqueue(chain_of([f"{n}-{m}" for m in range(6)]))
        for n in range(6):
            assert client.wait([f"{n}-5"], 10)
    found = rows(dsn, "select token from pgcelery.results")
    assert len({token for (token,) in found}) == len(found)


def fan_out(first, second):
    return [first, second, new_job(id="c", parents=("a",))]


def fan_in(first, second):
    return [first, new_job(id="c"), second._replace(parents=("a", "c"))]


ONE = (Gate("k", slots=1),)
PAST = datetime.now(UTC) - timedelta(seconds=1)
FUTURE = datetime.now(UTC) + timedelta(hours=1)
#: How a workflow of a and b, which waits for a, differs, and what becomes of b.
NOT_RELAYED = {
    "fan_out": (fan_out, State.COMPLETED),
    "fan_in": (fan_in, State.COMPLETED),
    "gate": (lambda a, b: [a, b._replace(gates=ONE)], State.COMPLETED),
    "own_gate": (lambda a, b: [a._replace(gates=ONE), b], State.COMPLETED),
    "sticky": (lambda a, b: [a, b._replace(sticky=2)], State.COMPLETED),
    "delay": (lambda a, b: [a, b._replace(delay_s=0.01)], State.COMPLETED),
    "time": (lambda a, b: [a, b._replace(due_at=PAST)], State.COMPLETED),
    "later": (lambda a, b: [a, b._replace(due_at=FUTURE)], State.SCHEDULED),
    "life": (lambda a, b: [a, b._replace(lives_s=60.0)], State.COMPLETED),
    "expired": (lambda a, b: [a, b._replace(expires_at=PAST)], State.FAILED),
    "queue": (lambda a, b: [a, b._replace(queue="elsewhere")], State.AVAILABLE),
    "failed": (lambda a, b: [a._replace(payload=b"fail"), b], State.FAILED),
}


@pytest.mark.parametrize("case", NOT_RELAYED)
def test_what_is_no_plain_step_goes_by_the_node(client: Client, notes: Notes, case: str):
    change, state = NOT_RELAYED[case]
    pool = TellingPool()
    with at_work(client, notes, pool):
        client.enqueue(change(*chain_of(["a", "b"])))
        wait_for(lambda: client.job("b").state is state)
    assert "a" not in pool.relayed()
    assert notes.late_outcomes == []


@pytest.mark.parametrize(
    "case", [*NOT_RELAYED, "token", "worker", "lease", "cancelled", "gone", "paused"]
)
def test_in_any_other_case_the_function_changes_nothing(client: Client, dsn: str, case: str):
    change, _ = NOT_RELAYED.get(case, (lambda a, b: [a, b], None))
    client.enqueue(change(*chain_of(["a", "b"])))
    with psycopg.connect(dsn, autocommit=True) as conn:
        me, queue_id = claim(conn, "a")
        token = 7 if case == "token" else 1
        if case == "failed":
            return  # what failed is never given to it
        if case == "worker":
            conn.execute("delete from pgcelery.workers")
        if case == "lease":
            conn.execute("update pgcelery.workers set lease_until = now() + interval '5 s'")
        if case == "cancelled":
            conn.execute("insert into pgcelery.cancels values ('b', false, 15)")
        if case == "paused":
            conn.execute("insert into pgcelery.paused (queue_id) values (%s)", [queue_id])
        if case == "gone":
            conn.execute("delete from pgcelery.nodes")
        before = contents(dsn, *MOVING, "results", "jobs")
        row = conn.execute(
            "select * from pgcelery.relay_v3(%s, %s, 'a', 'x', null, 99, %s, 6, '{}')",
            [me, token, [queue_id]],
        ).fetchone()
    assert row == (None,) * 8
    assert contents(dsn, *MOVING, "results", "jobs") == before


def claim(conn: psycopg.Connection[Any], job_id: str) -> tuple[int, int]:
    """Let a worker have claimed a job under token 1; the worker's id and the job's queue's."""
    (me,) = conn.execute(
        "insert into pgcelery.workers (name, host, pid, queues, info, lease_until)"
        " values ('w', 'h', 1, '{}', '{}', now() + interval '1 min') returning id"
    ).fetchone()
    conn.execute("delete from pgcelery.ready")
    conn.execute("delete from pgcelery.gated where job_id = %s", [job_id])
    (queue_id,) = conn.execute(
        "insert into pgcelery.running (token, job_id, worker_id, queue_id, delivery, flags)"
        " select 1, id, %s, queue_id, 1, flags & 3 from pgcelery.jobs where id = %s"
        " returning queue_id",
        [me, job_id],
    ).fetchone()
    return me, queue_id


def test_a_child_that_is_joined_meanwhile_undoes_the_step(client: Client, dsn: str):
    client.enqueue(chain_of(["a", "b"]))
    with psycopg.connect(dsn, autocommit=True) as conn, psycopg.connect(dsn) as other:
        me, queue_id = claim(conn, "a")
        other.execute("select pgcelery.join_v1('{new}', '{a}')")
        failed: list[BaseException] = []

        def relay() -> None:
            try:
                conn.execute(
                    "select * from pgcelery.relay_v3(%s, 1, 'a', 'x', null, 99, %s, 6, '{}')",
                    [me, [queue_id]],
                )
            except psycopg.errors.SerializationFailure as error:
                failed.append(error)

        thread = threading.Thread(target=relay)
        thread.start()
        waits = "select from pg_locks where not granted"
        wait_for(lambda: rows(dsn, waits))
        other.commit()
        thread.join(10)
    assert failed
    assert [row[:2] for row in contents(dsn, "running")["running"]] == [(1, "a")]
    assert contents(dsn, "results") == {"results": []}


def test_a_later_step_that_is_cancelled_does_not_run(client: Client, notes: Notes):
    first, second, third, fourth = chain_of(["a", "b", "c", "d"])
    pool = TellingPool()
    with at_work(client, notes, pool):
        client.enqueue([first, second._replace(payload=b"hold"), third, fourth])
        wait_for(lambda: notes.begun("b"))
        assert client.cancel(["c"]) == {"c": State.CANCELLED}
        notes.release("b")
        assert client.wait(["d"], 10)["d"].state is State.FAILED
    assert [one for one in notes.ran() if one in "abcd"] == ["a", "b", "d"]  # d, to be ended
    assert client.results(["b"])["b"].state is State.COMPLETED
    assert pool.relayed() == ["a"]


def test_a_step_that_is_to_be_cancelled_when_its_turn_comes_ends_cancelled(
    client: Client, notes: Notes
):
    """The wish is there before the job: an id that nothing was known of."""
    client.cancel(["b"])
    with at_work(client, notes, TellingPool()):
        client.enqueue(chain_of(["a", "b"]))
        assert client.wait(["b"], 10)
    assert notes.losses["b"].kind == "cancelled"
    assert "b" not in notes.ran()


def test_a_running_step_is_terminated_and_no_other(client: Client, notes: Notes):
    steps = [job._replace(payload=b"hold") for job in chain_of(["a", "b", "c"])]
    with at_work(client, notes, TellingPool()) as worker:
        client.enqueue(steps)
        notes.release("a")
        wait_for(lambda: notes.begun("b"))
        wait_for(lambda: [one.job.id for one in worker.active()] == ["b"])
        client.cancel(["b"], terminate=True)
        notes.release("c")
        assert client.wait(["c"], 10)
    assert notes.losses["b"].kind == "terminated"
    assert client.results(["a"])["a"].state is State.COMPLETED
    assert notes.late_outcomes == []


@pytest.mark.parametrize(
    ("limits", "result"), [((None, 0.2), b"time_limit"), ((0.2, None), b"soft")]
)
def test_time_limits_hold_in_a_step_that_was_relayed(
    client: Client, tmp_path: Path, limits: tuple[float | None, float | None], result: bytes
):
    notes, pool = Notes(tmp_path, {"b": limits}), TellingPool()
    first, second = chain_of(["a", "b"])
    with at_work(client, notes, pool):
        client.enqueue([first, second._replace(payload=b"hold")])
        done = client.wait(["b"], 10)["b"]
    assert (done.state, done.result) == (State.FAILED, result)
    assert pool.relayed() == ["a"]


def test_nothing_is_relayed_when_somebody_must_hear_first(client: Client, notes: Notes):
    pool = TellingPool()
    with at_work(client, notes, pool):
        notes.first = True
        client.enqueue([new_job(id="alone")])  # after its round the node has asked
        assert client.wait(["alone"], 10)
        wait_for(lambda: pool._crew.terms is None)
        pool.steps.clear()
        client.enqueue(chain_of(IDS))
        assert client.wait(IDS[-1:], 10)
        assert pool.relayed() == []
        assert notes.heard[-24:-20] == [
            ("received", IDS[0]),
            ("finished", IDS[0]),
            ("received", IDS[1]),
            ("finished", IDS[1]),
        ]


@pytest.mark.parametrize("how", ["stop", "drain", "cancel_queue"])
def test_a_chain_goes_elsewhere_once_the_worker_takes_no_more(
    client: Client, tmp_path: Path, notes: Notes, how: str
):
    ids = [f"s{n:03}" for n in range(200)]
    jobs = chain_of(ids)
    jobs[5] = jobs[5]._replace(payload=b"hold")
    pool = TellingPool()
    with at_work(client, notes, pool) as worker:
        client.enqueue(jobs)
        wait_for(lambda: notes.begun(ids[5]))
        if how == "stop":
            worker.stop()
            wait_for(lambda: worker._recalled)
        elif how == "drain":
            worker.drain()
            wait_for(lambda: pool._crew.terms is None)
        else:
            worker.cancel_queue("q")
            wait_for(lambda: not worker._node.territory.queues)
            wait_for(lambda: pool._crew.terms is None or not pool._crew.terms.queues)
        notes.release(ids[5])
        wait_for(lambda: client.results([ids[5]]))
        wait_for(lambda: client.job(ids[6]).state is State.AVAILABLE)
    assert [one for one in notes.ran() if one in ids] == ids[:6]
    with running(client.config, notes, pool=TellingPool()):  # type: ignore[arg-type]
        assert result_of(ids).endswith(client.wait(ids[-1:], 20)[ids[-1]].result)
    assert [one for one in notes.ran() if one in ids] == ids


def test_a_child_is_replaced_after_so_many_jobs_in_the_middle_of_a_chain(
    client: Client, notes: Notes, dsn: str
):
    ids = [f"s{n:03}" for n in range(40)]
    pool = TellingPool(max_jobs_per_child=7)
    with running(client.config, notes, pool=pool):  # type: ignore[arg-type]
        client.enqueue(chain_of(ids))
        assert result_of(ids).endswith(client.wait(ids[-1:], 20)[ids[-1]].result)
        wait_for(lambda: settled(dsn))
        assert pool._crew._forks >= len(ids) // 7
    assert notes.ran() == ids


class Opening(Notes):
    """Notes too which jobs were opened."""

    def open(self, job: Job) -> Any:
        (self.folder / f"opened-{job.id}").touch()
        return super().open(job)


@contextmanager
def at_commit(dsn: str, does: str) -> Iterator[psycopg.Connection[Any]]:
    """Let every connection of a pool process do something at the end of its transactions."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(
            "create function pgcelery.at_end() returns trigger language plpgsql as $$ begin"
            f" if current_setting('application_name') like '% relay' then {does}; end if;"
            " return null; end $$"
        )
        conn.execute(
            "create constraint trigger at_end after insert on pgcelery.results"
            " deferrable initially deferred for each row execute function pgcelery.at_end()"
        )
        try:
            yield conn
        finally:
            conn.execute("drop function pgcelery.at_end cascade")


def test_what_comes_next_is_opened_before_the_commit_and_begins_after_it(
    client: Client, dsn: str, tmp_path: Path
):
    notes, lock = Opening(tmp_path), "perform pg_advisory_xact_lock_shared(7)"
    first, second, third = chain_of(["a", "b", "c"])
    with at_commit(dsn, lock) as other, at_work(client, notes, TellingPool()):
        client.enqueue([first, second._replace(payload=b"hold"), third])
        wait_for(lambda: notes.begun("b"))
        other.execute("select pg_advisory_lock(7)")
        notes.release("b")
        wait_for((tmp_path / "opened-c").exists)
        wait_for(lambda: rows(dsn, "select from pg_locks where not granted"))
        assert not notes.begun("c")
        other.execute("select pg_advisory_unlock(7)")
        assert client.wait(["c"], 10)["c"].result == b">a>b>c"
    assert [one for one in notes.ran() if one in "abc"] == ["a", "b", "c"]


def test_what_was_opened_does_not_begin_when_the_commit_fails(
    client: Client, dsn: str, tmp_path: Path
):
    notes, pool = Opening(tmp_path), TellingPool()
    with at_commit(dsn, "raise exception 'not this one'"), at_work(client, notes, pool):
        client.enqueue(chain_of(["a", "b", "c"]))
        assert client.wait(["c"], 10)["c"].result == b">a>b>c"
    assert pool.relayed() == []
    assert (tmp_path / "opened-b").exists()
    assert [one for one in notes.ran() if one in "abc"] == ["a", "b", "c"]


def test_a_step_that_dies_is_the_one_that_is_lost(client: Client, notes: Notes):
    """Nobody was woken to hear that it began."""
    ids = [f"s{n}" for n in range(5)]
    jobs = chain_of(ids)
    jobs[3] = jobs[3]._replace(payload=b"die")
    pool = TellingPool()
    with at_work(client, notes, pool):
        client.enqueue(jobs)
        assert client.wait(ids[-1:], 10)[ids[-1]].state is State.FAILED
    ended = client.results(ids)
    assert [ended[one].state for one in ids] == [State.COMPLETED] * 3 + [State.FAILED] * 2
    assert {one: why.kind for one, why in notes.losses.items()} == {"s3": "child_lost"}
    assert pool.relayed() == ids[:3]
    assert notes.late_outcomes == []


def test_a_worker_finds_out_what_it_was_not_woken_for(client: Client, notes: Notes):
    config = replace(
        client.config, poll_min_s=60, poll_max_s=60, heartbeat_s=60, maintain_s=60, lease_s=300
    )
    first, second = chain_of(["a", "b"])
    with closing(Client(config)) as other, at_work(other, notes, TellingPool()) as worker:
        client.enqueue([first, second._replace(payload=b"hold")])
        wait_for(lambda: [one.job.id for one in worker.active()] == ["b"], timeout_s=5)
        assert notes.begun("b")
        notes.release("b")
        assert client.wait(["b"], 10)


def test_what_is_larger_than_the_memory_for_news_is_told_all_the_same(client: Client, notes: Notes):
    ids = [f"s{n}" for n in range(8)]
    jobs = [job._replace(payload=b"x" * (1 << 15 + n % 4)) for n, job in enumerate(chain_of(ids))]
    pool = TellingPool()
    with at_work(client, notes, pool):
        notes.heard.clear()
        client.enqueue(jobs)
        assert client.wait(ids[-1:], 10)[ids[-1]].result == result_of(ids)
        wait_for(lambda: ("finished", ids[-1]) in notes.heard)
    told = [(word, one) for one in ids for word in ("received", "finished")]
    assert [one for one in notes.heard if one[1] in ids] == told


def test_behind_a_transaction_pooler_nothing_is_prepared(client: Client, notes: Notes, dsn: str):
    pool, config = TellingPool(), replace(client.config, listen=False)
    with closing(Client(config)) as other, at_work(other, notes, pool):
        client.enqueue(chain_of(IDS))
        assert client.wait(IDS[-1:], 10)[IDS[-1]].result == result_of(IDS)
    assert pool.relayed() == IDS


def test_only_children_that_run_steps_connect_and_they_close_at_their_end(
    client: Client, notes: Notes, dsn: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(child, "_ENDING", 0)  # tests/engine/test_ending.py
    there: Callable[[], int] = lambda: len(  # noqa: E731
        rows(
            dsn,
            "select from pg_stat_activity where application_name = 'pgcelery relay'"
            " and datname = current_database()",
        )
    )
    with running(client.config, notes, pool=TellingPool(2)):  # type: ignore[arg-type]
        for n in range(20):
            client.enqueue([new_job(id=f"alone-{n}")])
        for n in range(20):
            assert client.wait([f"alone-{n}"], 10)
        assert there() == 0
        client.enqueue(chain_of(["a", "b"]))
        assert client.wait(["b"], 10)
        wait_for(lambda: there() >= 1)
    wait_for(lambda: there() == 0)
