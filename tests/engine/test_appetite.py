"""When a step is sent, and with how much: it waits for ends that are near, and for no others."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from dataclasses import replace
from math import inf

import psycopg
import pytest

from pgcelery.engine import Client, EngineConfig, Job, Outcome, State
from pgcelery.engine.appetite import Appetite
from pgcelery.engine.pool import PreforkPool
from tests.support.jobs import Recorder, new_job, running
from tests.support.pools import Bodies, Drive, jobs_of
from tests.support.wait import wait_for


def with_trips_of(trip_s: float, *, asked: int, got: int, free_at: float) -> Appetite:
    """One whose last steps took so long, asked for so many jobs, and got so many."""
    appetite = Appetite(EngineConfig(dsn=""), 0.0, lambda: free_at)
    for number in range(100):
        appetite.ask(float(number), asked)
        appetite.fed(number + trip_s, got, [])
    return appetite


@pytest.mark.parametrize(
    ("asked", "got", "want", "free_at", "held_until"),
    [
        (2, 2, 1, 1000.019, 1000.019),  # there is a backlog, and the end is near
        (2, 1, 1, 1000.019, 1000.0),  # there is none
        (2, 2, 1, 1000.021, 1000.0),  # a step is back before
        (2, 2, 3, 1000.009, 1000.0),  # three would be idle for one
        (2, 2, 3, 1000.003, 1000.003),
        (2, 2, 1, inf, 1000.0),
        (2, 2, 0, 1000.001, 1000.0),  # nobody is idle
    ],
)
def test_a_step_waits_for_an_end_that_is_near(
    asked: int, got: int, want: int, free_at: float, held_until: float
):
    appetite = with_trips_of(0.01, asked=asked, got=got, free_at=free_at)
    assert appetite.held_until(1000.0, want) == held_until


def test_a_pool_knows_when_a_process_with_a_short_job_is_likely_to_be_free():
    def doze(payload: bytes) -> bytes:
        threading.Event().wait(float(payload))
        return payload

    pool = PreforkPool(2, prefetch=1, chunk_window_s=1.0)
    drive = Drive(pool, Bodies({"doze": doze, "other": doze}))
    try:
        drive.until_room(2)
        assert pool.free_at() == inf  # both are
        for _ in range(10):
            drive.run(jobs_of("doze", b"0.05"))
        pool.submit(jobs_of("doze", b"60"))  # which nobody could know
        assert pool.free_at() - time.monotonic() < 0.5
        wait_for(lambda: pool.free_at() == inf)
        assert len(pool.active()) == 1
        for _ in range(3):
            drive.run(jobs_of("doze", b"0.05"))
        pool.submit(jobs_of("doze", b"0.4"))
        assert pool.free_at() < inf
        for child in pool._crew.children:
            child.goes_on = True  # it will take the next one itself
        assert pool.free_at() == inf
        drive.run(jobs_of("other", b"0.7"))
        pool.submit(jobs_of("other", b"0.7"))
        assert pool.free_at() == inf  # it is slow
    finally:
        pool.stop(kill=True)


def test_processes_that_hold_one_job_each_share_steps_and_work(client: Client):
    def tell(job: Job) -> Outcome:
        return Outcome(job.id, job.token, State.COMPLETED, str(os.getpid()).encode())

    handler = Recorder(tell=tell)
    jobs = [new_job(b"tell") for _ in range(400)]
    client.enqueue(jobs)
    config = replace(client.config, relay=False)  # else they claim by themselves
    with running(config, handler, pool=PreforkPool(2, prefetch=1)):
        wait_for(lambda: len(handler.recorded) == len(jobs), timeout_s=30)
    with psycopg.connect(client.config.dsn) as conn:
        rows = conn.execute("select result, xmin::text from pgcelery.results").fetchall()
    assert len(rows) == len(jobs)
    by_process = Counter(result for result, _ in rows)
    assert len(by_process) == 2
    assert min(by_process.values()) > 0.3 * len(jobs)
    assert len({transaction for _, transaction in rows}) < 0.7 * len(jobs)
