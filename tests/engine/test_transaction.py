"""Runs whose SQL commits with their completion: what is recorded, and what becomes of the rest."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from pgcelery.engine import (
    Client,
    DatabaseUnavailable,
    Gate,
    Job,
    NewJob,
    NotCurrent,
    Outcome,
    State,
    Transactions,
)
from pgcelery.engine.database import load
from tests.support.commits import CommitProxy, Effects, fetch, insert
from tests.support.jobs import new_job
from tests.support.nodes import Claim, SimNode, connect, job_of
from tests.support.wait import wait_for


@pytest.fixture
def effects(dsn: str) -> Iterator[Effects]:
    with closing(Effects(dsn)) as effects:
        yield effects


@pytest.fixture
def node(client: Client, dsn: str) -> Iterator[SimNode]:
    with closing(connect(dsn)) as conn:
        yield SimNode(client, conn, "n", ["q"])


@pytest.fixture
def transactions(client: Client) -> Iterator[Transactions]:
    with closing(Transactions(client)) as transactions:
        yield transactions


def claimed(client: Client, node: SimNode, *jobs: NewJob) -> list[Job]:
    client.enqueue(jobs)
    return [job_of(claim) for claim in node.step(len(jobs)).claims]


def completed(job: Job, **fields: Any) -> Outcome:
    return Outcome(job.id, job.token, State.COMPLETED, b"done", **fields)


def given_back(job: Job, **fields: Any) -> Outcome:
    return Outcome(job.id, job.token, State.AVAILABLE, **fields)


def state_of(client: Client, job: Job) -> State:
    found = client.job(job.id)
    assert found is not None
    return found.state


def test_what_a_run_did_appears_with_its_result(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects
):
    (job,) = claimed(client, node, new_job())
    with transactions.begin(job.token) as run:
        insert(run.connection, 1)
        assert (effects.numbers(), state_of(client, job)) == ([], State.RUNNING)
        run.record(job, completed(job))
        assert (effects.numbers(), state_of(client, job)) == ([1], State.COMPLETED)
    assert client.results([job.id])[job.id].result == b"done"


def test_what_is_not_recorded_is_not_there(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects
):
    (job,) = claimed(client, node, new_job())
    with transactions.begin(job.token) as run:
        insert(run.connection, 1)
    assert (effects.numbers(), state_of(client, job)) == ([], State.RUNNING)


def test_a_run_that_lost_its_job_leaves_nothing(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects
):
    (old,) = claimed(client, node, new_job(max_deliveries=5))
    with transactions.begin(old.token) as zombie:
        insert(zombie.connection, 1)
        with psycopg.connect(effects.dsn) as conn:
            conn.execute("delete from pgcelery.workers where id = %s", [node.id])  # it fell silent
        other = SimNode(client, node.conn, "other", ["q"])
        assert other.maintain() == []
        (new,) = (job_of(claim) for claim in other.step(1).claims)
        with transactions.begin(new.token) as run:
            insert(run.connection, 2)
            run.record(new, completed(new))
        with pytest.raises(NotCurrent):
            zombie.record(old, completed(old))
    assert effects.numbers() == [2]
    assert node.again([given_back(old)]) == [old.id]
    ((reason, state),) = fetch(effects.dsn, "select reason, state from pgcelery.late")
    assert (reason, state) == ("reassigned", State.AVAILABLE)
    assert state_of(client, new) is State.COMPLETED


def test_of_two_transactions_of_one_run_the_second_is_refused(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects
):
    (job,) = claimed(client, node, new_job())
    with (
        transactions.begin(job.token) as first,
        transactions.begin(job.token) as second,
        ThreadPoolExecutor(1) as thread,
    ):
        insert(first.connection, 1)
        insert(second.connection, 2)
        params = transactions.record_params(job, completed(job))
        psycopg.RawCursor(first.connection).execute(load("runs/record", "pgcelery"), params)
        waiting = thread.submit(second.record, job, completed(job))
        blocked = "select cardinality(pg_blocking_pids(%s)) > 0"
        pid = second.connection.info.backend_pid
        wait_for(lambda: fetch(effects.dsn, blocked, [pid]) == [(True,)])
        first.commit()
        with pytest.raises(NotCurrent):
            waiting.result(10)
    assert effects.numbers() == [1]


def test_nothing_is_locked_while_the_body_works(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects
):
    (job,) = claimed(client, node, new_job())
    with transactions.begin(job.token) as run:
        insert(run.connection, 1)
        query = "select token from pgcelery.running for update nowait"
        assert fetch(effects.dsn, query) == [(job.token,)]
        node.beat()
        node.maintain()
        assert client.cancel([job.id]) == {job.id: State.RUNNING}
        run.record(job, completed(job))
    assert effects.numbers() == [1]


@pytest.mark.parametrize(
    ("lost", "there"), [("requests", False), ("answers", True)], ids=["not made", "made"]
)
def test_a_commit_without_an_answer_is_settled_by_giving_the_job_back(
    client: Client, node: SimNode, effects: Effects, tmp_path: Path, lost: str, there: bool
):
    (job,) = claimed(client, node, new_job(max_deliveries=5))
    with closing(CommitProxy(client.config.dsn, tmp_path)) as proxy:
        config = replace(client.config, dsn=proxy.dsn)
        with (
            closing(Client(config)) as other,
            closing(Transactions(other)) as transactions,
            transactions.begin(job.token) as run,
        ):
            insert(run.connection, 1)
            proxy.at_commit = lost
            with pytest.raises(DatabaseUnavailable):
                run.record(job, completed(job))
            assert proxy.lost == 1
            assert run.broken
    assert node.again([given_back(job, counted=True)]) == []
    assert effects.numbers() == ([1] if there else [])
    assert state_of(client, job) is (State.COMPLETED if there else State.AVAILABLE)
    assert fetch(effects.dsn, "select * from pgcelery.late") == []
    assert [claim.delivery for claim in node.step(1).claims] == ([] if there else [2])


def test_who_falls_silent_before_the_commit_loses_the_lock_and_all_it_did(
    client: Client, node: SimNode, effects: Effects
):
    (job,) = claimed(client, node, new_job(max_deliveries=5))
    config = replace(client.config, lease_s=1.0, heartbeat_s=0.5)
    with (
        closing(Client(config)) as other,
        closing(Transactions(other)) as transactions,
        transactions.begin(job.token) as run,
    ):
        insert(run.connection, 1)
        pid, commit = run.connection.info.backend_pid, run.commit
        gone = "select from pg_stat_activity where pid = %s"

        def late_commit() -> None:
            wait_for(lambda: not fetch(effects.dsn, gone, [pid]), 10)
            commit()

        run.commit = late_commit  # type: ignore[method-assign]
        with pytest.raises(DatabaseUnavailable):
            run.record(job, completed(job))
    assert node.again([given_back(job)]) == []
    assert effects.numbers() == []
    assert state_of(client, job) is State.AVAILABLE


@pytest.mark.parametrize("act", ["commit", "rollback", "close"])
def test_the_body_does_not_end_its_transaction(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects, act: str
):
    (job,) = claimed(client, node, new_job())
    with transactions.begin(job.token) as run:
        insert(run.connection, 1)
        with pytest.raises(psycopg.ProgrammingError, match="by its body"):
            getattr(run.connection, act)()
        run.record(job, completed(job))
    assert effects.numbers() == [1]


def test_a_transaction_that_was_ended_by_a_statement_records_nothing(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects
):
    (job,) = claimed(client, node, new_job())
    with transactions.begin(job.token) as run:
        run.connection.execute("rollback")
        insert(run.connection, 1)
        with pytest.raises(psycopg.ProgrammingError, match="was ended by its body"):
            run.record(job, completed(job))
    assert effects.numbers() == []
    assert state_of(client, job) is State.RUNNING


def test_savepoints_are_the_bodys_own(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects
):
    (job,) = claimed(client, node, new_job())
    with transactions.begin(job.token) as run:
        insert(run.connection, 1)
        with run.connection.transaction() as inner:
            insert(run.connection, 2)
            raise psycopg.Rollback(inner)
        with run.connection.transaction():
            insert(run.connection, 3)
        run.record(job, completed(job))
    assert effects.numbers() == [1, 3]


def test_what_the_server_refuses_at_the_commit_undoes_the_run(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects
):
    (job,) = claimed(client, node, new_job())
    with transactions.begin(job.token) as run:
        run.connection.execute("create table once (n integer unique deferrable initially deferred)")
        run.connection.execute("insert into once values (1), (1)")
        with pytest.raises(psycopg.errors.UniqueViolation):
            run.record(job, completed(job))
    assert state_of(client, job) is State.RUNNING


def test_children_and_follow_ups_come_with_it_and_their_delays_count_from_the_end(
    client: Client, node: SimNode, transactions: Transactions, effects: Effects
):
    first = new_job(id="first", workflow="w", lives_s=None)
    after = [
        new_job(id="child", parents=("first",), workflow="w"),
        new_job(id="later", parents=("first",), delay_s=60.0, workflow="w"),
        new_job(id="mortal", parents=("first",), lives_s=60.0, workflow="w"),
    ]
    client.enqueue([first, *after])
    (job,) = (job_of(claim) for claim in node.step(1).claims)
    links = (new_job(id="link"), new_job(id="slow link", delay_s=60.0))
    with transactions.begin(job.token) as run:
        run.connection.execute("select pg_sleep(0.5)")
        ((ended,),) = fetch(effects.dsn, "select clock_timestamp()")
        recorded = run.record(job, completed(job, follow_ups=links, ttl_s=60.0))
    due = dict(
        fetch(
            effects.dsn,
            "select job_id, extract(epoch from due_at - %s) from pgcelery.scheduled",
            [ended],
        )
    )
    assert due.keys() == {"later", "slow link"}
    assert all(60 <= seconds < 65 for seconds in due.values())
    query = (
        "select extract(epoch from j.due_at - s.due_at) from pgcelery.scheduled s"
        " join pgcelery.jobs j on j.id = s.job_id"
    )
    assert {drift for (drift,) in fetch(effects.dsn, query)} == {0}
    lives = "select extract(epoch from expires_at - %s) from pgcelery.jobs where id = 'mortal'"
    assert 60 <= fetch(effects.dsn, lives, [ended])[0][0] < 65
    kept = (
        "select extract(epoch from finished_at - %s), extract(epoch from expires_at - %s)"
        " from pgcelery.results"
    )
    ((finished, expires),) = fetch(effects.dsn, kept, [ended, ended])
    assert 0 <= finished < 5
    assert 60 <= expires < 65
    woken = {queue_id for kind, _, queue_id, _ in recorded.news if kind == 8}
    assert woken == {client.intern(["q"])["q"]}
    assert {c.job_id for c in node.step(9).claims} == {"child", "mortal", "link"}
    assert fetch(effects.dsn, "select distinct workflow from pgcelery.jobs") == [("w",)]


def test_a_sticky_child_goes_to_the_worker_that_freed_it(
    client: Client, node: SimNode, transactions: Transactions
):
    other = SimNode(client, node.conn, "other", ["q"])
    client.enqueue([new_job(id="first"), new_job(id="second", parents=("first",), sticky=2)])
    (job,) = (job_of(claim) for claim in node.step(1).claims)
    with transactions.begin(job.token) as run:
        run.record(job, completed(job))
    assert other.step(1).claims == []
    ((own,),) = fetch(client.config.dsn, "select own from pgcelery.places")
    assert own == "n"


def test_what_is_dropped_is_gone_and_who_waited_for_it_hears(
    client: Client, node: SimNode, transactions: Transactions
):
    ids = ["first", "second", "third"]
    parents = [(), ("first",), ("second",)]
    client.enqueue(
        [new_job(id=one, parents=after) for one, after in zip(ids, parents, strict=True)]
    )
    (job,) = (job_of(claim) for claim in node.step(1).claims)
    with transactions.begin(job.token) as run:
        run.record(job, completed(job, drops=("second",)))
    (claim,) = node.step(2).claims
    assert (claim.job_id, claim.flags & 4) == ("third", 4)


def test_a_slot_is_free_again_with_the_commit(
    client: Client, node: SimNode, transactions: Transactions
):
    gate = Gate("limit", "key", slots=1)
    client.enqueue([new_job(id="a", gates=(gate,)), new_job(id="b", gates=(gate,))])
    claims: list[Claim] = []
    wait_for(lambda: claims.extend(node.step(2).claims) or claims)
    assert [claim.job_id for claim in claims] == ["a"]
    job = job_of(claims[0])
    with transactions.begin(job.token) as run:
        assert node.step(1).claims == []
        recorded = run.record(job, completed(job))
    assert any(kind == 8 for kind, *_ in recorded.news)
    wait_for(lambda: [claim.job_id for claim in node.step(1).claims] == ["b"])
    ((in_use,),) = fetch(client.config.dsn, "select in_use from pgcelery.lines")
    assert in_use == 1


def test_who_waits_for_the_result_is_named(
    client: Client, node: SimNode, transactions: Transactions, dsn: str
):
    (job,) = claimed(client, node, new_job())
    with psycopg.connect(dsn) as conn:
        conn.execute(
            "insert into pgcelery.waiters values (%s, 'ear', now() + interval '1 hour')", [job.id]
        )
    with transactions.begin(job.token) as run:
        recorded = run.record(job, completed(job))
    assert (5, job.id, None, "ear") in recorded.news


def test_connections_are_kept_clean_and_broken_ones_replaced(
    transactions: Transactions, dsn: str, effects: Effects
):
    with transactions.begin(1) as run:
        first = run.connection
        first.row_factory = dict_row
        with pytest.raises(psycopg.errors.UndefinedTable):
            first.execute("select * from nowhere")
    with transactions.begin(2) as run:
        assert run.connection is first
        assert run.connection.execute("select 1").fetchone() == (1,)
        with transactions.begin(3) as another:
            assert another.connection is not first
    fetch(dsn, "select pg_terminate_backend(pid) from pg_stat_activity"
               " where application_name = 'pgcelery run'")  # fmt: skip
    with transactions.begin(4) as run:
        assert run.connection.execute("select 1").fetchone() == (1,)


def test_a_job_that_is_given_back_for_a_while_keeps_its_count(client: Client, node: SimNode):
    (job,) = claimed(client, node, new_job(max_deliveries=5))
    node.again([given_back(job, counted=True)])
    (claim,) = node.step(1).claims
    assert claim.delivery == 2
    assert node.again([given_back(job_of(claim), delay_s=0.05)]) == []
    assert state_of(client, job) is State.SCHEDULED
    found: list[Claim] = []
    wait_for(lambda: found.extend(node.step(1).claims) or found)
    assert found[0].delivery == 2
