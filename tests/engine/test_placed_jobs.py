"""Jobs run where they ask to: labels, preferences, and the worker that ran what came before."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace

import pytest

from pgcelery.engine import Client, EngineConfig, Gate, Job, NewJob, Outcome, State
from pgcelery.engine.placement import encode
from pgcelery.engine.pool import ThreadPool
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for


class Fleet:
    """Workers that note who ran what."""

    def __init__(self, config: EngineConfig, stack: ExitStack) -> None:
        self.config = config
        self.stack = stack
        self.ran: dict[str, str] = {}
        self.handlers: dict[str, Recorder] = {}

    def start(self, name: str, size: int = 4, config: EngineConfig | None = None, **options):
        def note(job: Job) -> Outcome:
            self.ran[job.id] = name
            return Outcome(job.id, job.token, State.COMPLETED, name.encode())

        def busy(job: Job) -> Outcome:
            threading.Event().wait(0.05)
            return note(job)

        bodies = {"note": note, "busy": busy, **options.pop("bodies", {})}
        self.handlers[name] = Recorder(**bodies)
        return self.stack.enter_context(
            running(
                config or self.config,
                self.handlers[name],
                pool=ThreadPool(size),
                name=name,
                **options,
            )
        )

    def counts(self) -> Counter[str]:
        return Counter(self.ran.values())


@pytest.fixture
def fleet(client: Client):
    with ExitStack() as stack:
        yield Fleet(client.config, stack)


def asking(payload: bytes = b"note", prefer=(), sticky: int = 0, parents=(), **require) -> NewJob:
    return new_job(payload, placement=encode(require, prefer), sticky=sticky, parents=parents)


def finish(client: Client, jobs: list[NewJob], timeout_s: float = 20) -> None:
    ids = [job.id for job in jobs]
    wait_for(lambda: len(client._final(ids)) == len(ids), timeout_s)


def waits(client: Client, job: NewJob) -> bool:
    return client.job(job.id).state is State.AVAILABLE


# -- required -------------------------------------------------------------------------------------


def test_only_a_worker_with_the_label_gets_what_requires_it(client: Client, fleet: Fleet):
    jobs = [asking(gpu="1") for _ in range(50)]
    others = [asking() for _ in range(50)]
    fleet.start("plain")
    client.enqueue([job for pair in zip(jobs, others, strict=True) for job in pair])
    finish(client, others)
    assert all(waits(client, job) for job in jobs)
    assert client.counts(["q"])["q"].ready == 50
    fleet.start("gpu", labels={"gpu": "1"})
    finish(client, jobs)
    assert {fleet.ran[job.id] for job in jobs} == {"gpu"}


def test_numbers_are_compared_as_numbers(client: Client, fleet: Fleet):
    fleet.start("small", labels={"ram": "8"})
    fleet.start("big", labels={"ram": "64"})
    big = [asking(ram=">=16") for _ in range(10)]
    small = [asking(ram="<16") for _ in range(10)]
    nobody = asking(ram=">64")
    client.enqueue([*big, *small, nobody])
    finish(client, [*big, *small])
    assert {fleet.ran[job.id] for job in big} == {"big"}
    assert {fleet.ran[job.id] for job in small} == {"small"}
    assert waits(client, nobody)


def test_a_new_place_is_noticed_while_all_workers_are_idle(client: Client, fleet: Fleet):
    fleet.start("gpu", labels={"gpu": "1"})
    warm = asking()
    client.enqueue([warm])
    finish(client, [warm])
    job = asking(gpu="1")
    begun = time.monotonic()
    client.enqueue([job])
    assert client.wait([job.id], 10)
    assert time.monotonic() - begun < 4  # an idle worker polls every 5 s


def test_what_a_worker_could_take_is_counted_without_what_it_does_not_suit(
    client: Client, fleet: Fleet
):
    worker = fleet.start("plain", labels={"zone": "eu"})
    warm = asking(zone="eu")
    client.enqueue([warm])
    finish(client, [warm])
    worker.drain()
    wait_for(lambda: client.workers()[0].info["draining"])
    jobs = [asking(gpu="1"), asking(gpu="1"), asking(), asking(zone="eu")]
    client.enqueue([*jobs, asking(prefer=[("zone", "us", 1)])])
    wait_for(lambda: client.waiting(["q"], 10, only=worker.served_ids) == 3)
    assert client.waiting(["q"], 10) == 5
    client.pause("q")
    assert client.waiting(["q"], 10) == 0


def test_labels_change_at_run_time(client: Client, fleet: Fleet):
    worker = fleet.start("w", labels={"zone": "eu"})
    job = asking(gpu="1")
    client.enqueue([job])
    other = asking(zone="eu")
    client.enqueue([other])
    finish(client, [other])
    assert waits(client, job)
    worker.set_labels({"gpu": "1", "zone": None})
    finish(client, [job])
    labels = {"worker": "w", "gpu": "1"}
    wait_for(lambda: client.workers()[0].info["labels"] == labels)
    last = asking(zone="eu")
    client.enqueue([last, plain := asking()])
    finish(client, [plain])
    assert waits(client, last)


def test_places_come_and_go_with_the_queues_of_a_worker(client: Client, fleet: Fleet):
    worker = fleet.start("w", labels={"gpu": "1"})
    job = asking(gpu="1")._replace(queue="more")
    client.enqueue([job])
    assert waits(client, job)
    worker.add_queue("more")
    finish(client, [job])
    worker.cancel_queue("more")
    wait_for(lambda: client.workers()[0].queues == ["q"])
    last = asking(gpu="1")._replace(queue="more")
    client.enqueue([last, mine := asking(gpu="1")])
    finish(client, [mine])
    assert waits(client, last)


def test_a_worker_that_hears_nothing_learns_of_places_with_a_heartbeat(dsn: str):
    config = EngineConfig(dsn=dsn, listen=False, heartbeat_s=0.2)
    with closing(Client(config)) as client, ExitStack() as stack:
        fleet = Fleet(config, stack)
        fleet.start("gpu", labels={"gpu": "1"})
        warm = asking()
        client.enqueue([warm])
        finish(client, [warm])
        job = asking(gpu="1")
        client.enqueue([job])
        finish(client, [job])


def test_a_retry_keeps_to_what_was_asked_for_and_one_in_another_queue_does_not(
    client: Client, fleet: Fleet
):
    def again(job: Job) -> Outcome:
        queue = "other" if job.id == moves.id else "q"
        return Outcome(
            job.id, job.token, State.RETRYABLE, payload=b"note", queue=queue, delay_s=0.2
        )

    stays, moves = asking(b"again", gpu="1"), asking(b"again", gpu="1")
    fleet.start("plain", queues=("q", "other"))
    gpu = fleet.start("gpu", labels={"gpu": "1"}, bodies={"again": again})
    client.enqueue([stays, moves])
    wait_for(lambda: len(fleet.handlers["gpu"].recorded) == 2)
    gpu.drain()
    after = new_job(b"note", delay_s=0.3)
    client.enqueue([after])
    finish(client, [moves, after])
    assert {fleet.ran[moves.id], fleet.ran[after.id]} == {"plain"}
    assert stays.id not in fleet.ran
    gpu.undrain()
    finish(client, [stays])
    assert fleet.ran[stays.id] == "gpu"


@pytest.mark.parametrize("sticky", [True, False])
def test_what_nobody_may_run_is_ended_when_it_expires(client: Client, fleet: Fleet, sticky: bool):
    brisk = replace(fleet.config, maintain_s=0.1, heartbeat_s=0.1)
    fleet.start("plain", config=brisk)
    first = new_job(b"note")
    if sticky:
        step = asking(sticky=2, parents=(first.id,))._replace(lives_s=0.5)
        worker = fleet.start("gone", queues=("first",))
        worker.add_queue("q")
        first, name = first._replace(placement=encode({"worker": "gone"}, [])), "gone"
        fleet.handlers[name].bodies["note"] = lambda job: ends(worker, job)
    else:
        step = asking(gpu="1", parents=(first.id,))._replace(lives_s=0.5)
    after = new_job(b"note", parents=(step.id,))
    client.enqueue([first, step, after])
    finish(client, [first, step, after])
    assert client.results([step.id])[step.id].result == b"expired"
    assert fleet.handlers["plain"].runs[-1].parent_failed


def ends(worker, job: Job) -> Outcome:
    """Have a worker claim nothing after this job."""
    worker.drain()
    wait_for(lambda: worker.draining)
    return Outcome(job.id, job.token, State.COMPLETED)


# -- preferred ------------------------------------------------------------------------------------


def test_the_preferred_worker_takes_all_while_it_has_room(client: Client, fleet: Fleet):
    patient = replace(fleet.config, placement_grace_s=5.0)
    fleet.start("us", labels={"zone": "us"}, config=patient)
    fleet.start("eu", labels={"zone": "eu"}, config=patient)
    jobs = [asking(prefer=[("zone", "eu", 50)]) for _ in range(100)]
    for job in jobs:
        client.enqueue([job])
    finish(client, jobs)
    assert fleet.counts() == {"eu": 100}


def test_others_help_after_the_grace_time_when_the_preferred_one_is_busy(
    client: Client, fleet: Fleet
):
    fleet.start("us", labels={"zone": "us"}, size=2)
    fleet.start("eu", labels={"zone": "eu"}, size=2)
    jobs = [asking(b"busy", prefer=[("zone", "eu", 50)]) for _ in range(60)]
    client.enqueue(jobs)
    finish(client, jobs)
    counts = fleet.counts()
    assert counts["eu"] >= 20
    assert counts["us"] >= 10


def test_others_take_it_soon_when_the_preferred_one_is_away(client: Client, fleet: Fleet):
    never = replace(fleet.config, poll_min_s=5.0)  # it looks again when it was told to
    fleet.start("us", labels={"zone": "us"}, config=never)
    client.enqueue([warm := asking(prefer=[("zone", "eu", 50)])])
    finish(client, [warm])
    job = asking(prefer=[("zone", "eu", 50)])
    begun = time.monotonic()
    client.enqueue([job])
    finish(client, [job])
    assert 0.2 <= time.monotonic() - begun < 4


def test_who_meets_more_of_the_weight_may_take_it_sooner(client: Client, fleet: Fleet):
    patient = replace(fleet.config, placement_grace_s=2.0)
    fleet.start("none", config=patient)
    fleet.start("half", config=patient, labels={"disk": "ssd"})
    jobs = [asking(prefer=[("disk", "ssd", 80), ("zone", "eu", 20)]) for _ in range(20)]
    client.enqueue(jobs)
    finish(client, jobs)
    assert fleet.counts() == {"half": 20}


def test_a_rate_does_not_keep_others_from_helping(client: Client, fleet: Fleet):
    fleet.start("us", labels={"zone": "us"})
    gate = Gate("rate", rate=20, period_s=1.0)
    jobs = [asking(prefer=[("zone", "eu", 50)])._replace(gates=(gate,)) for _ in range(5)]
    begun = time.monotonic()
    client.enqueue(jobs)
    finish(client, jobs)
    assert time.monotonic() - begun >= 0.2


def test_a_rate_leaves_the_head_start_to_those_who_suit_it(client: Client, fleet: Fleet):
    patient = replace(fleet.config, placement_grace_s=20.0)  # more than any machine is late by
    for zone in ("us", "eu"):
        fleet.start(zone, config=patient, labels={"zone": zone})
    gate = Gate("rate", rate=100, period_s=1.0)
    jobs = [asking(prefer=[("zone", "eu", 50)])._replace(gates=(gate,)) for _ in range(30)]
    client.enqueue(jobs)
    finish(client, jobs)
    assert fleet.counts() == {"eu": 30}


# -- sticky ---------------------------------------------------------------------------------------


def fans(many: int, sticky: int) -> list[list[NewJob]]:
    """One step each that frees more than its worker has room for, and what comes after those."""
    found = []
    for _ in range(many):
        first = new_job(b"busy")
        second = [asking(b"busy", sticky=sticky, parents=(first.id,)) for _ in range(8)]
        third = [asking(b"busy", sticky=sticky, parents=(job.id,)) for job in second]
        found.append([first, *second, *third])
    return found


@pytest.mark.parametrize("sticky", [0, 1, 2])
def test_sticky_steps_run_where_the_step_before_ran(client: Client, fleet: Fleet, sticky: int):
    patient = replace(fleet.config, placement_grace_s=10.0)
    for name in ("a", "b", "c"):
        fleet.start(name, size=2, config=patient)
    many = fans(6, sticky)
    client.enqueue([job for fan in many for job in fan])
    finish(client, [job for fan in many for job in fan], 40)
    places = [len({fleet.ran[job.id] for job in fan}) for fan in many]
    assert (max(places) == 1) == bool(sticky)
    assert len(fleet.counts()) == 3


def test_the_first_sticky_step_of_all_is_not_waited_for(client: Client, fleet: Fleet):
    """Nobody knows its place before it is made, in the step that frees it."""
    never = replace(fleet.config, poll_min_s=5.0)
    fleet.start("a", config=never)
    first = new_job(b"note")
    step = asking(sticky=2, parents=(first.id,))
    begun = time.monotonic()
    client.enqueue([first, step])
    finish(client, [step])
    assert time.monotonic() - begun < 4  # polls and heartbeats come every 5 s


@pytest.mark.parametrize("sticky", [True, False])
def test_the_head_start_begins_when_a_step_is_freed(client: Client, fleet: Fleet, sticky: bool):
    some = replace(fleet.config, placement_grace_s=1.0)

    def slow(job: Job) -> Outcome:
        threading.Event().wait(1.5)
        return fleet.handlers["a"].bodies["note"](job)

    fleet.start("a", size=1, config=some, bodies={"slow": slow})
    fleet.start("b", size=4, config=some)
    first = asking(b"slow", worker="a")
    how = {"sticky": 1} if sticky else {"prefer": [("worker", "a", 1)]}
    steps = [asking(b"busy", parents=(first.id,), **how) for _ in range(4)]
    client.enqueue([first, *steps])
    finish(client, steps)
    assert fleet.counts() == {"a": 5}


def held(client: Client, fleet: Fleet, sticky: int) -> tuple[NewJob, Callable[[], None]]:
    """A sticky step whose worker "first" has ended the step before and is then gone."""
    step = asking(sticky=sticky)
    begun, go = threading.Event(), threading.Event()

    def hold(job: Job) -> Outcome:
        begun.set()
        go.wait(10)
        return fleet.handlers["first"].bodies["note"](job)

    first = new_job(b"hold")
    worker = fleet.start("first", size=1, bodies={"hold": hold})
    client.enqueue([first, step._replace(parents=(first.id,))])
    assert begun.wait(10)

    def leave() -> None:
        worker.drain()
        wait_for(lambda: client.workers()[0].info["draining"])
        go.set()
        assert client.wait([first.id], 10)
        worker.stop()
        assert worker.stopped.wait(10)

    return step, leave


def test_a_softly_sticky_step_goes_elsewhere_when_its_worker_is_gone(client: Client, fleet: Fleet):
    step, leave = held(client, fleet, 1)
    leave()
    assert waits(client, step)
    fleet.start("second")
    finish(client, [step])
    assert fleet.ran[step.id] == "second"


def test_a_hard_sticky_step_waits_for_a_worker_of_the_same_name(client: Client, fleet: Fleet):
    step, leave = held(client, fleet, 2)
    leave()
    fleet.start("second")
    other = asking()
    client.enqueue([other])
    finish(client, [other])
    assert waits(client, step)
    fleet.start("first")
    finish(client, [step])
    assert fleet.ran[step.id] == "first"


def test_a_sticky_step_keeps_what_it_asks_for_itself(client: Client, fleet: Fleet):
    first = asking(gpu="1")
    step = asking(sticky=1, parents=(first.id,), gpu="1")
    begun, go = threading.Event(), threading.Event()

    def hold(job: Job) -> Outcome:
        begun.set()
        go.wait(10)
        return fleet.handlers["gpu 1"].bodies["note"](job)

    worker = fleet.start("gpu 1", labels={"gpu": "1"}, bodies={"hold": hold})
    client.enqueue([first._replace(payload=b"hold"), step])
    assert begun.wait(10)
    worker.drain()
    wait_for(lambda: client.workers()[0].info["draining"])
    go.set()
    assert client.wait([first.id], 10)
    fleet.start("plain")
    client.enqueue([other := asking()])
    finish(client, [other])
    wait_for(lambda: client.counts(["q"])["q"].ready == 1)
    fleet.start("gpu 2", labels={"gpu": "1"})
    finish(client, [step])
    assert fleet.ran[step.id] == "gpu 2"


def test_a_sticky_step_of_a_queue_that_its_worker_does_not_serve_goes_to_who_does(
    client: Client, fleet: Fleet
):
    fleet.start("a", queues=("q",))
    fleet.start("b", queues=("r",))
    first = asking()
    step = asking(sticky=2, parents=(first.id,))._replace(queue="r")
    client.enqueue([first, step])
    finish(client, [step])
    assert (fleet.ran[first.id], fleet.ran[step.id]) == ("a", "b")


def test_a_hard_sticky_step_that_is_given_back_returns_to_its_worker(client: Client, fleet: Fleet):
    def once(job: Job) -> Outcome:
        if not tries:
            tries.append(job.id)
            return Outcome(job.id, job.token, State.AVAILABLE)
        return fleet.handlers["a"].bodies["note"](job)

    def wrong(job: Job) -> Outcome:
        tries.append("wrong")
        return Outcome(job.id, job.token, State.COMPLETED)

    tries: list[str] = []
    first = new_job(b"note")
    fleet.start("a", size=1, bodies={"once": once})
    client.enqueue([first])
    finish(client, [first])  # "a" is there before the others
    for name in ("b", "c"):
        fleet.start(name, bodies={"once": wrong})
    for _ in range(10):
        tries.clear()
        start = asking(worker="a")
        step = asking(b"once", sticky=2, parents=(start.id,))
        client.enqueue([start, step])
        finish(client, [step])
        assert fleet.ran[step.id] == "a"
        assert tries == [step.id]
