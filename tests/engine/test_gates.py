"""Gates by real workers: limits hold and are reached, lines keep their order, no slot is lost.

Promise P16 of docs/guarantees.md.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate, InvalidJob, Job, NewJob, Outcome, State
from pgcelery.engine.pool import ThreadPool
from tests.support.jobs import Recorder, new_job, running
from tests.support.wait import wait_for


class Gauge:
    """Bodies that note how many of a name run at once."""

    def __init__(self, hold_s: float = 0.002, unruly: bool = True) -> None:
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.hold_s, self.unruly = hold_s, unruly

    def __call__(self, job: Job) -> Outcome:
        keys = job.name.split("+")
        with self.lock:
            self.now.update(keys)
            for key in keys:
                self.most[key] = max(self.most[key], self.now[key])
        threading.Event().wait(random.uniform(0, self.hold_s))
        with self.lock:
            self.now.subtract(keys)
        if self.unruly and random.random() < 0.1 and job.delivery == 1:
            return Outcome(job.id, job.token, State.AVAILABLE, counted=True)
        if self.unruly and random.random() < 0.1:
            return Outcome(job.id, job.token, State.RETRYABLE, delay_s=0.01)
        return Outcome(job.id, job.token, random.choice([State.COMPLETED, State.FAILED]))


class Held:
    """Bodies that wait until they are let go."""

    def __init__(self) -> None:
        self.go = threading.Event()

    def __call__(self, job: Job) -> Outcome:
        self.go.wait(20)
        return Outcome(job.id, job.token, State.COMPLETED)


def gated(key: str = "k", slots: int | None = 1, payload: bytes = b"ok", **options: Any) -> NewJob:
    gate = {name: options.pop(name) for name in ("weight", "strategy", "name") if name in options}
    return new_job(
        payload, name=key, gates=(Gate(gate.pop("name", key), slots=slots, **gate),), **options
    )


def in_use(dsn: str) -> dict[str, int]:
    with psycopg.connect(dsn) as conn:
        return dict(conn.execute("select name || key, in_use from pgcelery.lines").fetchall())


def waiting(dsn: str) -> int:
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select count(*) from pgcelery.gated").fetchone()
    assert row
    return int(row[0])


def at_rest(dsn: str) -> bool:
    return waiting(dsn) == 0 and not any(in_use(dsn).values())


def all_done(client: Client, jobs: list[NewJob]) -> bool:
    found = client.results([job.id for job in jobs])
    return len(found) == len(jobs) and all(row.state.final for row in found.values())


# -- limits ---------------------------------------------------------------------------------------


def test_never_more_than_the_limit_runs_and_every_slot_comes_back(client: Client, dsn: str):
    gauge = Gauge()
    handler = Recorder(gauge=gauge)
    limits = {"a": 1, "b": 2, "c": 3}
    jobs = [gated(key, limit, b"gauge") for key, limit in limits.items() for _ in range(60)]
    random.shuffle(jobs)
    with (
        running(client.config, handler, pool=ThreadPool(6), name="1"),
        running(client.config, handler, pool=ThreadPool(6), name="2"),
    ):
        for start in range(0, len(jobs), 20):
            client.enqueue(jobs[start : start + 20])
        wait_for(lambda: all_done(client, jobs), timeout_s=60)
    assert gauge.most == limits  # reached, and never passed
    assert at_rest(dsn)


def test_jobs_of_a_line_run_in_order_of_enqueue(client: Client):
    jobs = [gated() for _ in range(30)]
    client.enqueue(jobs)
    handler = Recorder()
    with running(client.config, handler):
        wait_for(lambda: len(handler.recorded) == 30)
    assert handler.ran == [job.id for job in jobs]


def test_a_higher_priority_goes_first_in_its_line(client: Client):
    jobs = [gated(priority=number) for number in (5, 3, 0, 3)]
    client.enqueue(jobs)
    handler = Recorder()
    with running(client.config, handler):
        wait_for(lambda: len(handler.recorded) == 4)
    assert handler.ran == [jobs[place].id for place in (2, 1, 3, 0)]


def test_a_full_line_does_not_hold_up_other_work(client: Client):
    held = Held()
    handler = Recorder(hold=held)
    client.enqueue([gated("full", payload=b"hold") for _ in range(50)])
    with running(client.config, handler, pool=ThreadPool(2)):
        wait_for(lambda: len(handler.ran) == 1)
        free, other = new_job(), gated("other")
        client.enqueue([free, other])
        wait_for(lambda: all_done(client, [free, other]))
        assert client.counts(["q"])["q"].gated == 49
        held.go.set()
        wait_for(lambda: len(handler.recorded) == 52)


def test_a_limit_can_grow_with_the_next_job(client: Client):
    gauge = Gauge(hold_s=0.05, unruly=False)
    client.enqueue([gated("k", 1, b"gauge") for _ in range(3)])
    handler = Recorder(gauge=gauge)
    with running(client.config, handler, pool=ThreadPool(8)):
        wait_for(lambda: len(handler.recorded) >= 1)
        last = [gated("k", 3, b"gauge") for _ in range(10)]
        client.enqueue(last)
        wait_for(lambda: all_done(client, last), timeout_s=30)
    assert 1 < gauge.most["k"] <= 3


def test_a_limit_set_at_run_time_overrules_jobs(client: Client, dsn: str):
    held = Held()
    handler = Recorder(hold=held)
    client.enqueue([gated("k", 1, b"hold") for _ in range(6)])
    with (
        running(client.config, handler, pool=ThreadPool(8)),
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        wait_for(lambda: len(handler.ran) == 1)
        conn.execute("select pgcelery.set_limit_v1('k', null, 3, null, null, null, null)")
        client.enqueue([gated("k", 1, b"hold")])
        wait_for(lambda: len(handler.ran) == 3)
        conn.execute("select pgcelery.set_limit_v1('k', '', 4, null, null, null, null)")
        client.enqueue([new_job()])
        wait_for(lambda: len(handler.ran) == 5)  # the fourth, and the one without gates
        assert in_use(dsn) == {"k": 4}
        held.go.set()
        wait_for(lambda: len(handler.recorded) == 8)
    assert at_rest(dsn)


def test_the_slot_of_a_dead_worker_is_freed(client: Client, dsn: str):
    first, second = gated(max_deliveries=2, payload=b"hold"), gated()
    held = Held()
    handler = Recorder(hold=held)
    client.enqueue([first])
    with running(replace(client.config, maintain_s=0.1), handler):
        wait_for(lambda: handler.ran)
        client.enqueue([second])
        with psycopg.connect(dsn) as conn:
            conn.execute("update pgcelery.running set worker_id = 999999")
        wait_for(lambda: len(handler.ran) == 2)
        assert handler.ran[1] == first.id, "what came first has kept its place"
        held.go.set()
        wait_for(lambda: all_done(client, [first, second]))
    wait_for(lambda: at_rest(dsn))


def test_a_retry_and_what_is_given_back_pass_the_gates_again(client: Client, dsn: str):
    def body(job: Job) -> Outcome:
        if len(handler.ran) == 1:
            return Outcome(job.id, job.token, State.AVAILABLE, counted=True)
        if len(handler.ran) == 2:
            return Outcome(job.id, job.token, State.RETRYABLE)
        return Outcome(job.id, job.token, State.COMPLETED)

    handler = Recorder(body=body)
    jobs = [gated(payload=b"body", max_deliveries=3) for _ in range(3)]
    client.enqueue(jobs)
    with running(client.config, handler):
        wait_for(lambda: all_done(client, jobs))
    first, second, third = (job.id for job in jobs)
    assert handler.ran == [first, first, first, second, third]
    assert at_rest(dsn)


def test_a_retry_that_waits_holds_no_slot(client: Client, dsn: str):
    handler = Recorder(later=lambda job: Outcome(job.id, job.token, State.RETRYABLE, delay_s=3600))
    jobs = [gated(payload=b"later"), gated()]
    client.enqueue(jobs)
    with running(client.config, handler):
        wait_for(lambda: all_done(client, jobs[1:]))
    assert at_rest(dsn)


# -- several gates, rates -------------------------------------------------------------------------


def crossed(number: int) -> tuple[Gate, ...]:
    """Two or three of five gates, in any order."""
    pool = [Gate(name, slots=2) for name in "abc"]
    pool += [
        Gate("r", rate=1, period_s=0.004, burst=4),
        Gate("f", rate=40, period_s=0.1, fixed=True),
    ]
    return tuple(random.Random(number).sample(pool, 2 + number % 2))


def test_jobs_with_several_gates_never_block_each_other_for_good(client: Client, dsn: str):
    """Many lines, several workers, cancels and new limits meanwhile: no deadlock, nothing left."""
    gauge = Gauge()
    handler = Recorder(gauge=gauge)
    jobs = []
    for number in range(300):
        gates = crossed(number)
        name = "+".join(gate.name for gate in gates if gate.slots) or "none"
        jobs.append(new_job(b"gauge", name=name, gates=gates, max_deliveries=9))
    with (
        running(client.config, handler, pool=ThreadPool(4), name="1"),
        running(client.config, handler, pool=ThreadPool(4), name="2"),
        running(client.config, handler, pool=ThreadPool(4), name="3"),
        psycopg.connect(dsn, autocommit=True) as conn,
    ):
        before = deadlocks(conn)
        for start in range(0, len(jobs), 10):
            client.enqueue(jobs[start : start + 10])
            client.cancel([jobs[start].id])
            conn.execute(
                "select pgcelery.set_limit_v1(%s, null, 2, null, null, null, null)",
                ["abc"[start % 3]],
            )
        wait_for(lambda: all_done(client, jobs), 60)
        wait_for(lambda: at_rest(dsn))
        assert deadlocks(conn) == before
    assert {key: gauge.most[key] for key in "abc"} == {"a": 2, "b": 2, "c": 2}


def deadlocks(conn: psycopg.Connection[Any]) -> int:
    """Count those that the server has resolved in this database, ever."""
    ((count,),) = conn.execute(
        "select deadlocks from pg_stat_database where datname = current_database()"
    ).fetchall()
    return int(count)


def test_all_workers_together_keep_a_rate(client: Client, dsn: str):
    starts: list[float] = []

    def note(job: Job) -> Outcome:
        starts.append(time.monotonic())
        return Outcome(job.id, job.token, State.COMPLETED)

    handler = Recorder(note=note)
    gate = Gate("r", rate=40, period_s=1.0, burst=5)
    jobs = [new_job(b"note", gates=(gate,)) for _ in range(45)]
    with (
        running(client.config, handler, name="1"),
        running(client.config, handler, name="2"),
        running(client.config, handler, name="3"),
    ):
        client.enqueue(jobs)
        wait_for(lambda: all_done(client, jobs))
    took_s = max(starts) - min(starts)
    assert 0.8 < took_s < 2.5, "forty after the burst of five, at forty a second"


# -- strategies -----------------------------------------------------------------------------------


def kinds(handler: Recorder) -> dict[str, str]:
    return {id: why.kind for id, why in handler.lost_jobs}


def test_the_newest_is_cancelled_when_no_slot_is_free(client: Client, dsn: str):
    held = Held()
    handler = Recorder(hold=held)
    first, second, third = (gated(payload=b"hold", strategy=1) for _ in range(3))
    with running(client.config, handler):
        client.enqueue([first])
        wait_for(lambda: handler.ran)
        client.enqueue([second])
        wait_for(lambda: all_done(client, [second]))
        held.go.set()
        wait_for(lambda: all_done(client, [first]))
        client.enqueue([third])
        wait_for(lambda: all_done(client, [third]))
    assert handler.ran == [first.id, third.id]
    assert kinds(handler) == {second.id: "no_slot"}
    assert at_rest(dsn)


class Terminable(ThreadPool):
    """Runs end when they are terminated, as those of processes do."""

    def __init__(self, threads: int, held: Held) -> None:
        super().__init__(threads)
        self.held = held
        self.terminated: list[str] = []

    def terminate(self, job_id: str, signum: int) -> bool:
        self.terminated.append(job_id)
        self.held.go.set()
        return True


@pytest.mark.parametrize("threads", [1, 4])
def test_what_runs_gives_way_to_the_newest(client: Client, dsn: str, threads: int):
    """Also when all workers are full with the very job that is to be cancelled."""
    held = Held()
    handler = Recorder(hold=held)
    pool = Terminable(threads, held)
    first, second = gated(payload=b"hold", strategy=2), gated(strategy=2)
    with running(replace(client.config, heartbeat_s=0.2), handler, pool=pool):
        client.enqueue([first])
        wait_for(lambda: handler.ran)
        client.enqueue([second])
        wait_for(lambda: all_done(client, [first, second]), 10)
    assert set(pool.terminated) == {first.id}
    assert handler.ran == [first.id, second.id]
    assert at_rest(dsn)


def test_the_newest_replaces_what_waits(client: Client, dsn: str):
    held = Held()
    handler = Recorder(hold=held)
    runs, *others = (gated(payload=b"hold", strategy=3) for _ in range(5))
    with running(client.config, handler):
        client.enqueue([runs])
        wait_for(lambda: handler.ran)
        for job in others:
            client.enqueue([job])
        wait_for(lambda: all_done(client, others[:-1]))
        held.go.set()
        wait_for(lambda: all_done(client, [runs, *others]))
    assert handler.ran == [runs.id, others[-1].id]
    assert kinds(handler) == {job.id: "replaced" for job in others[:-1]}
    assert at_rest(dsn)


def test_a_delayed_job_is_replaced_by_the_next(client: Client, dsn: str):
    """Debounce: of a burst the last one runs, once it has been quiet for the delay."""
    handler = Recorder()
    jobs = [gated(strategy=3, delay_s=0.4) for _ in range(5)]
    with running(client.config, handler):
        for job in jobs:
            client.enqueue([job])
        wait_for(lambda: all_done(client, jobs))
    assert handler.ran == [jobs[-1].id]
    assert kinds(handler) == {job.id: "replaced" for job in jobs[:-1]}
    assert at_rest(dsn)


# -- fairness -------------------------------------------------------------------------------------


def names_in_order(handler: Recorder) -> list[str]:
    return [job.name for job in handler.runs]


def test_ten_of_a_small_tenant_are_not_behind_ten_thousand(client: Client):
    big = [tenant("big") for _ in range(10_000)]
    small = [tenant("small") for _ in range(10)]
    handler = Recorder()
    client.enqueue(big)
    client.enqueue(small)
    with running(client.config, handler, pool=ThreadPool(1, prefetch=1)):
        wait_for(lambda: all_done(client, small), 30)
        order = names_in_order(handler)
    places = [place for place, name in enumerate(order) if name == "small"]
    assert places[0] <= 4, "one round"
    assert places[-1] <= 30


def tenant(key: str, weight: float = 1.0, slots: int | None = 4, **options: Any) -> NewJob:
    return new_job(name=key, gates=(Gate("tenant", key, slots=slots, weight=weight),), **options)


@pytest.mark.parametrize("slots", [8, None])
def test_lines_share_by_weight(client: Client, slots: int | None):
    handler = Recorder()
    client.enqueue([tenant("heavy", 3, slots) for _ in range(600)])
    client.enqueue([tenant("light", 1, slots) for _ in range(600)])
    with running(client.config, handler, pool=ThreadPool(1, prefetch=1)):
        wait_for(lambda: len(handler.ran) >= 400, 30)
        share = Counter(names_in_order(handler)[:400])
    assert share["heavy"] / 400 == pytest.approx(0.75, abs=0.05)


def test_a_line_without_slots_is_only_fair(client: Client, dsn: str):
    gauge = Gauge(hold_s=0.05, unruly=False)
    handler = Recorder(gauge=gauge)
    jobs = [gated("k", None, b"gauge") for _ in range(24)]
    client.enqueue(jobs)
    with running(client.config, handler, pool=ThreadPool(8)):
        wait_for(lambda: all_done(client, jobs))
    assert gauge.most["k"] == 8
    assert at_rest(dsn)


def test_jobs_with_and_without_gates_share_a_queue(client: Client):
    handler = Recorder()
    client.enqueue([new_job(name="plain") for _ in range(300)])
    client.enqueue([tenant("gated", slots=None) for _ in range(300)])
    with running(client.config, handler, pool=ThreadPool(1, prefetch=1)):
        wait_for(lambda: len(handler.ran) >= 200, 30)
        share = Counter(names_in_order(handler)[:200])
    assert 60 <= share["gated"] <= 140


def test_priority_comes_before_turns_in_both_lanes(client: Client):
    handler = Recorder()
    client.enqueue([new_job(name="3", priority=3) for _ in range(20)])
    client.enqueue([new_job(name="1", priority=1) for _ in range(20)])
    for priority in (2, 0):
        one = tenant(str(priority), slots=None, priority=priority)
        client.enqueue([one._replace(id=f"{priority}-{number}") for number in range(20)])
    with running(client.config, handler, pool=ThreadPool(1, prefetch=1)):
        wait_for(lambda: len(handler.recorded) == 80, 30)
    assert names_in_order(handler) == [name for name in "0123" for _ in range(20)]


def test_a_line_in_two_queues_is_not_set_back_in_either(client: Client):
    """What it has had in the busy one does not put it behind all of the quiet one."""
    client.enqueue([tenant("both", slots=None) for _ in range(400)])
    handler = Recorder()
    with running(client.config, handler, pool=ThreadPool(4)):
        wait_for(lambda: len(handler.recorded) == 400, 30)
    handler = Recorder()
    client.enqueue([tenant("other", slots=None, queue="quiet") for _ in range(200)])
    client.enqueue([tenant("both", slots=None, queue="quiet") for _ in range(5)])
    pool = ThreadPool(1, prefetch=1)
    with running(client.config, handler, pool=pool, queues=("quiet",)):
        wait_for(lambda: len(handler.recorded) == 205, 30)
    places = [place for place, name in enumerate(names_in_order(handler)) if name == "both"]
    assert places[-1] <= 20


# -- workflows ------------------------------------------------------------------------------------


def test_members_and_steps_of_a_workflow_pass_their_gates(client: Client, dsn: str):
    gauge = Gauge(unruly=False)
    handler = Recorder(gauge=gauge)
    members = [gated("k", 2, b"gauge") for _ in range(12)]
    body = gated("k", 2, parents=tuple(job.id for job in members))
    last = gated("k", 2, parents=(body.id,))
    client.enqueue([*members, body, last])
    with running(client.config, handler, pool=ThreadPool(6)):
        wait_for(lambda: all_done(client, [last]))
    assert handler.ran[-2:] == [body.id, last.id]
    assert gauge.most["k"] <= 2
    assert at_rest(dsn)


def test_what_a_failed_parent_frees_passes_no_gate(client: Client, dsn: str):
    held = Held()
    handler = Recorder(hold=held, fail=lambda job: Outcome(job.id, job.token, State.FAILED, b"no"))
    full, parent = gated("k", 1, b"hold"), new_job(b"fail")
    child = gated("k", 1, parents=(parent.id,))
    with running(client.config, handler):
        client.enqueue([full])
        wait_for(lambda: handler.ran)
        client.enqueue([parent, child])
        wait_for(lambda: all_done(client, [parent, child]))
        assert in_use(dsn) == {"k": 1}
        held.go.set()
        wait_for(lambda: all_done(client, [full]))
    assert at_rest(dsn)


def test_a_job_that_goes_on_under_its_id_with_other_gates_gives_its_own_back(
    client: Client, dsn: str
):
    job = gated("k", 1, b"replace")

    def replaced(run: Job) -> Outcome:
        follow = new_job(id=run.id, gates=(Gate("other", slots=1),))
        return Outcome(run.id, run.token, State.WAITING, follow_ups=(follow,))

    handler = Recorder(replace=replaced)
    client.enqueue([job])
    with running(client.config, handler):
        wait_for(lambda: all_done(client, [job]))
        after = gated("k", 1)
        client.enqueue([after])
        wait_for(lambda: all_done(client, [after]))
    assert at_rest(dsn)


# -- many -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_first_of_sixty_thousand_starts_at_once(client: Client, dsn: str):
    client.enqueue([tenant("big", slots=2, id=f"b{number}") for number in range(60_000)])
    handler = Recorder()
    with running(client.config, handler, pool=ThreadPool(2)):
        wait_for(lambda: handler.ran, 1.0)
        small = tenant("small")
        client.enqueue([small])
        wait_for(lambda: all_done(client, [small]), 1.0)
        wait_for(lambda: len(handler.recorded) > 200)
    assert client.purge(["q"]) > 55_000
    assert at_rest(dsn)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"name": ""}, "name of a limit"),
        ({"key": "x" * 256}, "key of a limit"),
        ({"slots": 0}, "slots must be a whole number, at least 1"),
        ({"rate": 0}, "rate must be a whole number, at least 1"),
        ({"weight": 0}, "weight must be a number above 0"),
        ({"period_s": 0}, "period_s must be a number above 0"),
        ({"units": 0}, "units must be at least 1"),
        ({"strategy": 7}, "no strategy 7"),
    ],
)
def test_a_bad_gate_is_refused(client: Client, change: dict[str, Any], match: str):
    with pytest.raises(InvalidJob, match=match):
        client.enqueue([new_job(gates=(Gate("k")._replace(**change),))])


def test_gates_that_are_too_many_or_the_same_are_refused(client: Client):
    with pytest.raises(InvalidJob, match="9 gates"):
        client.enqueue([new_job(gates=tuple(Gate(f"k{number}") for number in range(9)))])
    with pytest.raises(InvalidJob, match="two gates of one name and key"):
        client.enqueue([new_job(gates=(Gate("k", slots=1), Gate("k", slots=2)))])
