"""Gates against a model: whatever is done in whatever order, the counts hold and nothing is lost.

The rules call the statements of clients and nodes on real connections; the model knows who sent
what and who runs what. Rates are real ones with periods of some milliseconds, because they are
counted by the database's clock, which cannot be set: what is checked of them are the times at which
runs started.

GATES_EXAMPLES says how many sequences of rules are tried.
"""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pgcelery.engine import Client, EngineConfig, Gate, NewJob, Outcome, State
from tests.support.database import delete_rows
from tests.support.nodes import Claim, SimNode, connect

pytestmark = pytest.mark.slow

ROOM = 4  #: runs that a node has room for
PERIOD_S = 0.04
RATE = Gate("rate", rate=2, period_s=PERIOD_S, burst=2)
FIXED = Gate("fixed", rate=3, period_s=PERIOD_S, fixed=True)
SLOTS = ("a", "b", "c")  #: lines that count slots, with what the newest job says
PLAIN = ("d", "e")  #: lines of jobs that have no other gate
RIVALS = {"newest": 1, "progress": 2, "waiting": 3}  #: and with a strategy
Apply = Callable[[], None]


@st.composite
def gates(draw: st.DrawFn) -> tuple[Gate, ...]:
    if draw(st.booleans()):
        return (Gate(draw(st.sampled_from(PLAIN)), slots=draw(st.sampled_from([1, 2]))),)
    names = draw(st.lists(st.sampled_from(SLOTS), min_size=1, max_size=3, unique=True))
    found = [Gate(name, slots=draw(st.sampled_from([1, 1, 2, 3, None]))) for name in names]
    extra = draw(st.sampled_from(["", "", "", "rate", "fixed", "both", *RIVALS]))
    if extra in RIVALS:
        found.append(Gate(extra, slots=1, strategy=RIVALS[extra]))
    if extra in ("rate", "both"):
        found.append(RATE._replace(units=draw(st.sampled_from([1, 1, 2, 3]))))
    if extra in ("fixed", "both"):
        found.append(FIXED._replace(units=draw(st.sampled_from([1, 1, 2]))))
    if draw(st.booleans()):
        found.reverse()
    keep = draw(st.sampled_from([1, 1, 2, 4]))
    return tuple(found[:keep])


@st.composite
def new_jobs(draw: st.DrawFn) -> list[dict[str, Any]]:
    one = st.fixed_dictionaries(
        {
            "gates": st.one_of(gates(), gates(), st.just(())),
            "queue": st.sampled_from(["q", "p"]),
            "priority": st.sampled_from([0, 0, 3]),
            "delay_s": st.sampled_from([None, None, None, 0.005]),
            "max_deliveries": st.sampled_from([1, 3]),
        }
    )
    return draw(st.lists(one, min_size=1, max_size=4))


