"""A worker's own rates: what begins when, and where what may not begin yet waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate, Job, Lost, NewJob, Outcome, State, Worker
from pgcelery.engine.arrays import BigintArray, IntegerArray, TextArray
from pgcelery.engine.placement import encode, score
from pgcelery.engine.pool import ThreadPool
from pgcelery.engine.territory import Territory
from pgcelery.engine.throttle import Throttle
from pgcelery.engine.workflows import Rerun
from tests.support.jobs import Recorder, new_job, running
from tests.support.nodes import SimNode, call, connect
from tests.support.rates import excess, share
from tests.support.relays import Notes, TellingPool, at_work, chain_of
from tests.support.wait import wait_for


def limited(payload: bytes = b"note", **options: Any) -> NewJob:
    return new_job(payload, name="limited", **options)


def claimed(id: str, name: str = "limited") -> Job:
    return Job(id, 1, "q", name, b"", 0, 1)


# -- when ------------------------------------------------------------------------------------------


def throttle(**rates: float) -> Throttle:
    found = Throttle(Territory({"worker": "w"}, 0.2))
    found.set_rates(rates)
    return found


def admit(one: Throttle, now: float, *ids: str) -> list[str]:
    """Give it jobs; the ids of those that it withholds."""
    _, held, withheld = one.sift([claimed(id) for id in ids], now, drawn=True, stopping=False)
    one.hold(held, now)
    return [job.id for job in withheld]


def begin(one: Throttle, now: float, room: int = 10) -> list[str]:
    return [job.id for job in one.begin(now, room)]


def test_one_begins_at_once_and_the_next_ones_an_interval_later_each():
    one = throttle(limited=10)
    assert admit(one, 5.0, "a", "b", "c", "d", "e") == ["d", "e"]  # three within a quarter second
    assert begin(one, 5.0) == ["a"]
    assert one.next_in(5.0) == pytest.approx(0.1)
    assert begin(one, 5.09) == []
    assert begin(one, 5.1) == ["b"]
    assert one.next_in(5.1) == pytest.approx(0.1)
    assert begin(one, 5.2) == ["c"]
    assert one.next_in(5.2) == float("inf")


def test_a_start_that_is_a_little_late_does_not_slow_down_those_after_it():
    one = throttle(limited=10)
    admit(one, 5.0, "a", "b", "c")
    assert begin(one, 5.008) == ["a"]
    assert begin(one, 5.099) == []
    assert begin(one, 5.1) == ["b"]
    assert begin(one, 5.5) == ["c"]  # but what is missed by more is not made up for
    one.hold([claimed("d")], 5.5)
    assert begin(one, 5.58) == []


def test_a_pause_saves_nothing_up():
    one = throttle(limited=10)
    admit(one, 5.0, "a")
    assert begin(one, 5.0) == ["a"]
    admit(one, 60.0, "b", "c", "d")
    assert begin(one, 60.0) == ["b"]
    assert begin(one, 60.08) == []
    assert begin(one, 60.1) == ["c"]


def test_nothing_begins_without_room_and_who_has_been_late_for_longest_is_first():
    one = throttle(limited=10, other=1000)
    admit(one, 5.0, "a", "b")
    one.hold([claimed(id, "other") for id in ("x", "y")], 5.0)
    assert begin(one, 5.0, room=0) == []
    assert one.due(5.0) == 2
    assert sorted(begin(one, 5.0, room=2)) == ["a", "x"]
    assert begin(one, 5.2, room=1) == ["y"]
    assert begin(one, 5.2, room=1) == ["b"]
    one.hold([claimed("c")], 9.0)
    assert one.recall(8.9) == []
    assert [job.id for job in one.recall(9.0)] == ["c"]


def test_a_new_rate_counts_from_the_last_start():
    one = throttle(limited=0.1)
    admit(one, 5.0, "a")
    assert begin(one, 5.0) == ["a"]
    assert admit(one, 6.0, "b") == ["b"]
    one.set_rates({"limited": 1})
    assert admit(one, 6.0, "c") == []
    assert begin(one, 6.0) == ["c"]
    assert admit(one, 6.8, "d", "e") == ["e"]
    assert [job.id for job in one.set_rates({})] == ["d"]
    assert one.recall() == []


def test_what_only_comes_to_be_ended_takes_no_start():
    one = throttle(limited=0.001)
    admit(one, 5.0, "a")
    failed = claimed("b")._replace(parent_failed=True)
    free, held, withheld = one.sift([failed], 5.0, drawn=False, stopping=False)
    assert (free, held, withheld) == ([failed], [], [])


# -- where -----------------------------------------------------------------------------------------


class World:
    """Nodes without processes, and a look at the tables."""

    def __init__(self, client: Client, conn: psycopg.Connection[Any]) -> None:
        self.client, self.conn = client, conn
        self.node = SimNode(client, conn, "a", ["q"])

    def withhold(self, *claims: Any, names: tuple[str, ...] = ("limited",)) -> list[int]:
        queues = IntegerArray.of(list(self.node.territory.queues.values()))
        tokens = BigintArray.of([claim.token for claim in claims])
        rows = call(self.conn, "withhold", [tokens, queues, TextArray.of(names)])
        return [row[0] for row in rows]

    def draw(self, place: int, most: int) -> list[tuple]:
        ids, counts = IntegerArray.of([place]), IntegerArray.of([most])
        return call(self.conn, "draw", [self.node.id, ids, counts])

    def ready(self, queue_id: int) -> list[str]:
        rows = self.conn.execute(
            "select job_id from pgcelery.ready where queue_id = %s order by priority, tag, seq",
            [queue_id],
        )
        return [row[0] for row in rows]

    def one(self, query: str, *params: Any) -> Any:
        row = self.conn.execute(query, params).fetchone()
        return row and row[0]


@pytest.fixture
def world(client: Client) -> Iterator[World]:
    with connect(client.config.dsn) as conn:
        yield World(client, conn)


def test_withheld_jobs_go_where_no_claim_looks_with_those_like_them_and_come_back_in_order(
    world: World, client: Client
):
    jobs = [limited(max_deliveries=1) for _ in range(6)]
    other, late = new_job(), limited()
    client.enqueue([*jobs, other, late])
    first = world.node.step(2).claims
    assert [claim.job_id for claim in first] == [jobs[0].id, jobs[1].id]
    (place,) = world.withhold(*reversed(first))
    assert world.withhold(*first) == []  # a repeat does nothing
    assert [claim.job_id for claim in world.node.step(10).claims] == [other.id]
    wanted = [job.id for job in (*jobs, late)]
    assert world.ready(place) == wanted
    rows = world.draw(place, 3)
    assert [(row[1], row[3], row[7]) for row in rows] == [
        (id, world.node.territory.queues["q"], 1) for id in wanted[:3]
    ]
    assert [row[1] for row in world.draw(place, 10)] == wanted[3:]
    assert world.draw(place, 10) == []
    again = Outcome(jobs[0].id, rows[0][2], State.AVAILABLE)  # back to where it came from
    world.node.again([again])
    assert [claim.job_id for claim in world.node.step(1).claims] == [jobs[0].id]
    assert client.counts(["q"])["q"].ready == 0


def test_each_name_and_each_place_of_a_queue_has_a_place_of_its_own(world: World, client: Client):
    gpu = encode({"gpu": "1"})
    jobs = [limited(), new_job(name="other limited"), limited(placement=gpu)]
    client.enqueue(jobs)
    ids = client.intern_places([("q", gpu)])
    world.node.territory.queues["gpu"] = ids["q", gpu]
    claims = world.node.step(10).claims
    places = world.withhold(*claims, names=("limited", "other limited"))
    assert len(set(places)) == 3
    asked = world.conn.execute("select wants from pgcelery.places where own is null").fetchall()
    labels = {"worker": "a", "gpu": "1"}  # workers of before there were such places ask just this
    assert [score(text, labels) for (text,) in asked].count(None) == 3
    drawn = {row[1]: row[3] for place in places for row in world.draw(place, 5)}
    plain = world.node.territory.queues["q"]
    assert drawn == {jobs[0].id: plain, jobs[1].id: plain, jobs[2].id: ids["q", gpu]}


def test_a_withheld_job_is_cancelled_and_counted_and_purged_as_any_that_waits(
    world: World, client: Client
):
    jobs = [limited() for _ in range(3)]
    client.enqueue(jobs)
    world.withhold(*world.node.step(1).claims)
    assert client.counts(["q"])["q"].ready == 3
    client.cancel([jobs[1].id])
    assert client.job(jobs[1].id).state is State.CANCELLED
    assert client.counts(["q"])["q"].ready == 2
    assert client.purge(["q"]) == 2


def test_what_is_to_be_cancelled_is_not_withheld(world: World, client: Client):
    job = limited()
    client.enqueue([job])
    claims = world.node.step(1).claims
    client.cancel([job.id])
    world.withhold(*claims)
    (again,) = world.node.step(1).claims
    assert again.struck


def test_a_withheld_job_keeps_its_slots_and_gives_them_back_at_its_end(
    world: World, client: Client
):
    gate = Gate("line", slots=1)
    jobs = [limited(gates=(gate,)), limited(gates=(gate,))]
    client.enqueue(jobs)
    claims = world.node.step(2).claims
    assert [claim.job_id for claim in claims] == [jobs[0].id]
    (place,) = world.withhold(*claims)
    assert world.node.step(2).claims == []
    rows = world.draw(place, 5)
    assert [row[1] for row in rows] == [jobs[0].id]
    ended = Outcome(jobs[0].id, rows[0][2], State.COMPLETED)
    assert [claim.job_id for claim in world.node.step(2, [ended]).claims] == [jobs[1].id]
    (place,) = world.withhold(*world.node.runs.values())
    assert world.ready(-place) == [jobs[1].id]  # the lane of what has passed gates
    client.cancel([jobs[1].id])
    assert world.one("select max(in_use) from pgcelery.lines") == 0


def test_a_paused_queue_gives_nothing_and_neither_does_one_to_an_unknown_worker(
    world: World, client: Client
):
    client.enqueue([limited()])
    (place,) = world.withhold(*world.node.step(1).claims)
    client.pause("q")
    assert world.draw(place, 5) == []
    client.resume("q")
    known, world.node.id = world.node.id, 10**6
    assert world.draw(place, 5) == []
    world.node.id = known
    assert len(world.draw(place, 5)) == 1


def test_a_withheld_job_that_was_cancelled_is_of_its_queue_again_when_it_is_replayed(
    world: World, client: Client
):
    job = limited(workflow="flow", leads=True)
    client.enqueue([job])
    world.withhold(*world.node.step(1).claims)
    client.cancel([job.id])
    client.replay([Rerun(job.id)], workflow="flow")
    assert [claim.job_id for claim in world.node.step(1).claims] == [job.id]


# -- workers ---------------------------------------------------------------------------------------


class Fleet:
    """Workers that note when bodies began."""

    def __init__(self, client: Client, stack: ExitStack) -> None:
        self.client, self.stack = client, stack
        self.starts: list[tuple[float, str, str]] = []  # when, which worker, which job
        self.handlers: dict[str, Recorder] = {}

    def start(self, name: str, size: int = 4, config: Any = None, **options: Any) -> Worker:
        def note(job: Job) -> Outcome:
            self.starts.append((time.monotonic(), name, job.id))
            return Outcome(job.id, job.token, State.COMPLETED)

        self.handlers[name] = Recorder(note=note, **options.pop("bodies", {}))
        config = config or self.client.config
        handler, pool = self.handlers[name], ThreadPool(size)
        return self.stack.enter_context(running(config, handler, pool=pool, name=name, **options))

    def times(self, name: str | None = None) -> list[float]:
        return [at for at, worker, _ in self.starts if name in (None, worker)]

    def began(self, *jobs: NewJob) -> int:
        ids = {job.id for job in jobs}
        return len({id for _, _, id in self.starts} & ids)

    def finish(self, jobs: list[NewJob], timeout_s: float = 20) -> None:
        ids = [job.id for job in jobs]
        wait_for(lambda: len(self.client._final(ids)) == len(ids), timeout_s)


@pytest.fixture
def fleet(client: Client) -> Iterator[Fleet]:
    with ExitStack() as stack:
        yield Fleet(client, stack)


def waits(client: Client, job: NewJob) -> bool:
    return client.job(job.id).state is State.AVAILABLE


def test_a_worker_starts_no_faster_and_not_much_slower_than_its_rate(client: Client, fleet: Fleet):
    jobs = [limited() for _ in range(31)]
    client.enqueue(jobs)
    fleet.start("w", rates={"limited": 20})
    fleet.finish(jobs)
    assert excess(fleet.times(), 20) == 0
    assert share(fleet.times(), 20) > 0.8
    assert [id for _, _, id in fleet.starts] == [job.id for job in jobs]
    assert {job.delivery for job in fleet.handlers["w"].runs} == {1}


def test_two_workers_start_twice_as_many_each_at_its_rate(client: Client, fleet: Fleet):
    jobs = [limited() for _ in range(42)]
    fleet.start("a", rates={"limited": 10})
    fleet.start("b", rates={"limited": 10})
    client.enqueue(jobs)
    fleet.finish(jobs)
    for name in "ab":
        assert excess(fleet.times(name), 10) == 0
        assert share(fleet.times(name), 10) > 0.8
        assert len(fleet.times(name)) >= 17


def test_thousands_that_wait_do_not_delay_the_others_of_their_queue(client: Client, fleet: Fleet):
    client.enqueue([limited() for _ in range(5000)])
    others = [new_job(b"note") for _ in range(20)]
    client.enqueue(others)
    fleet.start("w", rates={"limited": 0.1})
    began = time.monotonic()
    fleet.finish(others)
    at = [at for at, _, id in fleet.starts if id in {job.id for job in others}]
    assert max(at) - began < 3.0
    assert len(fleet.starts) == len(others) + 1


@pytest.mark.parametrize("held", [False, True])
def test_a_slot_is_not_kept_free_for_what_may_not_start_yet(
    client: Client, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, held: bool
):
    if held:  # by the worker, and not withheld
        monkeypatch.setattr("pgcelery.engine.throttle._HORIZON_S", 7200.0)
    jobs = [limited() for _ in range(10)]
    client.enqueue(jobs)
    worker = fleet.start("w", size=1, rates={"limited": 1 / 3600})
    wait_for(lambda: fleet.began(*jobs))
    others = [new_job(b"note") for _ in range(50)]
    client.enqueue(others)
    fleet.finish(others)
    assert fleet.began(*jobs) == 1
    worker.set_rates({})
    fleet.finish(jobs)


def test_one_that_finds_no_room_at_its_turn_goes_to_another_worker(client: Client, fleet: Fleet):
    go = threading.Event()

    def hold(job: Job) -> Outcome:
        go.wait(20)
        return Outcome(job.id, job.token, State.COMPLETED)

    fleet.start("a", size=1, rates={"limited": 5}, bodies={"hold": hold})
    first = limited()
    client.enqueue([first])
    fleet.finish([first])
    second = limited()
    client.enqueue([new_job(b"hold"), second])
    fleet.start("b", size=1, rates={"limited": 5})
    fleet.finish([second])
    assert fleet.starts[-1][1:] == ("b", second.id)
    go.set()


def test_a_rate_is_raised_and_lifted_while_jobs_wait(client: Client, fleet: Fleet):
    jobs = [limited() for _ in range(40)]
    client.enqueue(jobs)
    worker = fleet.start("w", rates={"limited": 1 / 3600})
    wait_for(lambda: fleet.began(*jobs) == 1)
    wait_for(lambda: client.workers()[0].info["rates"] == {"limited": pytest.approx(1 / 3600)})
    worker.set_rates({"limited": 20})
    wait_for(lambda: fleet.began(*jobs) >= 10, 5)
    assert excess(fleet.times(), 20) == 0
    worker.set_rates({"limited": 1 / 3600})
    wait_for(lambda: client.workers()[0].info["rates"] == {"limited": pytest.approx(1 / 3600)})
    worker.set_rates({})
    fleet.finish(jobs)


def test_a_worker_without_the_rate_takes_what_those_with_it_left(client: Client, fleet: Fleet):
    jobs = [limited() for _ in range(300)]
    client.enqueue(jobs)
    with ExitStack() as stack:
        fleet.stack, kept = stack, fleet.stack
        fleet.start("slow", rates={"limited": 1 / 3600})
        others = [new_job(b"note")]
        client.enqueue(others)
        fleet.finish(others)
    fleet.stack = kept
    fleet.start("free")
    fleet.finish(jobs)


def test_a_waiting_one_is_cancelled_at_once(client: Client, fleet: Fleet):
    jobs = [limited() for _ in range(5)]
    client.enqueue(jobs)
    fleet.start("w", rates={"limited": 1 / 3600})
    wait_for(lambda: fleet.began(*jobs) == 1)
    wait_for(lambda: all(waits(client, job) for job in jobs[1:]))
    client.cancel([jobs[3].id])
    assert client.job(jobs[3].id).state is State.CANCELLED


@pytest.mark.parametrize("terminate", [False, True])
def test_one_that_a_worker_holds_back_for_its_turn_is_cancelled_at_once(
    client: Client, fleet: Fleet, monkeypatch: pytest.MonkeyPatch, terminate: bool
):
    monkeypatch.setattr("pgcelery.engine.throttle._HORIZON_S", 3600.0)  # it holds all of them
    jobs = [limited() for _ in range(4)]
    worker = fleet.start("w", rates={"limited": 1 / 600})
    client.enqueue(jobs)
    wait_for(lambda: {client.job(job.id).state for job in jobs[1:]} == {State.RUNNING})
    wait_for(lambda: fleet.began(*jobs) == 1)
    assert client.cancel([jobs[2].id], terminate=terminate) == {jobs[2].id: State.RUNNING}
    assert client.wait([jobs[2].id], 10)
    assert fleet.handlers["w"].lost_jobs == [
        (jobs[2].id, Lost("cancelled", "cancelled before it began"))
    ]
    worker.set_rates({})
    fleet.finish(jobs)
    assert [id for _, _, id in fleet.starts] == [jobs[0].id, jobs[1].id, jobs[3].id]


def test_retries_and_what_was_due_later_pass_the_rate_too(client: Client, fleet: Fleet):
    def again(job: Job) -> Outcome:
        fleet.starts.append((time.monotonic(), "w", job.id))
        if len(fleet.starts) > 8:
            return Outcome(job.id, job.token, State.COMPLETED)
        return Outcome(job.id, job.token, State.RETRYABLE, delay_s=0.0)

    fleet.start("w", rates={"limited": 10}, bodies={"again": again})
    jobs = [limited(b"again"), limited(delay_s=0.05), limited(delay_s=0.05)]
    client.enqueue(jobs)
    fleet.finish(jobs)
    assert len(fleet.starts) >= 9
    assert excess(fleet.times(), 10) == 0


def test_freed_children_pass_the_rate_too(client: Client, fleet: Fleet):
    fleet.start("w", rates={"limited": 10})
    parent = new_job(b"note")
    children = [limited(parents=(parent.id,)) for _ in range(8)]
    client.enqueue([parent, *children])
    fleet.finish(children)
    assert excess([at for at, _, id in fleet.starts if id != parent.id], 10) == 0


def test_a_pool_process_does_not_go_on_with_what_has_a_rate(client: Client, tmp_path: Path):
    notes, pool = Notes(tmp_path), TellingPool()
    ids = ["a", "b", "c", "d"]
    chain = [job._replace(name="limited" if job.id == "c" else "test") for job in chain_of(ids)]
    with at_work(client, notes, pool, rates={"limited": 100}):
        client.enqueue(chain)
        assert client.wait(["d"], 10)
        wait_for(lambda: [one for one in pool.relayed() if one in ids] == ["a", "c", "d"])


def test_a_warm_stop_gives_back_what_is_held(client: Client, fleet: Fleet):
    jobs = [limited() for _ in range(4)]
    with ExitStack() as stack:
        fleet.stack, kept = stack, fleet.stack
        fleet.start("w", rates={"limited": 6})
        client.enqueue(jobs)
        wait_for(lambda: fleet.began(*jobs) >= 1)
    left = [job for job in jobs if not fleet.began(job)]
    assert left
    assert all(waits(client, job) for job in left)
    fleet.stack = kept
    fleet.start("next")
    fleet.finish(jobs)
    assert {job.delivery for job in fleet.handlers["next"].runs} == {1}


def test_nothing_is_lost_or_begun_twice_when_the_connection_breaks(client: Client, fleet: Fleet):
    jobs = [limited() for _ in range(8)]
    client.enqueue(jobs)
    fleet.start("w", rates={"limited": 5})
    wait_for(lambda: fleet.began(*jobs) >= 1)
    with psycopg.connect(client.config.dsn, autocommit=True) as conn:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    fleet.finish(jobs)
    assert len(fleet.starts) == len(jobs)
