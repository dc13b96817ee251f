from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pgcelery.engine.job import Job, Outcome
from pgcelery.engine.pool import ThreadPool
from tests.support.pools import Bodies, BodyRun, Drive, jobs_of


class Held:
    """A body that waits to be let go, and counts who waits."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.waiting = threading.Semaphore(0)

    def __call__(self, payload: bytes) -> bytes:
        self.waiting.release()
        assert self.let_go.wait(10)
        return payload

    def wait_for(self, n: int) -> None:
        for _ in range(n):
            assert self.waiting.acquire(timeout=10)


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.let_go.set()


@pytest.fixture
def pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(3)
    yield pool
    pool.stop(kill=False)


def test_as_many_jobs_run_at_once_as_there_are_slots(pool: ThreadPool, held: Held) -> None:
    handler = Bodies({"held": held})
    drive = Drive(pool, handler)
    jobs = jobs_of("held", *[b"x"] * 5)
    assert pool.capacity() == 3
    pool.submit(jobs)
    held.wait_for(3)
    assert {active.job for active in pool.active()} == set(jobs[:3])
    assert pool.capacity() == 0
    held.let_go.set()
    assert drive.finish(jobs) == [b"x"] * 5
    assert pool.idle
    assert handler.started == 1


def test_short_jobs_are_queued_ahead_and_prefetch_one_forbids_it() -> None:
    for prefetch, ahead in ((None, True), (1, False)):
        pool = ThreadPool(2, prefetch=prefetch)
        drive = Drive(pool, Bodies({}))
        drive.run(jobs_of("echo", *[b"x"] * 20))
        assert (pool.capacity() > 2) is ahead
        pool.stop(kill=False)


def test_every_outcome_comes_once(pool: ThreadPool) -> None:
    drive = Drive(pool, Bodies({}))
    payloads = [str(n).encode() for n in range(2000)]
    assert drive.run(jobs_of("echo", *payloads)) == payloads


def test_recalled_jobs_do_not_run(pool: ThreadPool, held: Held) -> None:
    drive = Drive(pool, Bodies({"held": held}))
    jobs = jobs_of("held", *[b"x"] * 6)
    pool.submit(jobs)
    held.wait_for(3)
    assert pool.recall(waiting_s=60) == []
    assert pool.recall() == jobs[3:]
    held.let_go.set()
    drive.finish(jobs[:3])
    assert pool.idle


def test_terminate_cancels_what_waits_and_cannot_stop_what_runs(
    pool: ThreadPool, held: Held
) -> None:
    handler = Bodies({"held": held})
    drive = Drive(pool, handler)
    jobs = jobs_of("held", *[b"x"] * 5)
    pool.submit(jobs)
    held.wait_for(3)
    assert not pool.terminate(jobs[0].id, 15)
    assert pool.terminate(jobs[3].id, 15)
    assert drive.finish([jobs[3]]) == [b"lost"]
    assert handler.losses[jobs[3].id].kind == "cancelled"
    held.let_go.set()
    assert drive.finish([*jobs[:3], jobs[4]]) == [b"x"] * 4


def test_grow_adds_slots_and_shrink_takes_them_away(pool: ThreadPool, held: Held) -> None:
    drive = Drive(pool, Bodies({"held": held}))
    pool.grow(2)
    jobs = jobs_of("held", *[b"x"] * 5)
    pool.submit(jobs)
    held.wait_for(5)
    pool.shrink(4)
    held.let_go.set()
    drive.finish(jobs)
    held.let_go.clear()
    jobs = jobs_of("held", b"1", b"2")
    pool.submit(jobs)
    held.wait_for(1)
    assert not held.waiting.acquire(timeout=0.2)
    assert len(pool.active()) == pool.size == 1
    held.let_go.set()
    drive.finish(jobs)
    with pytest.raises(ValueError, match="at least one"):
        pool.shrink(1)


def test_stop_leaves_busy_threads_to_themselves_when_told_to_kill(held: Held) -> None:
    pool = ThreadPool(1)
    Drive(pool, Bodies({"held": held}))
    running, waiting = jobs_of("held", b"1", b"2")
    pool.submit([running, waiting])
    held.wait_for(1)
    pool.stop(kill=True)
    assert [active.job for active in pool.active()] == [running]
    assert pool.recall() == [waiting]


class Careless(Bodies):
    """Breaks the promise that a run never raises."""

    def open(self, job: Job) -> BodyRun:
        class Run(BodyRun):
            def __call__(self) -> Outcome:
                raise SystemExit(3)

        return Run(job, bytes, (None, None)) if job.name == "careless" else super().open(job)


def test_a_run_that_raises_is_lost_and_costs_no_thread(pool: ThreadPool) -> None:
    handler = Careless({})
    drive = Drive(pool, handler)
    jobs = jobs_of("careless", *[b"x"] * 5)
    assert drive.run(jobs) == [b"lost"] * 5
    assert handler.losses[jobs[0].id].kind == "child_lost"
    assert "SystemExit" in handler.losses[jobs[0].id].detail
    assert drive.run(jobs_of("echo", b"x")) == [b"x"]
