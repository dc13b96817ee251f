"""Short jobs whose outcome a pool process records by itself, as nothing waits in the queues.

Promises P1, P8 of docs/guarantees.md.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, State, results
from pgcelery.engine.pool import child
from tests.support.jobs import new_job, running
from tests.support.relays import Notes, TellingPool, contents, rows, settled
from tests.support.wait import wait_for


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that wait for a test count as short ones."""
    monkeypatch.setattr(child, "_SHORT_NS", 60 * 10**9)


@contextmanager
def settled_down(client: Client, notes: Notes, pool: TellingPool, **options: Any) -> Iterator[Any]:
    """A worker whose first child has recorded something by itself."""
    with running(client.config, notes, pool=pool, **options) as worker:  # type: ignore[arg-type]
        wait_for(lambda: lone(client) and pool.steps)
        wait_for(lambda: not worker._tokens)
        pool.steps.clear()
        yield worker


def lone(client: Client) -> str:
    client.enqueue([job := new_job()])
    assert client.wait([job.id], 10)[job.id].state is State.COMPLETED
    return job.id


def test_lone_jobs_are_recorded_by_the_process_that_ran_them(
    client: Client, dsn: str, notes: Notes
):
    pool = TellingPool(1)
    with settled_down(client, notes, pool):
        ids = [lone(client) for _ in range(20)]
        wait_for(lambda: ("finished", ids[-1]) in notes.heard)
        assert [one for one in pool.relayed() if one in ids] == ids
        stored = client.results(ids)
        assert {one: stored[one].result for one in ids} == {one: b">" + one.encode() for one in ids}
    for one in ids:
        assert [what for what, id in notes.heard if id == one] == ["received", "finished"]
        assert notes.ran().count(one) == 1
    wait_for(lambda: settled(dsn))
    assert (notes.late_outcomes, notes.losses) == ([], {})


def test_failures_and_what_others_wait_for_go_to_the_node(client: Client, notes: Notes):
    pool = TellingPool(1)
    with settled_down(client, notes, pool):
        parent, failing = new_job(awaited=True), new_job(b"fail")
        client.enqueue([parent, new_job(parents=(parent.id,))])
        client.enqueue([failing])
        assert client.wait([failing.id], 10)[failing.id].state is State.FAILED
        assert client.wait([parent.id], 10)[parent.id].state is State.COMPLETED
        assert failing.id not in pool.relayed()


def test_processes_beyond_the_first_few_have_no_connection_for_it(
    client: Client, notes: Notes, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(child, "_ENDING", 0)
    pool = TellingPool(1)
    with running(client.config, notes, pool=pool):  # type: ignore[arg-type]
        for _ in range(10):
            lone(client)
        assert pool.spares() == []
    assert pool.steps == []


def test_the_first_jobs_of_a_process_open_no_connection(client: Client, notes: Notes):
    pool = TellingPool(1)
    with running(client.config, notes, pool=pool):  # type: ignore[arg-type]
        for _ in range(child._SETTLED):
            lone(client)
        assert pool.spares() == []
        wait_for(lambda: lone(client) and pool.spares())


def test_who_asks_while_the_end_is_committed_is_told(
    client: Client, dsn: str, notes: Notes, monkeypatch: pytest.MonkeyPatch
):
    """Neither sees the other then: the end is held up behind a lock after it looked who waits."""
    monkeypatch.setattr(results, "_LOOK_AGAIN_S", (60.0, 60.0))
    pool = TellingPool(1)
    job = new_job(b"hold")
    with settled_down(client, notes, pool), psycopg.connect(dsn) as conn:
        client.enqueue([job])
        wait_for(lambda: notes.begun(job.id))
        conn.execute("insert into pgcelery.cancels values (%s, false, 15, now())", [job.id])
        conn.commit()
        conn.execute("select from pgcelery.cancels for update")
        notes.release(job.id)
        blocked = "select 1 from pg_stat_activity where wait_event_type = 'Lock' and query like %s"
        wait_for(lambda: rows(dsn, blocked, "%end_v1%"))
        found: list[bytes | None] = []
        thread = threading.Thread(
            target=lambda: found.append(client.wait([job.id], 30)[job.id].result)
        )
        thread.start()
        wait_for(lambda: contents(dsn, "waiters")["waiters"])
        conn.rollback()
        thread.join(20)
        assert found == [b">" + job.id.encode()]
        wait_for(lambda: job.id in pool.relayed())


def test_jobs_of_which_nobody_told_are_seen_by_the_end_of_another(client: Client, notes: Notes):
    config = replace(client.config, poll_min_s=60.0, poll_max_s=60.0)
    pool = TellingPool(1)
    patient = Client(config)
    first, untold = new_job(b"hold"), new_job()
    with settled_down(patient, notes, pool):
        patient.enqueue([first])
        wait_for(lambda: notes.begun(first.id))
        patient._told_at = dict.fromkeys(patient.intern(["q"]).values(), inf)
        patient.enqueue([untold])
        notes.release(first.id)
        assert patient.wait([untold.id], 20)[untold.id].state is State.COMPLETED
        wait_for(lambda: first.id in pool.relayed())
    patient.close()


def test_an_end_that_the_database_refuses_is_recorded_by_the_node(
    client: Client, dsn: str, notes: Notes
):
    """A token that is not current any more, too, is for the node to hear of."""
    pool = TellingPool(1)
    job = new_job(b"hold")
    with settled_down(client, notes, pool):
        client.enqueue([job])
        wait_for(lambda: notes.begun(job.id))
        with psycopg.connect(dsn) as conn:
            conn.execute("delete from pgcelery.running where job_id = %s", [job.id])
        notes.release(job.id)
        wait_for(lambda: notes.late_outcomes == [job.id])
    assert job.id not in pool.relayed()
