"""Jobs of which there may be only one at a time, whoever sends them, in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate, InvalidJob, NewJob, State, Unique
from tests.support.jobs import new_job
from tests.support.nodes import SimNode, connect
from tests.support.wait import wait_for


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect(dsn)) as conn:
        yield conn


@pytest.fixture
def node(client: Client, conn: psycopg.Connection[Any]) -> SimNode:
    return SimNode(client, conn, "n", ["q"])


def only(key: str = "u", until: str = "done", for_s: float | None = None, **options: Any) -> NewJob:
    return new_job(unique=Unique(key, until, for_s), **options)


def count(client: Client) -> int:
    counts = client.counts(["q"]).get("q")
    return sum(counts) if counts else 0


def test_a_second_one_is_told_who_is_there(client: Client):
    first, second, other = only(), only(), only("other")
    assert client.enqueue([first]) == {}
    assert client.enqueue([second, other, new_job()]) == {second.id: first.id}
    assert client.enqueue([first]) == {first.id: first.id}, "the same id is the same send"
    assert count(client) == 3


def test_two_in_one_call_are_one(client: Client):
    first, second = only(), only()
    assert client.enqueue([first, second]) == {second.id: first.id}
    assert count(client) == 1


@pytest.mark.parametrize("gates", [(), (Gate("k", slots=1),)])
def test_until_done(client: Client, node: SimNode, gates: tuple[Gate, ...]):
    client.enqueue([only(gates=gates)])
    (run,) = node.step(1).claims
    second = only(gates=gates)
    assert client.enqueue([second]) != {}
    node.finish(run)
    assert client.enqueue([second]) == {}


def test_until_started(client: Client, node: SimNode):
    first = only(until="started")
    client.enqueue([first])
    assert client.enqueue([only(until="started")]) != {}
    (run,) = node.step(1).claims
    second = only(until="started")
    assert client.enqueue([second]) == {}
    node.finish(run)
    assert client.enqueue([only(until="started")]) != {}, "the second one stands for it now"


def test_for_a_time(client: Client, node: SimNode):
    client.enqueue([only(until="time", for_s=0.3)])
    (run,) = node.step(1).claims
    node.finish(run)
    assert client.enqueue([only(until="time", for_s=0.3)]) != {}
    wait_for(lambda: client.enqueue([only(until="time", for_s=60)]) == {}, 5)
    assert client.enqueue([only(until="time", for_s=60)]) != {}


def test_a_time_ends_the_others_too(client: Client):
    client.enqueue([only(for_s=0.2)])
    assert client.enqueue([only(for_s=60)]) != {}
    wait_for(lambda: client.enqueue([only(for_s=60)]) == {}, 5)


def test_one_that_was_cancelled_or_purged_stands_for_nobody(client: Client, node: SimNode):
    first = only()
    client.enqueue([first])
    client.cancel([first.id])
    second = only()
    assert client.enqueue([second]) == {}
    client.purge()
    third = only()
    assert client.enqueue([third]) == {}
    (run,) = node.step(1).claims
    node.finish(run, state=State.FAILED)
    client.forget([third.id])
    assert client.enqueue([only()]) == {}


def test_one_that_waits_for_a_retry_still_stands(client: Client, node: SimNode):
    client.enqueue([only(delay_s=3600)])
    assert client.enqueue([only()]) != {}


def test_upkeep_forgets_what_is_over(client: Client, node: SimNode, conn: psycopg.Connection[Any]):
    client.enqueue([only(), only("other")])
    runs = node.step(2).claims
    node.finish(runs[0])

    def keys() -> list[tuple]:
        node.maintain()
        return conn.execute("select key from pgcelery.uniques").fetchall()

    wait_for(lambda: keys() == [("other",)], 5)


def test_in_the_callers_transaction_it_counts_if_that_commits(client: Client, dsn: str):
    first, second = only(), only()
    with psycopg.connect(dsn) as mine:
        client.enqueue([first], conn=mine)
        mine.rollback()
        assert client.enqueue([second]) == {}
        assert client.enqueue([first], conn=mine) == {first.id: second.id}
    assert count(client) == 1


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("there", ["nobody", "one that has ended"])
def test_of_two_senders_the_second_waits_for_the_first(
    client: Client, dsn: str, node: SimNode, commits: bool, there: str
):
    if there != "nobody":
        client.enqueue([only()])
        node.finish(*node.step(1).claims)
    first, second = only(), only()
    answers: list[dict[str, str]] = []
    with psycopg.connect(dsn) as mine, psycopg.connect(dsn, autocommit=True) as look:
        assert client.enqueue([first], conn=mine) == {}
        thread = threading.Thread(target=lambda: answers.append(client.enqueue([second])))
        thread.start()

        def blocked() -> bool:
            row = look.execute(
                "select exists (select from pg_stat_activity where %s = any"
                " (pg_blocking_pids(pid)))",
                [mine.info.backend_pid],
            ).fetchone()
            return bool(row and row[0])

        wait_for(blocked)
        mine.commit() if commits else mine.rollback()
        thread.join(10)
    assert answers == ([{second.id: first.id}] if commits else [{}])
    assert count(client) == 1


@pytest.mark.parametrize("there", ["nobody", "ones that have ended"])
def test_many_senders_at_once_make_one(client: Client, node: SimNode, there: str):
    keys = [f"u{number}" for number in range(15)]
    if there != "nobody":
        client.enqueue([only(key) for key in keys])
        node.finish(*node.step(100).claims)
    answers: dict[str, list[dict[str, str]]] = {key: [] for key in keys}
    gate = threading.Barrier(6)

    def send() -> None:
        for key in keys:
            gate.wait(10)
            answers[key].append(client.enqueue([only(key)]))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for said in answers.values():
        assert [answer for answer in said if not answer] == [{}]
        assert len({holder for answer in said for holder in answer.values()}) == 1
    assert count(client) == len(keys)


@pytest.mark.parametrize(
    ("unique", "match"),
    [
        (Unique(""), "key of a unique job"),
        (Unique("u", "whenever"), "done, started, time"),
        (Unique("u", "time"), "needs for_s"),
        (Unique("u", for_s=0), "more than 0 seconds"),
    ],
)
def test_a_bad_one_is_refused(client: Client, unique: Unique, match: str):
    with pytest.raises(InvalidJob, match=match):
        client.enqueue([new_job(unique=unique)])
