"""Queues that are paused, workers that are drained, and which priority is claimed next."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import replace

import psycopg
import pytest

from pgcelery.engine import Client, Gate, Job, NewJob, Outcome, State, UnknownQueue
from pgcelery.engine.placement import encode
from pgcelery.engine.pool import ThreadPool
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for

BOTH = ("q", "other")


def finish(client: Client, *jobs: NewJob) -> None:
    ids = [job.id for job in jobs]
    wait_for(lambda: len(client._final(ids)) == len(ids))


def steps(client: Client, many: int = 3) -> None:
    """Have workers claim from the other queue, which they do not without asking both."""
    for _ in range(many):
        job = new_job(queue="other")
        client.enqueue([job])
        assert client.wait([job.id], 10)


class Held:
    """A body that goes on when it is told to."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, job: Job) -> Outcome:
        self.begun.set()
        self.go.wait(10)
        return Outcome(job.id, job.token, State.COMPLETED, b"held")


# -- pause ----------------------------------------------------------------------------------------


def test_nothing_of_a_paused_queue_is_claimed_until_it_is_resumed(client: Client):
    never = replace(client.config, poll_min_s=5.0)
    with running(never, Recorder(), queues=BOTH):
        steps(client, 1)
        client.pause("q")
        jobs = [new_job(priority=number % 3) for number in range(30)]
        placed = new_job(placement=encode({"worker": "w"}, []))
        client.enqueue([*jobs, placed])
        steps(client)
        assert client.counts(["q"])["q"].ready == 31
        assert list(client.paused()) == ["q"]
        assert client.resume("q")
        begun = time.monotonic()
        finish(client, *jobs, placed)
        assert time.monotonic() - begun < 4  # an idle worker polls every 5 s
    assert client.paused() == {}


def test_a_queue_is_paused_with_no_worker_alive(client: Client):
    client.pause("q", create=True)
    client.pause("q")  # twice is once
    job = new_job()
    client.enqueue([job])
    with running(client.config, Recorder(), queues=BOTH):
        steps(client)
        assert client.job(job.id).state is State.AVAILABLE
        assert client.resume("q")
        finish(client, job)
    assert not client.resume("q")


def test_a_pause_in_full_flight_takes_effect_with_the_next_claim(client: Client):
    handler = Recorder()
    jobs = [new_job() for _ in range(3000)]
    client.enqueue(jobs)
    with running(client.config, handler, queues=BOTH):
        wait_for(lambda: len(handler.recorded) > 200)
        client.pause("q")
        steps(client, 2)
        wait_for(lambda: client.counts(["q"])["q"].running == 0)
        ran = len(handler.ran)
        assert ran < 3000
        steps(client)
        assert len(handler.ran) == ran + 3
        client.resume("q")
        finish(client, *jobs)


def test_what_runs_goes_on_and_its_next_step_waits(client: Client):
    """The step that is freed is not handed to the node that freed it either."""
    held = Held()
    first = new_job(b"held")
    second = new_job(parents=(first.id,))
    elsewhere = new_job(parents=(first.id,), queue="other")
    with running(client.config, Recorder(held=held), queues=BOTH):
        client.enqueue([first, second, elsewhere])
        assert held.begun.wait(10)
        client.pause("q")
        held.go.set()
        finish(client, first, elsewhere)
        steps(client)
        assert client.job(second.id).state is State.AVAILABLE
        client.resume("q")
        finish(client, second)


def test_what_comes_due_in_a_paused_queue_waits(client: Client):
    client.pause("q", create=True)
    job = new_job(delay_s=0.1)
    after = new_job(delay_s=0.2, queue="other")
    with running(client.config, Recorder(), queues=BOTH):
        client.enqueue([job, after])
        finish(client, after)
        steps(client)
        assert client.counts(["q"])["q"][:3] == (0, 1, 0)
        client.resume("q")
        finish(client, job)


@pytest.mark.parametrize("gate", [Gate("slots", slots=5), Gate("rate", rate=1000, burst=1000)])
def test_what_waits_at_limits_of_a_paused_queue_is_not_started(client: Client, gate: Gate):
    client.pause("q", create=True)
    jobs = [new_job(gates=(gate,)) for _ in range(10)]
    handler = Recorder()
    with running(client.config, handler, queues=BOTH):
        client.enqueue(jobs)
        steps(client, 5)
        assert not set(handler.ran) & {job.id for job in jobs}
        client.resume("q")
        finish(client, *jobs)