class GatesMachine(RuleBasedStateMachine):
    dsn = ""
    tables: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        delete_rows(self.dsn, list(self.tables))
        self.stack = ExitStack()
        self.client = self.stack.enter_context(closing(Client(EngineConfig(dsn=self.dsn))))
        self.one, self.two, self.look = (
            self.stack.enter_context(connect(self.dsn)) for _ in range(3)
        )
        self.nodes = [
            SimNode(self.client, self.one, f"n{number}", queues)
            for number, queues in enumerate((["q", "p"], ["q"], ["p"]))
        ]
        self.jobs: dict[str, NewJob] = {}
        self.live: set[str] = set()  # sent, and not at its end
        self.in_use: Counter[str] = Counter()
        self.slots: dict[str, set[float]] = {}  # those in force since the last look
        self.set: dict[str, int] = {}  # limits set at run time
        self.starts: dict[str, list[tuple[datetime, int]]] = {"rate": [], "fixed": []}
        self.numbers = itertools.count()

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            self.stack.close()

    # -- what can be done, on a connection, with what it means once it is committed ---------------

    def _enqueue(self, conn: psycopg.Connection[Any], what: list[dict[str, Any]]) -> Apply:
        jobs = [NewJob(f"j{next(self.numbers)}", name="t", payload=b"", **one) for one in what]
        assert self.client.enqueue(jobs, conn=conn) == {}

        def apply() -> None:
            self.jobs.update({job.id: job for job in jobs})
            self.live.update(job.id for job in jobs)

        return apply

    def _step(
        self, conn: psycopg.Connection[Any], number: int, want: int, ending: list[int]
    ) -> Apply:
        node = self.nodes[number]
        running = [run for run in node.runs.values() if not run.struck]
        ended = [run for run in node.runs.values() if run.struck]
        ended += [running[pick] for pick in sorted(set(ending)) if pick < len(running)]
        want = max(0, min(want, ROOM - len(node.runs) + len(ended)))
        answer = node.step(
            want, [Outcome(run.job_id, run.token, State.COMPLETED) for run in ended], conn
        )
        assert len([c for c in answer.claims if c.flags & (2048 | 4096) == 0]) <= want
        self._note_slots(conn)

        def apply() -> None:
            assert answer.late == []
            self.live.difference_update(run.job_id for run in ended)
            self._note_starts(answer.claims)

        return apply

    def _note_starts(self, claims: list[Claim]) -> None:
        rows = self.look.execute(
            "select job_id, started_at from pgcelery.running where token = any (%s)",
            [[claim.token for claim in claims]],
        ).fetchall()
        for job_id, started_at in rows:
            for gate in self.jobs[job_id].gates:
                if gate.rate is not None:
                    self.starts[gate.name].append((started_at, gate.units))

    def _note_slots(self, conn: psycopg.Connection[Any]) -> None:
        for name, slots in conn.execute("select name, slots from pgcelery.lines").fetchall():
            self.slots.setdefault(name, set()).add(math.inf if slots is None else slots)

    def _cancel(self, conn: psycopg.Connection[Any], ids: list[str]) -> Apply:
        rows = conn.execute(
            "select job_id, state from pgcelery.cancel_v1(%s, array_fill(null::bytea, %s), false,"
            " 15::smallint)",
            [ids, [len(ids)]],
        ).fetchall()

        def apply() -> None:
            self.live.difference_update(one for one, state in rows if state == 12)

        return apply

    def _purge(self, conn: psycopg.Connection[Any], queue: str) -> Apply:
        before = set(self.live)
        conn.execute(
            "select pgcelery.purge_v1(array(select id from pgcelery.queues where name = %s))",
            [queue],
        )
        left = conn.execute("select id from pgcelery.jobs").fetchall()

        def apply() -> None:
            gone = before - {row[0] for row in left}
            assert all(self.jobs[one].queue == queue for one in gone)
            self.live -= gone

        return apply

    def _limit(self, conn: psycopg.Connection[Any], name: str, slots: int | None) -> Apply:
        conn.execute(
            "select pgcelery.set_limit_v1(%s, null, %s, null, null, null, null)", [name, slots]
        )

        def apply() -> None:
            self.set.pop(name, None)
            if slots is not None:
                self.set[name] = slots

        return apply

    def _do(self, conn: psycopg.Connection[Any], op: tuple[Any, ...]) -> Apply:
        return getattr(self, f"_{op[0]}")(conn, *op[1:])

    def _waiting_ids(self, picks: list[int]) -> list[str]:
        live = sorted(self.live)
        return sorted({live[pick % len(live)] for pick in picks})

    # -- rules ------------------------------------------------------------------------------------

    @rule(what=new_jobs())
    def enqueue(self, what: list[dict[str, Any]]) -> None:
        self._enqueue(self.one, what)()

    @rule(
        many=st.integers(2, 6),
        units=st.sampled_from([1, 1, 2]),
        gate=st.sampled_from([RATE, FIXED]),
        slots=st.sampled_from([(), (), (Gate("a", slots=3),)]),
    )
    def enqueue_rated(self, many: int, units: int, gate: Gate, slots: tuple[Gate, ...]) -> None:
        one = {"queue": "q", "gates": (*slots, gate._replace(units=units))}
        self._enqueue(self.one, [one] * many)()

    @rule(
        number=st.integers(0, 2),
        want=st.integers(0, ROOM),
        ending=st.lists(st.integers(0, ROOM), max_size=3),
    )
    def step(self, number: int, want: int, ending: list[int]) -> None:
        self._step(self.one, number, want, ending)()

    @rule(number=st.integers(0, 2), pick=st.integers(0, ROOM), back=st.booleans())
    def again(self, number: int, pick: int, back: bool) -> None:
        node = self.nodes[number]
        running = [run for run in node.runs.values() if not run.struck]
        if pick < len(running):
            run = running[pick]
            state = State.AVAILABLE if back else State.RETRYABLE
            delay = None if back else (0.004 if pick else 0)
            assert node.again([Outcome(run.job_id, run.token, state, delay_s=delay)]) == []

    @precondition(lambda self: self.live)
    @rule(picks=st.lists(st.integers(0, 50), min_size=1, max_size=3))
    def cancel(self, picks: list[int]) -> None:
        self._cancel(self.one, self._waiting_ids(picks))()

    @rule(queue=st.sampled_from(["q", "p"]))
    def purge(self, queue: str) -> None:
        self._purge(self.one, queue)()

    @rule(name=st.sampled_from(SLOTS + PLAIN), slots=st.sampled_from([None, 1, 2, 4]))
    def limit(self, name: str, slots: int | None) -> None:
        self._limit(self.one, name, slots)()

    @rule(number=st.integers(0, 2))
    def crash(self, number: int) -> None:
        """A node is gone; another one finds that out."""
        dead, other = self.nodes[number], self.nodes[(number + 1) % 3]
        held = [run.job_id for run in dead.runs.values()]
        self.one.execute(
            "update pgcelery.workers set lease_until = now() - interval '1 second' where id = %s",
            [dead.id],
        )
        self.one.execute("delete from pgcelery.leases")
        ending = other.maintain()
        for claim in ending:
            assert claim.job_id in held
        answer = other.finish(*ending, state=State.FAILED)
        assert answer.late == []
        self.live.difference_update(claim.job_id for claim in ending)
        dead.register()

    @rule(number=st.integers(0, 2), keep=st.integers(0, 2))
    def reclaim(self, number: int, keep: int) -> None:
        """The answer to a claim got lost: the node knows of some of its runs only."""
        node = self.nodes[number]
        node.runs = dict(list(node.runs.items())[:keep])
        node.reclaim()

    @rule(number=st.integers(0, 2))
    def beat(self, number: int) -> None:
        self.nodes[number].beat()

    @rule()
    def upkeep(self) -> None:
        self.one.execute("delete from pgcelery.leases")
        assert self.nodes[0].maintain() == []

    @rule(data=st.data(), first=st.booleans(), between=st.one_of(st.just([]), new_jobs()))
    def two_at_once(self, data: st.DataObject, first: bool, between: list[dict[str, Any]]) -> None:
        """Two transactions are open at the same time; either may commit first."""
        ops = [data.draw(self._op(number)) for number in (0, 1)]
        with self.one.transaction():
            before = self._do(self.one, ops[0])
            if between:  # not delayed: that may wait for the first
                self._enqueue(self.look, [one | {"delay_s": None} for one in between])()
            applied: list[Apply] = []
            done, go_on = threading.Event(), threading.Event()

            errors: list[Exception] = []

            def other() -> None:
                try:
                    with self.two.transaction():
                        applied.append(self._do(self.two, ops[1]))
                        if not first:
                            done.set()
                        go_on.wait(10)
                except Exception as exc:
                    errors.append(exc)
                done.set()

            thread = threading.Thread(target=other)
            if first:
                go_on.set()
            thread.start()
            self._until_blocked_or(done)
        go_on.set()
        thread.join(10)
        if errors:
            raise errors[0]
        before()
        applied[0]()

    def _op(self, number: int) -> st.SearchStrategy[tuple[Any, ...]]:
        # Each has a node of its own, so that neither ends the other's runs.
        found: list[st.SearchStrategy[tuple[Any, ...]]] = [
            st.tuples(st.just("enqueue"), new_jobs()),
            st.tuples(
                st.just("step"),
                st.just(number),
                st.integers(0, ROOM),
                st.lists(st.integers(0, ROOM), max_size=3),
            ),
            st.tuples(
                st.just("limit"), st.sampled_from(SLOTS + PLAIN), st.sampled_from([None, 1, 3])
            ),
        ]
        if self.live:
            picks = st.lists(st.integers(0, 50), min_size=1, max_size=2)
            found.append(st.tuples(st.just("cancel"), picks.map(self._waiting_ids)))
        return st.one_of(found)

    def _until_blocked_or(self, done: threading.Event) -> None:
        pid = self.two.info.backend_pid
        while not done.wait(0.001):
            row = self.look.execute(
                "select cardinality(pg_blocking_pids(%s)) > 0", [pid]
            ).fetchone()
            if row and row[0]:
                return

    # -- what holds -------------------------------------------------------------------------------

    def _places(self) -> Counter[str]:
        rows = self.look.execute(
            "select job_id from pgcelery.gated union all select job_id from pgcelery.ready"
            " union all select job_id from pgcelery.running"
            " union all select job_id from pgcelery.scheduled"
        ).fetchall()
        return Counter(row[0] for row in rows)

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        assert self._places() == Counter(dict.fromkeys(self.live, 1))

    @invariant()
    def the_nodes_run_what_is_running(self) -> None:
        rows = self.look.execute("select token from pgcelery.running").fetchall()
        known = {token for node in self.nodes for token in node.runs}
        assert {row[0] for row in rows} == known

    @invariant()
    def lines_count_who_holds_them(self) -> None:
        held: Counter[str] = Counter()
        rows = self.look.execute(
            "select job_id from pgcelery.running where flags & 2 = 2 union all"
            " select job_id from pgcelery.ready where queue_id < 0 and flags & 2 = 2"
        ).fetchall()
        for (job_id,) in rows:
            held.update(gate.name for gate in self.jobs[job_id].gates if gate.rate is None)
        lines = self.look.execute("select name, in_use, slots, rate from pgcelery.lines").fetchall()
        counted = Counter({name: in_use for name, in_use, _, _ in lines})
        assert +counted == +held
        self._note_slots(self.look)
        for name, in_use, _, _ in lines:
            if in_use > self.in_use[name]:
                assert in_use <= max(self.slots[name]), f"{name}: {in_use} of {self.slots[name]}"
        self.in_use = counted
        self.slots = {}
        self._note_slots(self.look)

    @invariant()
    def rates_are_kept(self) -> None:
        starts = sorted(self.starts["rate"])
        for place, (begin, _) in enumerate(starts):
            units = 0
            for end, cost in starts[place:]:
                units += cost
                # What is worth more than the burst passes when all of that is there.
                most = (end - begin).total_seconds() * 2 / PERIOD_S + 3 + 1e-3
                assert units <= most, (begin, end, units)
        window: datetime | None = None
        used = 0
        for at, cost in sorted(self.starts["fixed"]):
            if window is None or at >= window + timedelta(seconds=PERIOD_S):
                window, used = at, 0
            used += cost
            assert used <= 3, (window, at, used)

    # -- the end ----------------------------------------------------------------------------------

    @rule()
    def nobody_waits_for_nothing(self) -> None:
        """When all who have room have asked, whoever still waits waits at a gate that is shut."""
        quiet = 0
        for _ in range(300):
            answers = []
            for node in self.nodes:
                struck = [run for run in node.runs.values() if run.struck]
                answer = node.finish(*struck, want=ROOM - len(node.runs) + len(struck))
                self.live.difference_update(run.job_id for run in struck)
                self._note_starts(answer.claims)
                self.lines_count_who_holds_them()
                answers.append(answer)
            left = self.look.execute("select count(*) from pgcelery.comers").fetchone()
            quiet = quiet + 1 if left == (0,) and not any(one.claims for one in answers) else 0
            if quiet == 2:
                break
        else:
            raise AssertionError("it does not come to rest")
        self._check_rest()

    def _check_rest(self) -> None:
        room = {q: any(len(n.runs) < ROOM for n in self.nodes if q in n.queues) for q in ("q", "p")}
        lines = {
            row[0]: row[1:]
            for row in self.look.execute(
                "select l.name, l.in_use, l.slots, l.rate,"
                " (select min(t.due_at) from pgcelery.timers t where t.name = l.name)"
                " from pgcelery.lines l"
            ).fetchall()
        }
        rows = self.look.execute("select job_id, name from pgcelery.gated").fetchall()
        for job_id, name in rows:
            in_use, slots, rate, due = lines[name]
            if rate is None:
                assert slots is not None, f"{job_id} waits at {name}, which has no end"
                assert in_use >= slots, f"{job_id} waits at {name}, {in_use} of {slots}"
            else:
                assert due is not None, f"{job_id} waits at {name} and nobody will look"
            assert all(gate.name != name or name in lines for gate in self.jobs[job_id].gates)
        for queue, has in room.items():
            if has:
                ready = self.look.execute(
                    "select count(*) from pgcelery.ready r join pgcelery.queues q"
                    " on q.id = abs(r.queue_id) where q.name = %s",
                    [queue],
                ).fetchone()
                assert ready == (0,)

    def drain(self) -> None:
        """Everything ends, and nothing is held any more."""
        pause = threading.Event()
        for turn in range(3000):
            for number in range(3):
                self._step(self.one, number, ROOM, list(range(ROOM)))()
            if not self.live:
                break
            if turn > 20:
                pause.wait(0.002)
        assert not self.live, f"{sorted(self.live)} never ended"
        self.every_job_is_in_one_place()
        self.lines_count_who_holds_them()
        self.rates_are_kept()


@pytest.fixture(scope="module")
def emptied(_migrated: tuple[str, list[str]]) -> tuple[str, tuple[str, ...]]:
    dsn, tables = _migrated
    delete_rows(dsn, tables)
    return dsn, tuple(tables)


@pytest.mark.timeout(900)
def test_gates_agree_with_the_model(emptied: tuple[str, tuple[str, ...]]) -> None:
    GatesMachine.dsn, GatesMachine.tables = emptied
    run_state_machine_as_test(
        GatesMachine,
        settings=settings(
            max_examples=int(os.environ.get("GATES_EXAMPLES", "25")),
            stateful_step_count=int(os.environ.get("GATES_STEPS", "40")),
            deadline=None,
            derandomize=bool(os.environ.get("CI")),  # new ones are for `make model` at home
            phases=[Phase.generate] if os.environ.get("GATES_NO_SHRINK") else list(Phase),
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )
