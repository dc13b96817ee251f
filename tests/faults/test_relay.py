"""Chains that pool processes go on with by themselves, while connections and processes end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, State
from pgcelery.engine.link import LinkState
from pgcelery.engine.pool import child
from tests.support.jobs import new_job
from tests.support.relays import (
    Notes,
    Proxy,
    TellingPool,
    at_work,
    chain_of,
    result_of,
    rows,
    settled,
    warm,
)
from tests.support.wait import wait_for

pytestmark = pytest.mark.fault


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture
def proxy(dsn: str, tmp_path: Path) -> Iterator[Proxy]:
    proxy = Proxy(dsn, tmp_path)
    yield proxy
    proxy.close()


IDS = [f"s{n:02}" for n in range(12)]


def test_connections_that_break_cost_no_step(client: Client, notes: Notes, dsn: str):
    """Each run is at most once, and each runs."""
    chains = [[f"{n}-{m:02}" for m in range(15)] for n in range(12)]
    pool = TellingPool(2)
    over = threading.Event()

    def terminate() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not over.wait(0.003):
                conn.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name = 'pgcelery relay' and datname = current_database()"
                )

    with at_work(client, notes, pool):
        thread = threading.Thread(target=terminate)
        thread.start()
        for ids in chains:
            client.enqueue(chain_of(ids))
        for ids in chains:
            assert result_of(ids).endswith(client.wait(ids[-1:], 30)[ids[-1]].result)
        over.set()
        thread.join(10)
        wait_for(lambda: settled(dsn))
    ran = [one for one in notes.ran() if not one.startswith("warm")]
    assert sorted(ran) == sorted(one for ids in chains for one in ids)
    assert notes.late_outcomes == []


@pytest.mark.parametrize("word", ["requests", "answers"])
@pytest.mark.parametrize("step", [0, 3, 11])
def test_a_lost_answer_is_settled_by_the_node(
    client: Client, dsn: str, notes: Notes, proxy: Proxy, word: str, step: int
):
    jobs = chain_of(IDS)
    jobs[step] = jobs[step]._replace(payload=b"hold")
    pool = TellingPool(via=proxy)
    with at_work(client, notes, pool):
        client.enqueue(jobs)
        wait_for(lambda: notes.begun(IDS[step]))
        proxy.lose = word
        notes.release(IDS[step])
        assert result_of(IDS).endswith(client.wait(IDS[-1:], 10)[IDS[-1]].result)
        wait_for(lambda: settled(dsn))
        assert proxy.lost == 1
        warm(client, pool)  # it connects again
    assert [one for one in notes.ran() if one in IDS] == IDS
    assert notes.late_outcomes == []
    assert notes.losses == {}


@pytest.mark.parametrize("word", ["requests", "answers"])
def test_a_job_that_a_process_claimed_without_knowing_runs_once(
    client: Client,
    dsn: str,
    notes: Notes,
    proxy: Proxy,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
):
    """It goes back uncounted, and the node claims it."""
    monkeypatch.setattr(child, "_SHORT_NS", 60 * 10**9)
    monkeypatch.setattr(child, "_LEAVE_S", 0.0)
    jobs = [new_job(b"ok", id=one) for one in IDS]
    jobs[3] = jobs[3]._replace(payload=b"hold")
    pool = TellingPool(via=proxy, prefetch=1)
    with at_work(client, notes, pool):
        client.enqueue(jobs)
        wait_for(lambda: notes.begun(IDS[3]))
        proxy.lose = word
        notes.release(IDS[3])
        for one in IDS:
            assert client.wait([one], 10)[one].result == b">" + one.encode()
        wait_for(lambda: settled(dsn))
        assert proxy.lost == 1
    assert len(pool.doubts) == 1
    assert sorted(one for one in notes.ran() if one in IDS) == IDS
    assert notes.late_outcomes == []
    assert notes.losses == {}


@pytest.mark.parametrize("word", ["requests", "answers"])
def test_no_answer_for_long_is_a_lost_answer(
    client: Client, dsn: str, notes: Notes, proxy: Proxy, word: str
):
    first, second, third = chain_of(["a", "b", "c"])
    config = replace(client.config, connect_timeout_s=0.3)
    with closing(Client(config)) as other, at_work(other, notes, TellingPool(via=proxy)):
        client.enqueue([first, second._replace(payload=b"hold"), third])
        wait_for(lambda: notes.begun("b"))
        proxy.hold = word
        notes.release("b")
        assert b">a>b>c".endswith(client.wait(["c"], 10)["c"].result)
        wait_for(lambda: settled(dsn))
        proxy.hold = ""
    assert [one for one in notes.ran() if one in "abc"] == ["a", "b", "c"]


@contextmanager
def between_claim_and_answer(
    client: Client, notes: Notes, proxy: Proxy, pool: TellingPool
) -> Iterator[Any]:
    """A chain of a, b, c, of which b has ended and c is claimed, but its process does not know."""
    jobs = chain_of(["a", "b", "c"])
    jobs[1] = jobs[1]._replace(payload=b"hold")
    with at_work(client, notes, pool) as worker:
        client.enqueue(jobs)
        wait_for(lambda: notes.begun("b"))
        proxy.delay = "answers"
        notes.release("b")
        wait_for(lambda: client.job("c").state is State.RUNNING)
        yield worker
        proxy.delay = ""
        assert client.wait(["c"], 10)["c"].result == b">a>b>c"
    assert [one for one in notes.ran() if one in "abc"] == ["a", "b", "c"]
    assert pool.relayed() == ["a", "b", "c"]
    assert notes.losses == {}


def test_a_reclaim_of_the_node_leaves_a_claim_that_is_just_being_made(
    client: Client, dsn: str, notes: Notes, proxy: Proxy
):
    with between_claim_and_answer(client, notes, proxy, TellingPool(via=proxy)) as worker:
        (before,) = rows(dsn, "select token from pgcelery.running")
        link = worker._node.link
        rows(dsn, "select pg_terminate_backend(%s)", link._conn.backend_pid)
        wait_for(lambda: link.state is not LinkState.OPEN)
        wait_for(lambda: worker._node.relays)
        assert rows(dsn, "select token from pgcelery.running") == [before]


def test_a_job_that_has_ended_is_not_killed_for_though_its_end_is_just_being_written(
    client: Client, notes: Notes, proxy: Proxy
):
    pool = TellingPool(via=proxy)
    with between_claim_and_answer(client, notes, proxy, pool) as worker:
        done = threading.Event()

        def terminate() -> None:
            pool.terminate("b", 9)
            done.set()

        worker.call(terminate)
        assert done.wait(10)


def test_a_time_limit_does_not_count_while_the_end_is_just_being_written(
    client: Client, tmp_path: Path, proxy: Proxy
):
    notes, pool = Notes(tmp_path, {"b": (None, 0.5)}), TellingPool(via=proxy)
    with between_claim_and_answer(client, notes, proxy, pool):
        head = pool._crew.children[0].entries[0]
        first = wait_for(lambda: head.hard_at)
        wait_for(lambda: head.hard_at > first)  # it has passed, and was put off


def killed_between(
    client: Client, notes: Notes, proxy: Proxy, word: str, jobs: list[Any]
) -> TellingPool:
    """SIGKILL the child while it waits for the answer about b."""
    pool = TellingPool(via=proxy)
    with at_work(client, notes, pool):
        jobs[1] = jobs[1]._replace(payload=b"hold")
        client.enqueue(jobs)
        wait_for(lambda: notes.begun("b"))
        proxy.hold = word
        notes.release("b")
        wait_for(lambda: proxy.held)
        child = pool._crew.children[0]
        child.kill(9)
        wait_for(lambda: child.exitcode is not None)
        proxy.hold = ""
        assert client.wait([jobs[-1].id], 20)
    return pool


@pytest.mark.parametrize("name", ["early", "late"])
def test_a_child_that_dies_after_its_claim_was_written_costs_nothing(
    client: Client, dsn: str, notes: Notes, proxy: Proxy, name: str
):
    most = 1 if name == "early" else 5
    jobs = chain_of(["a", "b", "c", "d"], name=name, max_deliveries=most)
    killed_between(client, notes, proxy, "answers", jobs)
    assert client.results(["d"])["d"].result == b">c>d"  # what was read from the database is not in
    assert [one for one in notes.ran() if one in "abcd"] == ["a", "b", "c", "d"]
    assert rows(dsn, "select from pgcelery.running") == []
    assert client.job("c").state is State.COMPLETED


@pytest.mark.parametrize("name", ["early", "late"])
def test_a_child_that_dies_before_its_claim_was_written_loses_its_run(
    client: Client, dsn: str, notes: Notes, proxy: Proxy, name: str
):
    most = 1 if name == "early" else 5
    jobs = chain_of(["a", "b", "c", "d"], name=name, max_deliveries=most)
    killed_between(client, notes, proxy, "requests", jobs)
    ran = [one for one in notes.ran() if one in "abcd"]
    if name == "early":
        assert client.results(["b"])["b"].result == b"child_lost"
        assert ran[:2] == ["a", "b"]
        assert ran.count("b") == 1
    else:
        assert client.results(["d"])["d"].result.endswith(b">b>c>d")
        assert ran == ["a", "b", "b", "c", "d"]
    assert rows(dsn, "select from pgcelery.running") == []


def test_a_child_that_dies_in_a_relayed_step_loses_that_one(client: Client, dsn: str, notes: Notes):
    jobs = chain_of(["a", "b", "c"])
    jobs[1] = jobs[1]._replace(payload=b"die")
    pool = TellingPool()
    with at_work(client, notes, pool):
        client.enqueue(jobs)
        assert client.wait(["c"], 10)
    assert pool.relayed() == ["a"]
    assert [client.results([one])[one].state for one in "abc"] == [
        State.COMPLETED,
        State.FAILED,
        State.FAILED,
    ]
    assert notes.losses["b"].kind == "child_lost"
    assert rows(dsn, "select from pgcelery.running") == []


def test_a_cold_stop_gives_back_what_a_child_claimed_without_hearing_of_it(
    client: Client, dsn: str, notes: Notes, proxy: Proxy
):
    jobs = chain_of(["a", "b", "c"])
    jobs[1] = jobs[1]._replace(payload=b"hold")
    with at_work(client, notes, TellingPool(via=proxy)) as worker:
        client.enqueue(jobs)
        wait_for(lambda: notes.begun("b"))
        proxy.hold = "answers"
        notes.release("b")
        wait_for(lambda: proxy.held)
        worker.stop("cold")
        wait_for(worker.stopped.is_set)
    assert client.results(["b"])["b"].state is State.COMPLETED
    assert client.job("c").state is State.AVAILABLE
    assert rows(dsn, "select deliveries from pgcelery.ready") == [(0,)]


def test_the_node_loses_its_connection_while_children_relay(client: Client, dsn: str, notes: Notes):
    """Its reclaim after that takes nothing away from the children."""
    chains = [[f"{n}-{m:02}" for m in range(30)] for n in range(6)]
    pool = TellingPool(2)
    over = threading.Event()

    def terminate() -> None:
        with psycopg.connect(dsn, autocommit=True) as conn:
            while not over.wait(0.05):
                conn.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where application_name = 'pgcelery' and datname = current_database()"
                    " and (query like '%step_v_(%' or query like '%running r%')"
                    " and pid <> pg_backend_pid()"
                )

    with at_work(client, notes, pool):
        thread = threading.Thread(target=terminate)
        thread.start()
        for ids in chains:
            client.enqueue(chain_of(ids))
            assert result_of(ids).endswith(client.wait(ids[-1:], 30)[ids[-1]].result)
        over.set()
        thread.join(10)
        wait_for(lambda: settled(dsn))
    ran = [one for one in notes.ran() if not one.startswith("warm")]
    assert ran == [one for ids in chains for one in ids]