def test_an_unknown_queue_cannot_be_paused_or_resumed(client: Client):
    for do in (client.pause, client.resume):
        with pytest.raises(UnknownQueue, match="there is no queue 'nowhere'"):
            do("nowhere")
    assert client.paused() == {}


# -- drain ----------------------------------------------------------------------------------------


def test_a_drained_worker_finishes_what_runs_and_claims_nothing(client: Client):
    held = Held()
    handler = Recorder(held=held)
    with running(client.config, handler, pool=ThreadPool(2)) as worker:
        running_one = new_job(b"held")
        client.enqueue([running_one])
        assert held.begun.wait(10)
        worker.drain()
        wait_for(lambda: client.workers()[0].info["draining"])
        jobs = [new_job() for _ in range(5)]
        client.enqueue(jobs)
        with running(client.config, Recorder(), queues=("other",)):
            steps(client)
        held.go.set()
        finish(client, running_one)
        assert handler.ran == [running_one.id]
        assert client.counts(["q"])["q"].ready == 5
        worker.undrain()
        finish(client, *jobs)
        assert not client.workers()[0].info["draining"]


def test_a_drained_worker_stays_so_when_it_must_register_anew(client: Client, dsn: str):
    handler = Recorder()
    config = replace(client.config, heartbeat_s=0.05)
    with running(config, handler, labels={"zone": "eu"}) as worker:
        worker.drain()
        wait_for(lambda: client.workers()[0].info["draining"])
        before = worker.registration
        with psycopg.connect(dsn) as conn:
            conn.execute("delete from pgcelery.workers")
        wait_for(lambda: worker.registration not in (None, before))
        info = client.workers()[0].info
        assert info["draining"]
        assert info["labels"] == {"worker": "w", "zone": "eu"}
        job = new_job()
        client.enqueue([job])
        with running(client.config, Recorder(), queues=("other",)):
            steps(client)
        assert client.job(job.id).state is State.AVAILABLE
    assert handler.ran == []
    assert client.workers() == []  # and a warm stop ends it


def test_what_a_drained_worker_has_queued_behind_others_goes_back(
    client: Client, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("pgcelery.engine.worker._STALE_S", 60.0)  # nor does it go back by itself
    held = Held()
    first = Recorder(held=held)
    with running(client.config, first, pool=ThreadPool(1)) as worker:
        client.enqueue([new_job() for _ in range(100)])  # fast, so more are queued ahead
        wait_for(lambda: len(first.recorded) == 100)
        rest = [new_job() for _ in range(5)]
        client.enqueue([new_job(b"held"), *rest])
        assert held.begun.wait(10)
        worker.drain()
        with running(client.config, Recorder()):
            finish(client, *rest)
        assert not set(first.ran) & {job.id for job in rest}
        held.go.set()


# -- priorities -----------------------------------------------------------------------------------


def test_a_thousand_jobs_of_ten_priorities_run_in_their_order(client: Client):
    jobs = [new_job(priority=number % 10) for number in range(1000)]
    random.Random(4).shuffle(jobs)
    client.enqueue(jobs)
    order = {job.id: (job.priority, place) for place, job in enumerate(jobs)}
    handler = Recorder()
    with running(client.config, handler, pool=ThreadPool(1)):
        finish(client, *jobs)
    assert [order[id] for id in handler.ran] == sorted(order.values())


def flood(client: Client, patience_s: float) -> float:
    """Seconds that a job of low priority waits while others keep coming, at most two."""
    low = new_job(b"slow", priority=9)
    done, stop = threading.Event(), threading.Event()

    def slow(job: Job) -> Outcome:
        stop.wait(0.002)
        if job.id == low.id:
            done.set()
        return Outcome(job.id, job.token, State.COMPLETED)

    def feed() -> None:
        while not stop.is_set():
            if client.waiting(["q"], 200) < 200:
                client.enqueue([new_job(b"slow") for _ in range(100)])

    feeder = threading.Thread(target=feed)
    client.enqueue([new_job(b"slow") for _ in range(200)])
    client.enqueue([low])
    config = replace(client.config, patience_s=patience_s)
    with running(config, Recorder(slow=slow), pool=ThreadPool(2)):
        feeder.start()
        begun = time.monotonic()
        done.wait(2)
        waited = time.monotonic() - begun
        stop.set()
        feeder.join()
    return waited


def test_a_low_priority_gets_its_turn_once_it_has_waited_for_long(client: Client):
    assert flood(client, 0.05) < 1.9
    client.purge()


def test_a_low_priority_waits_for_as_long_as_patience_lasts(client: Client):
    assert flood(client, 60.0) >= 2
    client.purge()
