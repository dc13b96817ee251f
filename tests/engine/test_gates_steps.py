"""Gates step by step: nodes of which nothing runs by itself, so each state can be looked at."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from pgcelery.engine import Client, Gate, NewJob, Outcome, State, placement
from pgcelery.engine.arrays import BigintArray
from tests.support.jobs import new_job
from tests.support.nodes import Claim, SimNode, call, connect
from tests.support.wait import wait_for

A, B = Gate("a", slots=1), Gate("b", slots=1)
RATE = Gate("r", rate=1000)


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    with closing(connect(dsn)) as conn:
        yield conn


@pytest.fixture
def node(client: Client, conn: psycopg.Connection[Any]) -> SimNode:
    return SimNode(client, conn, "n", ["q"])


def gated(*gates: Gate, **options: Any) -> NewJob:
    return new_job(gates=gates or (A,), **options)


def in_use(conn: psycopg.Connection[Any]) -> dict[str, int]:
    rows = conn.execute("select name, in_use from pgcelery.lines where in_use > 0").fetchall()
    return dict(rows)


def settled(node: SimNode, want: int = 10) -> list[Claim]:
    """Step until nothing comes any more."""
    claims: list[Claim] = []
    for _ in range(50):
        answer = node.step(want - len(claims))
        claims += answer.claims
        if answer.due_ms != 0:
            return claims
    raise AssertionError("it does not come to rest")


def ids(claims: list[Claim]) -> list[str]:
    return [claim.job_id for claim in claims]


# -- slots come back ------------------------------------------------------------------------------


def test_cancel_gives_slots_back_in_every_state(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    two = A._replace(slots=2)
    runs, lane, waits = gated(two), gated(two), gated(two)
    later = gated(two, delay_s=3600)
    client.enqueue([runs, lane, waits, later])
    (run,) = node.step(1).claims
    assert run.job_id == runs.id
    assert in_use(conn) == {"a": 2}
    over = [waits.id, later.id]
    assert client.cancel(over) == dict.fromkeys(over, State.CANCELLED)
    assert in_use(conn) == {"a": 2}
    assert client.cancel([lane.id]) == {lane.id: State.CANCELLED}
    assert in_use(conn) == {"a": 1}
    assert client.cancel([runs.id]) == {runs.id: State.RUNNING}
    node.finish(run, state=State.CANCELLED)
    assert in_use(conn) == {}


def test_a_cancel_lets_the_next_one_through(client: Client, node: SimNode):
    first, second = gated(), gated()
    client.enqueue([first, second])
    node.step(0)
    client.cancel([first.id])
    assert ids(settled(node)) == [second.id]


def test_purge_gives_slots_back_in_every_state(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    two = A._replace(slots=2)
    runs, elsewhere = gated(two), gated(two, queue="other")
    client.enqueue([runs])
    (run,) = node.step(1).claims
    client.enqueue([gated(two), gated(two), gated(two, delay_s=3600), elsewhere])
    node.step(0)
    assert client.purge(["q"]) == 3
    assert in_use(conn) == {"a": 1}
    other = SimNode(client, conn, "o", ["other"])
    assert ids(settled(other)) == [elsewhere.id]
    node.finish(run)
    other.finish(*other.runs.values())
    assert in_use(conn) == {}


def test_a_purge_while_a_step_is_open_leaks_nothing(
    dsn: str, client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    """What the step was about to let through is gone."""
    client.enqueue([gated() for _ in range(3)])
    with closing(connect(dsn)) as second, second.transaction():
        second.execute("select pgcelery.purge_v1(null)")
        done = threading.Event()

        def step() -> None:
            node.step(0)
            done.set()

        thread = threading.Thread(target=step)
        thread.start()
        wait_for(lambda: done.is_set() or _blocked(second, conn))
    thread.join(10)
    assert in_use(conn) == {}


def test_two_steps_at_once_let_no_more_through(
    dsn: str, client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    """The second looks at a line when the first has done with it."""
    client.enqueue([gated()])
    node.finish(*settled(node))
    client.enqueue([gated(priority=5)])
    with closing(connect(dsn)) as second:
        other = SimNode(client, second, "o", ["q"])
        with second.transaction():
            assert len(other.step(1).claims) == 1
            client.enqueue([gated()])
            thread = threading.Thread(target=lambda: node.step(1))
            thread.start()
            wait_for(lambda: _blocked(second, conn))
        thread.join(10)
    assert in_use(conn) == {"a": 1}
    assert settled(node) == []


def test_whoever_waits_behind_one_that_is_just_cancelled_is_let_through(
    dsn: str, client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    """The cancel locks no line where there is none yet."""
    first, next_one = gated(), gated()
    client.enqueue([first, next_one])
    with closing(connect(dsn)) as second:
        with second.transaction():
            second.execute(
                "select pgcelery.cancel_v1(%s, array[null::bytea], false, 15::smallint)",
                [[first.id]],
            )
            thread = threading.Thread(target=lambda: node.step(0))
            thread.start()
            with closing(connect(dsn)) as look:
                wait_for(lambda: _blocked(look, conn))
        thread.join(10)
    assert ids(settled(node)) == [next_one.id]


def test_a_run_that_is_just_taken_away_gives_its_slot_back_once(
    dsn: str, client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    client.enqueue([gated(A._replace(slots=3)) for _ in range(3)])
    lost, ended, kept = settled(node)
    outcomes = [Outcome(run.job_id, run.token, State.COMPLETED) for run in (lost, ended)]
    late: list[str] = []
    with closing(connect(dsn)) as second:
        with second.transaction():
            known = BigintArray.of([ended.token, kept.token])
            call(second, "reclaim", [node.id, known])
            thread = threading.Thread(target=lambda: late.extend(node.step(0, outcomes).late))
            thread.start()
            with closing(connect(dsn)) as look:
                wait_for(lambda: _blocked(look, conn))
        thread.join(10)
    assert late == [lost.job_id]
    assert ids(settled(node)) == [lost.job_id]
    assert in_use(conn) == {"a": 2}


def test_a_line_that_lets_more_through_than_one_step_looks_at_is_looked_at_again(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    client.enqueue([gated(A._replace(slots=None)) for _ in range(1001)])
    node.step(0)
    assert in_use(conn) == {"a": 1000}
    node.step(0)
    assert in_use(conn) == {"a": 1001}


def test_a_newcomer_in_a_full_line_waits_for_whoever_gives_a_slot_back(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    first, second, third = gated(), gated(), gated(A._replace(slots=2))
    client.enqueue([first])
    (run,) = settled(node)
    client.enqueue([second])
    assert settled(node) == []
    assert conn.execute("select count(*) from pgcelery.comers").fetchone() == (0,)
    client.enqueue([third])
    (next_run,) = settled(node)
    assert next_run.job_id == second.id, "the newest says how many places there are"
    answer = node.finish(run, want=10)
    assert ids([*answer.claims, *settled(node)]) == [third.id]


@pytest.mark.parametrize("let_through", [False, True])
@pytest.mark.parametrize(
    "gates", [(A,), (A, B), (A, RATE), (RATE,)], ids=["slot", "slots", "both", "rate"]
)
def test_whoever_waits_behind_one_that_is_just_purged_is_let_through(
    dsn: str,
    client: Client,
    conn: psycopg.Connection[Any],
    gates: tuple[Gate, ...],
    let_through: bool,
):
    """Also if a step picks the purged one for the free slot before that is committed."""
    both, claims = SimNode(client, conn, "both", ["other", "q"]), []
    client.enqueue([gated(*gates)])
    if let_through:
        both.step(0)
    next_one = gated(*gates, queue="other")
    client.enqueue([next_one])
    with closing(connect(dsn)) as second:
        with second.transaction():
            purge = (
                "select pgcelery.purge_v2(array(select id from pgcelery.queues where name = 'q'))"
            )
            assert second.execute(purge).fetchone() == (1,)
            thread = threading.Thread(target=lambda: claims.extend(both.step(1).claims))
            thread.start()
            with closing(connect(dsn)) as look:
                wait_for(lambda: not thread.is_alive() or _blocked(look, conn))
        thread.join(10)
    assert ids([*claims, *settled(both)]) == [next_one.id]


def _blocked(by: psycopg.Connection[Any], whom: psycopg.Connection[Any]) -> bool:
    row = by.execute(
        "select cardinality(pg_blocking_pids(%s)) > 0", [whom.info.backend_pid]
    ).fetchone()
    return bool(row and row[0])


def test_a_job_that_is_forgotten_while_it_runs_still_gives_back(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    job = gated()
    client.enqueue([job])
    (run,) = settled(node)
    assert client.put_result(job.id, State.COMPLETED, b"by hand")
    client.forget([job.id])
    node.finish(run)
    assert in_use(conn) == {}


def test_what_was_claimed_in_a_lost_answer_goes_back(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    job = gated()
    client.enqueue([job])
    (first,) = settled(node)
    node.runs.clear()
    node.reclaim()
    (again,) = settled(node)
    assert (again.job_id, again.delivery) == (job.id, 1)
    assert again.token > first.token
    assert in_use(conn) == {"a": 1}
    assert node.step(0, [Outcome(job.id, first.token, State.COMPLETED)]).late == [job.id]
    assert in_use(conn) == {"a": 1}


# -- several gates --------------------------------------------------------------------------------


def test_several_gates_are_passed_all_or_none(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    """A job that waits at B holds no slot of A."""
    only_b, both, only_a = gated(B), gated(A, B), gated(A)
    client.enqueue([only_b])
    (run,) = settled(node)
    client.enqueue([both, only_a])
    assert ids(settled(node)) == [only_a.id]
    assert in_use(conn) == {"a": 1, "b": 1}
    (holds_a,) = [one for one in node.runs.values() if one.job_id == only_a.id]
    node.finish(run)
    assert in_use(conn) == {"a": 1}, "it goes on waiting, now for A"
    assert settled(node) == []
    answer = node.finish(holds_a, want=5)
    claims = [*answer.claims, *settled(node)]
    assert ids(claims) == [both.id]
    assert in_use(conn) == {"a": 1, "b": 1}


def test_a_line_that_somebody_has_is_tried_again(
    dsn: str, client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    client.enqueue([gated(B)])
    (run,) = settled(node)
    node.finish(run)
    job = gated(A, B)
    client.enqueue([job])
    conn.execute("delete from pgcelery.comers where name = 'b'")
    with closing(connect(dsn)) as second, second.transaction():
        second.execute("select from pgcelery.lines where name = 'b' for update")
        answer = node.step(5)
        assert (answer.claims, answer.due_ms) == ([], 0)
    assert ids(settled(node)) == [job.id]


def test_a_job_with_several_gates_is_never_taken_for_a_plain_one(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    """Not even when a slot comes free before anybody has read that it came."""
    client.enqueue([gated(B), gated(A)])
    runs = settled(node)
    client.enqueue([gated(A, B)])
    conn.execute("delete from pgcelery.comers")
    (holds_a,) = [one for one in runs if one.job_id != runs[0].job_id] or runs[1:]
    node.finish(holds_a, want=5)
    assert in_use(conn).get("b") == 1


def test_the_second_gate_may_be_the_one_that_cancels(client: Client, node: SimNode):
    strict = Gate("s", slots=1, strategy=1)
    first, second = gated(A._replace(slots=5), strict), gated(A._replace(slots=5), strict)
    client.enqueue([first])
    assert ids(settled(node)) == [first.id]
    client.enqueue([second])
    (claim,) = settled(node)
    assert claim.job_id == second.id
    assert claim.flags & 2048


def test_one_that_comes_late_to_a_gate_that_cancels_is_cancelled(client: Client, node: SimNode):
    """It waited elsewhere first."""
    wide, strict = A._replace(slots=2), Gate("s", slots=1, strategy=1)
    holds_a, first, second = gated(wide), gated(wide, strict), gated(wide, strict)
    client.enqueue([holds_a, first])
    runs = settled(node)
    assert len(runs) == 2
    client.enqueue([second])
    assert settled(node) == []
    answer = node.finish(next(run for run in runs if run.job_id == holds_a.id), want=2)
    (claim,) = [*answer.claims, *settled(node)]
    assert claim.job_id == second.id
    assert claim.flags & 2048


def test_a_line_may_change_from_slots_to_a_rate_and_back(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    """Each job gives back what it took."""
    rate = Gate("a", rate=100, period_s=0.01, burst=100)
    for gate in (A._replace(slots=5), rate, A._replace(slots=5), rate):
        client.enqueue([gated(gate)])
        settled(node)
    assert len(node.runs) == 4
    node.finish(*node.runs.values())
    assert in_use(conn) == {}


# -- rates ----------------------------------------------------------------------------------------

HOURLY = Gate("r", rate=1, period_s=3600, burst=3)


def test_a_burst_starts_at_once_and_then_one_after_the_other(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    jobs = [gated(HOURLY) for _ in range(5)]
    client.enqueue(jobs)
    assert ids(settled(node)) == [job.id for job in jobs[:3]]
    answer = node.step(5)
    assert answer.claims == []
    assert answer.due_ms == pytest.approx(3_600_000, rel=0.01)
    assert in_use(conn) == {}


def test_nothing_starts_before_a_worker_has_room(client: Client, node: SimNode):
    client.enqueue([gated(HOURLY) for _ in range(5)])
    for _ in range(3):
        assert node.step(0).claims == []
    assert len(node.step(1).claims) == 1
    assert len(node.step(1).claims) == 1
    assert len(settled(node)) == 1, "what was not started was not counted"


def test_units_count(client: Client, node: SimNode):
    big, small = gated(HOURLY._replace(units=2)), gated(HOURLY)
    client.enqueue([big, small, gated(HOURLY)])
    assert ids(settled(node)) == [big.id, small.id]


def test_more_units_than_the_burst_pass_when_all_of_it_is_there(client: Client, node: SimNode):
    client.enqueue([gated(HOURLY._replace(units=9)), gated(HOURLY)])
    assert len(settled(node)) == 1


def test_a_fixed_window_may_be_used_up_at_once(client: Client, node: SimNode):
    window = Gate("w", rate=4, period_s=0.3, fixed=True)
    client.enqueue([gated(window) for _ in range(10)])
    assert len(settled(node)) == 4
    wait_for(lambda: settled(node))
    assert len(node.runs) == 8


def test_two_queues_share_a_rate(client: Client, node: SimNode, conn: psycopg.Connection[Any]):
    other = SimNode(client, conn, "o", ["other"])
    fast = Gate("r", rate=1, period_s=0.05, burst=1)
    client.enqueue([gated(fast), gated(fast, queue="other"), gated(fast)])
    found: list[str] = []

    def go_on() -> bool:
        for one, name in ((node, "q"), (other, "other")):
            found.extend(name for _ in settled(one, 1))
        return len(found) == 3

    wait_for(go_on)
    assert sorted(found) == ["other", "q", "q"]


def test_a_rate_and_slots_are_passed_together(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    jobs = [gated(A, HOURLY) for _ in range(4)]
    client.enqueue(jobs)
    started = []
    for _ in range(3):
        (claim,) = settled(node)
        started.append(claim.job_id)
        assert in_use(conn) == {"a": 1}
        node.finish(claim)
    assert started == [job.id for job in jobs[:3]]
    assert settled(node) == []
    assert in_use(conn) == {}


def test_a_rate_can_be_changed_at_run_time(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    client.enqueue([gated(HOURLY._replace(burst=1)) for _ in range(3)])
    assert len(settled(node)) == 1
    conn.execute("select pgcelery.set_limit_v1('r', '', null, null, 1000, 1, 1000)")
    assert len(settled(node)) == 2, "what was taken is owed as units, not as an hour"


def test_a_job_of_a_place_that_nobody_serves_goes_to_others_in_time(client: Client, node: SimNode):
    soft = placement.encode({}, [("zone", "eu", 1)])
    job = gated(HOURLY, placement=soft)
    client.enqueue([job])
    place = client.intern_places([("q", soft)])["q", soft]
    node.territory.late[place] = 0.1
    node.step(0)
    wait_for(lambda: ids(settled(node)) == [job.id], 5)


# -- upkeep, replay -------------------------------------------------------------------------------


def test_idle_lines_are_forgotten_and_come_back(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    client.enqueue([gated(A, Gate("r", rate=1000, period_s=0.01))])
    (run,) = settled(node)
    node.finish(run)
    node.maintain()
    wait_for(lambda: not _upkeep(node, conn))
    job = gated(A, B)
    client.enqueue([job])
    assert ids(settled(node)) == [job.id]
    assert in_use(conn) == {"a": 1, "b": 1}


def _upkeep(node: SimNode, conn: psycopg.Connection[Any]) -> list[tuple]:
    node.maintain()
    return conn.execute("select name from pgcelery.lines").fetchall()


def test_a_job_that_is_replayed_passes_its_gates_again(
    client: Client, node: SimNode, conn: psycopg.Connection[Any]
):
    job = gated(A, workflow="w", leads=True)
    client.enqueue([job])
    (run,) = settled(node)
    node.finish(run, state=State.FAILED)
    client.enqueue([gated(A)])
    (other,) = settled(node)
    row = conn.execute(
        "select refused from pgcelery.replay_v1('w', %s, '{0}', '{0}', '{false}', '{null}', '{}',"
        " '{}', '{}', '{}', '{}')",
        [[job.id]],
    ).fetchone()
    assert row == (None,)
    assert settled(node) == []
    answer = node.finish(other, want=2)
    assert ids([*answer.claims, *settled(node)]) == [job.id]
    assert in_use(conn) == {"a": 1}
