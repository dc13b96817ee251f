from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from pgcelery.engine.pool import SoloPool
from tests.support.pools import Bodies, Drive, jobs_of


@pytest.fixture
def pool() -> Iterator[SoloPool]:
    pool = SoloPool()
    yield pool
    pool.stop(kill=True)


def test_bodies_run_in_the_thread_that_serves_while_the_node_goes_on(pool: SoloPool) -> None:
    served_by: list[int] = []
    node_heard = threading.Event()

    def body(payload: bytes) -> bytes:
        served_by.append(threading.get_ident())
        assert node_heard.wait(10)  # set by the node's thread while this job runs
        return payload

    done = threading.Event()

    def node() -> None:
        drive = Drive(pool, Bodies({"body": body}))
        jobs = jobs_of("body", b"a")
        pool.submit(jobs)
        drive.until(pool.active)
        node_heard.set()
        assert drive.finish(jobs) == [b"a"]
        done.set()

    thread = threading.Thread(target=node, daemon=True)
    thread.start()
    pool.serve(until=done.is_set)
    thread.join(10)
    assert served_by == [threading.get_ident()]
    assert pool.idle


def test_jobs_run_one_after_the_other_in_order(pool: SoloPool) -> None:
    order: list[bytes] = []
    drive = Drive(pool, Bodies({"note": lambda p: order.append(p) or p}))
    assert pool.capacity() == 1
    jobs = jobs_of("note", b"1", b"2", b"3")
    pool.submit(jobs)
    while pool.run_next():
        pass
    assert order == [b"1", b"2", b"3"]
    assert drive.finish(jobs) == order
    assert pool.capacity() > 1  # short jobs are worth queueing


def test_recalled_jobs_do_not_run(pool: SoloPool) -> None:
    drive = Drive(pool, Bodies({}))
    first, second, third = jobs_of("echo", b"1", b"2", b"3")
    pool.submit([first, second, third])
    pool.run_next()
    assert pool.recall(waiting_s=60) == []
    assert pool.recall() == [second, third]
    assert not pool.run_next()
    assert drive.finish([first]) == [b"1"]
    assert pool.idle


def test_terminate_reaches_only_a_job_that_waits(pool: SoloPool) -> None:
    handler = Bodies({"self": lambda _: str(pool.terminate(running.id, 15)).encode()})
    drive = Drive(pool, handler)
    running, waiting = *jobs_of("self", b""), *jobs_of("echo", b"")
    pool.submit([running, waiting])
    assert pool.terminate(waiting.id, 15)
    assert not pool.terminate("unknown", 15)
    pool.run_next()
    assert drive.finish([running, waiting]) == [b"False", b"lost"]
    assert handler.losses[waiting.id].kind == "cancelled"


def test_an_exception_from_a_signal_handler_leaves_serve_and_the_job_counts_as_cut_off(
    pool: SoloPool,
) -> None:
    def interrupted(_: bytes) -> bytes:
        raise KeyboardInterrupt

    drive = Drive(pool, Bodies({"interrupted": interrupted}))
    cut, waiting = *jobs_of("interrupted", b""), *jobs_of("echo", b"")
    pool.submit([cut, waiting])
    with pytest.raises(KeyboardInterrupt):
        pool.serve(until=lambda: False)
    pool.stop(kill=True)
    assert [active.job for active in pool.active()] == [cut]
    assert pool.recall() == [waiting]
    assert drive.outcomes == {}


def test_stop_lets_serve_return_after_its_job(pool: SoloPool) -> None:
    entered = threading.Event()

    def body(payload: bytes) -> bytes:
        entered.set()
        return payload

    def node() -> None:
        Drive(pool, Bodies({"body": body}))
        pool.submit(jobs_of("body", b"x"))
        assert entered.wait(10)
        pool.stop(kill=False)

    thread = threading.Thread(target=node, daemon=True)
    thread.start()
    pool.serve(until=lambda: False)
    thread.join(10)
    assert [outcome.result for outcome in pool.collect()] == [b"x"]


def test_it_has_one_slot(pool: SoloPool) -> None:
    with pytest.raises(ValueError, match="one slot"):
        pool.grow(1)
    with pytest.raises(ValueError, match="one slot"):
        pool.shrink(1)
