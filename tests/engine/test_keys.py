"""Concurrency keys: never more than the limit at once, in order, and no slot is ever lost."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import replace

import psycopg
import pytest

from pgcelery.engine import Client, InvalidJob, Job, Outcome, State
from pgcelery.engine.pool import ThreadPool
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for


class Gauge:
    """Bodies that note how many of a key run at once."""

    def __init__(self, hold_s: float = 0.002) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.hold_s = hold_s

    def __call__(self, job: Job) -> Outcome:
        key = job.name
        with self.lock:
            self.now[key] += 1
            self.most[key] = max(self.most[key], self.now[key])
        threading.Event().wait(random.uniform(0, self.hold_s))
        with self.lock:
            self.now[key] -= 1
        if random.random() < 0.1 and job.delivery == 1:
            return Outcome(job.id, job.token, State.AVAILABLE, counted=True)
        if random.random() < 0.1:
            return Outcome(job.id, job.token, State.RETRYABLE, delay_s=0.01)
        return Outcome(job.id, job.token, random.choice([State.COMPLETED, State.FAILED]))


def keyed(key: str, limit: int, **options) -> object:
    return new_job(b"gauge", name=key, key=key, key_limit=limit, **options)


def slots(dsn: str) -> list[tuple[str, int, int]]:
    with psycopg.connect(dsn) as conn:
        rows = conn.execute("select key, in_use, waiting from pgcelery.keys order by key")
        return [tuple(row) for row in rows.fetchall()]


def test_never_more_than_the_limit_runs_and_every_slot_comes_back(client: Client, dsn: str):
    gauge = Gauge()
    handler = Recorder(gauge=gauge)
    limits = {"a": 1, "b": 2, "c": 3}
    jobs = [keyed(key, limit) for key, limit in limits.items() for _ in range(60)]
    random.shuffle(jobs)
    with (
        running(client.config, handler, pool=ThreadPool(6), name="1"),
        running(client.config, handler, pool=ThreadPool(6), name="2"),
    ):
        for start in range(0, len(jobs), 20):
            client.enqueue(jobs[start : start + 20])
        ids = [job.id for job in jobs]
        wait_for(lambda: len(client.results(ids)) == len(ids), timeout_s=60)
    assert gauge.most == limits  # reached, and never passed
    assert all(in_use == waiting == 0 for _, in_use, waiting in slots(dsn))


def test_jobs_of_a_key_run_in_order_of_enqueue(client: Client):
    jobs = [new_job(key="k", key_limit=1) for _ in range(30)]
    client.enqueue(jobs)
    handler = Recorder()
    with running(client.config, handler):
        wait_for(lambda: len(handler.recorded) == 30)
    assert handler.ran == [job.id for job in jobs]


def test_a_full_key_does_not_hold_up_other_work(client: Client):
    go = threading.Event()
    handler = Recorder(
        hold=lambda job: (go.wait(10), Outcome(job.id, job.token, State.COMPLETED))[1]
    )
    client.enqueue([new_job(b"hold", key="full", key_limit=1) for _ in range(50)])
    with running(client.config, handler, pool=ThreadPool(2)):
        wait_for(lambda: len(handler.ran) == 1)
        free = new_job()
        client.enqueue([free])
        assert client.wait([free.id], 10)
        assert client.counts(["q"])["q"].gated == 49
        go.set()
        wait_for(lambda: len(handler.recorded) == 51)


def test_a_limit_can_grow_with_the_next_job(client: Client):
    gauge = Gauge(hold_s=0.05)
    client.enqueue([keyed("k", 1) for _ in range(3)])
    handler = Recorder(gauge=gauge)
    with running(client.config, handler, pool=ThreadPool(8)):
        wait_for(lambda: len(handler.recorded) >= 1)
        last = [keyed("k", 3) for _ in range(10)]
        client.enqueue(last)
        ids = [job.id for job in last]
        wait_for(lambda: len(client.results(ids)) == 10, timeout_s=30)
    assert 1 < gauge.most["k"] <= 3


def test_the_slot_of_a_dead_worker_is_freed(client: Client, dsn: str):
    first, second = new_job(key="k", key_limit=1, max_deliveries=2), new_job(key="k", key_limit=1)
    config = replace(client.config, maintain_s=0.1)
    go = threading.Event()
    handler = Recorder(
        hold=lambda job: (go.wait(10), Outcome(job.id, job.token, State.COMPLETED))[1]
    )
    client.enqueue([first._replace(payload=b"hold")])
    with running(config, handler):
        wait_for(lambda: handler.ran)
        client.enqueue([second])
        with psycopg.connect(dsn) as conn:
            conn.execute("update pgcelery.running set worker_id = 999999")
        wait_for(lambda: client.wait([second.id], 10))
        go.set()
        wait_for(lambda: client.results([first.id]))
    wait_for(lambda: all(in_use == waiting == 0 for _, in_use, waiting in slots(dsn)))


def test_cancel_and_purge_give_slots_back(client: Client, dsn: str):
    jobs = [new_job(key="k", key_limit=1) for _ in range(4)]
    client.enqueue(jobs)
    with running(client.config, Recorder(), pool=ThreadPool(1), queues=("other",)):
        pass
    with psycopg.connect(dsn, autocommit=True) as conn:  # a step of a worker that claims nothing
        conn.execute(
            "insert into pgcelery.workers (name, host, pid, queues, info, lease_until)"
            " values ('w', 'h', 1, '{}', '{}', now() + interval '1 hour')"
        )
        conn.execute(
            "select pgcelery.lock_keys_v1(array_agg(id)), pgcelery.admit_v1(array_agg(id),"
            " array_agg(0::smallint), array_agg(2::smallint)) from pgcelery.jobs"
        )
        conn.execute("delete from pgcelery.scheduled")
    assert slots(dsn) == [("k", 1, 3)]
    assert client.cancel([jobs[0].id]) == {jobs[0].id: State.CANCELLED}
    assert slots(dsn) == [("k", 1, 2)]
    assert client.cancel([jobs[3].id]) == {jobs[3].id: State.CANCELLED}
    assert slots(dsn) == [("k", 1, 1)]
    assert client.purge(["q"]) == 2
    assert slots(dsn) == [("k", 0, 0)]


@pytest.mark.parametrize("change", [{"key": ""}, {"key": "x" * 256}, {"key_limit": 0}])
def test_a_bad_key_is_refused(client: Client, change: dict):
    with pytest.raises(InvalidJob, match="key"):
        client.enqueue([new_job(**{"key": "k", **change})])
