"""One plain job is inserted by a function of its own, and comes to the same as any.

Promises P1, P2 of docs/guarantees.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate, NewJob, Outcome, State, Unique
from pgcelery.engine.columns import columns, is_plain, queue_key
from pgcelery.engine.database import load
from pgcelery.engine.placement import encode
from tests.support.jobs import new_job
from tests.support.nodes import SimNode, connect
from tests.support.wait import wait_for

PLAIN = {
    "nothing said": {},
    "names that need quoting": {"id": "a'\"\\ %s{},é", "name": "näme\n%", "queue": "q'\"{}"},
    "any bytes": {"payload": bytes(range(256))},
    "the first": {"priority": 0},
    "the last": {"priority": 32767},
    "expires": {"expires_at": datetime(2999, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)},
    "has expired": {"expires_at": datetime(1999, 1, 1, tzinfo=UTC)},
    "kept for ever": {"ttl_s": None},
    "kept for a moment": {"ttl_s": 0.25},
    "at least once": {"max_deliveries": 100_000},
    "awaited": {"awaited": True},
    "placed": {"placement": encode({"zone": "x"}, ())},
    "sticky": {"sticky": 1},
    "nailed": {"sticky": 2},
}
OTHERS = {
    "with a delay": {"delay_s": 60.0},
    "without one": {"delay_s": 0.0},
    "with a time": {"due_at": datetime(2999, 1, 1, tzinfo=UTC)},
    "with a parent": {"parents": ("p",)},
    "with a gate": {"gates": (Gate("g", slots=1),)},
    "unique": {"unique": Unique("u")},
    "that joins": {"joins": ("latch",)},
    "that runs again": {"again": True},
    "of a workflow": {"workflow": "w"},
    "that leads": {"leads": True},
}


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect(dsn)) as conn:
        yield conn


def rows(conn: psycopg.Connection[Any], job: NewJob) -> list[Any]:
    """All that there is of a job, but for when and in which order it came."""
    found = [
        conn.execute(
            f"select to_jsonb(t) - '{{seq,created_at}}'::text[] from pgcelery.{table} t"  # noqa: S608
            f" where t.{column} = %s",
            [job.id],
        ).fetchall()
        for table, column in (
            ("jobs", "id"), ("ready", "job_id"), ("scheduled", "job_id"), ("nodes", "job_id"),
        )
    ]  # fmt: skip
    places = conn.execute(
        "select count(*) from pgcelery.ready r join pgcelery.jobs j on j.id = r.job_id"
        " where j.seq = r.seq"
    ).fetchone()
    return [*found, places]


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
def test_it_comes_to_what_any_enqueue_comes_to(
    client: Client, conn: psycopg.Connection[Any], options: dict[str, Any]
) -> None:
    job = new_job(**{"payload": b"ok", **options})
    assert is_plain(job)
    assert client.enqueue([job]) == {}
    one = rows(conn, job)
    assert len(one[0]) == len(one[1]) == 1
    conn.execute("delete from pgcelery.jobs")
    conn.execute("delete from pgcelery.ready")
    keys = client.intern_places({queue_key(job)})
    conn.execute(load("jobs/enqueue", "pgcelery"), columns([job], keys))
    assert rows(conn, job) == one


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_what_has_more_to_it_is_not_plain(options: dict[str, Any]) -> None:
    assert not is_plain(new_job(**options))


def test_an_id_that_exists_is_left_alone_and_named(client: Client) -> None:
    assert client.enqueue([new_job(b"first", id="a")]) == {}
    assert client.enqueue([new_job(b"second", id="a", queue="other")]) == {"a": "a"}
    assert client.job("a").payload == b"first"  # type: ignore[union-attr]
    assert client.counts(["q", "other"])["q"].ready == 1
    assert client.counts(["q", "other"])["other"].ready == 0


def test_a_parked_id_goes_on(client: Client, conn: psycopg.Connection[Any]) -> None:
    node = SimNode(client, conn, "node", ["q"])
    client.enqueue([new_job(id="a"), new_job(id="b", parents=("a",))])
    (run,) = node.step(5).claims
    node.step(0, [Outcome("a", run.token, State.WAITING)])
    assert client.enqueue([new_job(b"goes on", id="a")]) == {}
    assert client.job("a").payload == b"goes on"  # type: ignore[union-attr]
    (again,) = node.step(5).claims
    assert (again.job_id, again.flags & 1) == ("a", 1)
    assert [claim.job_id for claim in node.finish(again, want=5).claims] == ["b"]


def test_of_two_at_once_one_is_there(
    client: Client, conn: psycopg.Connection[Any], dsn: str
) -> None:
    client.enqueue([new_job()])  # the queue is known
    answers: list[dict[str, str]] = []
    with psycopg.connect(dsn) as first:
        client.enqueue([new_job(b"first", id="a")], conn=first)
        second = threading.Thread(
            target=lambda: answers.append(client.enqueue([new_job(b"second", id="a")]))
        )
        second.start()
        waiting = "select from pg_locks where not granted"
        wait_for(lambda: conn.execute(waiting).fetchone() is not None)
    second.join()
    assert answers == [{"a": "a"}]
    assert client.job("a").payload == b"first"  # type: ignore[union-attr]
