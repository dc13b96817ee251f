"""Rules: what clients, nodes, pool processes and operators do, in any order, and what must hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pgcelery.engine import State
from tests.engine.model.database import Engine, Session, territory
from tests.engine.model.model import Model
from tests.engine.model.ops import (
    Again,
    Beat,
    Cancel,
    CancelWorkflow,
    End,
    Enqueue,
    Forget,
    Latch,
    Maintain,
    Op,
    Purge,
    Put,
    Reclaim,
    Register,
    Relay,
    Replay,
    Step,
    Unclaim,
    Worker,
)
from tests.engine.model.plans import DAY, UNIT_S, Claim, Ending, Plan
from tests.engine.model.sessions import Pair, differences, settle
from tests.support.clock import Clock

SERVES = (("q", "p"), ("q",), ("p", "q"))  #: queues of the three workers
ROOM = 4  #: runs that a worker has room for
_PICK = st.integers(0, 7)
_HOW = st.sampled_from(
    ["ok", "ok", "ok", "ok", "fail", "follow", "shared", "replace", "beside", "drop"]
)
_BACK = st.sampled_from(["retry", "later", "change", "release", "counted"])
_TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(["q", "p"]),
        "priority": st.sampled_from([0, 3]),
        "delay": st.sampled_from([1, 3]),
        "due": st.sampled_from([0, 2]),
        "expires": st.sampled_from([0, 1, 4]),
        "most": st.sampled_from([2, 3]),
        "ttl": st.sampled_from([2, None]),
        "lives": st.sampled_from([1, 3]),
    },
)
#: parents of each job, by place
_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "chain": ((), (0,), (1,)),
    "long chain": ((), (0,), (1,), (2,)),
    "chord": ((), (), (0, 1)),
    "chord and step": ((), (), (0, 1), (2,)),
    "fan": ((), (0,), (0,), (1, 2)),
}
INTENTS: dict[str, st.SearchStrategy[Any]] = {
    "enqueue": st.tuples(st.lists(_TRAITS, min_size=1, max_size=3)),
    "canvas": st.tuples(
        st.sampled_from(sorted(_SHAPES)), st.lists(_TRAITS, max_size=2), st.booleans()
    ),
    "repeat": st.tuples(_PICK, st.booleans(), st.booleans()),
    "twice": st.tuples(_PICK),
    "latch": st.tuples(st.integers(1, 2), st.booleans()),
    "widen": st.tuples(_PICK),
    "step": st.tuples(
        st.integers(0, 2), st.integers(0, ROOM), st.lists(st.tuples(_PICK, _HOW), max_size=3)
    ),
    "again": st.tuples(
        st.integers(0, 2), st.lists(st.tuples(_PICK, _BACK), min_size=1, max_size=2)
    ),
    "stale": st.tuples(_PICK, _PICK, st.sampled_from(["ok", "fail", "retry", "release", "same"])),
    "relay": st.tuples(st.integers(0, 2), _PICK, st.booleans()),
    "end": st.tuples(st.integers(0, 2), _PICK),
    "beat": st.tuples(st.integers(0, 2)),
    "maintain": st.tuples(st.integers(0, 2)),
    "reclaim": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    "cancel": st.tuples(st.lists(_PICK, min_size=1, max_size=2), st.booleans()),
    "cancel_unknown": st.tuples(st.booleans()),
    "cancel_workflow": st.tuples(_PICK),
    "replay": st.tuples(_PICK, st.booleans(), st.booleans()),
    "forget": st.tuples(st.lists(_PICK, min_size=1, max_size=2)),
    "purge": st.tuples(st.sampled_from(["q", "p"])),
    "put": st.tuples(_PICK, st.booleans()),
}  # fmt: skip
_MEETING = (
    "enqueue", "repeat", "twice", "step", "step", "step", "again", "stale", "relay", "relay", "end",
    "maintain", "maintain", "reclaim", "cancel", "cancel", "cancel_workflow",
    "replay", "forget", "purge",
)  # fmt: skip


class EngineMachine(RuleBasedStateMachine):
    """One engine, one model of it, three workers."""

    engine: ClassVar[Engine]
    steps: ClassVar[int] = 0  #: rules that were run, over all sequences
    counts: ClassVar[Any] = None

    def __init__(self) -> None:
        super().__init__()
        shared = _shared(self.engine)
        self.one, self.pair, self.clock = shared
        self.engine.empty(self.one.conn)
        self.model = Model()
        self.sound = False  # nothing has failed
        self.numbers = itertools.count()
        self.unknown: list[str] = []  # ids that were cancelled before they were sent
        self.links: set[tuple[str, str]] = set()  # every edge there has been
        self.plans: dict[str, Plan] = {}  # as sent first
        self.ends: dict[str, tuple[Any, ...]] = {}  # results that are final
        self.reopened: set[str] = set()  # whose results may go, by this rule
        self.workers = [
            Worker(f"w{n}", queues, territory(self.engine, f"w{n}", queues))
            for n, queues in enumerate(SERVES)
        ]
        for worker in self.workers:
            self._do(Register(worker))

    # -- doing ------------------------------------------------------------------------------------

    def _do(self, op: Op | None) -> Any:
        if op is None:
            return None
        self.sound = False
        answer = op.run(self.one)
        op.apply(self.model, answer, None)
        self._done(op, answer)
        return answer

    def _done(self, op: Op, answer: Any) -> None:
        op.done(answer)
        self.links |= self.model.edges
        for worker in self.workers:
            if not worker.known:
                self._do(Register(worker))

    def _intend(self, kind: str, intent: tuple[Any, ...]) -> Op | None:
        make: Callable[..., Op | None] = getattr(self, f"_{kind}")
        return make(*intent)

    def _id(self, letter: str = "j") -> str:
        return f"{letter}{next(self.numbers):03}"

    def _new(self, traits: dict[str, Any], **more: Any) -> Plan:
        id = self.unknown.pop() if self.unknown else self._id()
        plan = Plan(id, payload=f"of {id}")._replace(**traits)._replace(**more)
        self.plans[id] = plan
        return plan

    def _job(self, pick: int) -> str | None:
        """Pick one of the jobs there are, the newest first."""
        ids = sorted(self.model.jobs, reverse=True)
        return ids[pick % len(ids)] if ids else None

    def _run(self, worker: Worker, pick: int) -> Claim | None:
        runs = [worker.runs[token] for token in sorted(worker.runs)]
        return runs[pick] if pick < len(runs) else None

    # -- intents: clients -------------------------------------------------------------------------

    def _enqueue(self, traits: list[dict[str, Any]]) -> Op:
        return Enqueue([self._new(one) for one in traits])

    def _canvas(self, shape: str, traits: list[dict[str, Any]], workflow: bool) -> Op:
        root = self._id("f") if workflow else None
        plans: list[Plan] = []
        for place, parents in enumerate(_SHAPES[shape]):
            own = traits[place] if place < len(traits) else {}
            names = tuple(plans[parent].id for parent in parents)
            plans.append(
                self._new(own, parents=names, workflow=root, leads=workflow and place == 0)
            )
        return Enqueue(plans)

    def _repeat(self, pick: int, again: bool, other: bool) -> Op | None:
        """The same send once more, or the same id for something else."""
        id = self._job(pick)
        if id is None or id not in self.plans:
            return None
        plan = self.plans[id]._replace(again=again, parents=(), joins=())
        self.reopened.add(id)
        return Enqueue([plan._replace(payload=f"other {self._id('o')}") if other else plan])

    def _twice(self, pick: int) -> Op:
        plan = self._new({})
        return Enqueue([plan, plan._replace(payload="the second")])

    def _latch(self, many: int, whole: bool) -> Op:
        latch = self._id("l")
        workflow = self._id("f")
        members = [self._new({}, joins=(latch,), workflow=workflow) for _ in range(many)]
        return Latch(latch, members, self._new({}, parents=(latch,), workflow=workflow))

    def _widen(self, pick: int) -> Op | None:
        """One more job that something which waits is to wait for."""
        waiting = sorted(self.model.nodes)
        return Enqueue([self._new({}, joins=(waiting[pick % len(waiting)],))]) if waiting else None

    def _cancel(self, picks: list[int], terminate: bool) -> Op | None:
        ids = [id for id in map(self._job, picks) if id is not None]
        return Cancel(ids, terminate) if ids else None

    def _cancel_unknown(self, terminate: bool) -> Op:
        id = self._id()
        self.unknown.append(id)
        return Cancel([id], terminate)

    def _cancel_workflow(self, pick: int) -> Op | None:
        id = self._job(pick)
        return None if id is None else CancelWorkflow(id)

    def _replay(self, pick: int, whole: bool, restored: bool) -> Op | None:
        """A job that has ended and what came after it, or that job alone."""
        first = self._job(pick)
        if first is None:
            return None
        ids = [first]
        for id in ids:
            later = [child for parent, child in sorted(self.links) if parent == id and whole]
            ids += [id for id in later if id not in ids]
        edges = [edge for edge in sorted(self.links) if edge[0] in ids and edge[1] in ids]
        if whole and any(id not in self.model.jobs for id in ids):
            return None
        needs = sorted(
            {p for p, c in self.links if c in ids and p not in ids and p[:6] != "latch "}
        )
        self.reopened |= set(ids)
        waits = {id: sum(child == id for _, child in self.links) for id in ids}
        root = self.model.root(first)
        return Replay(root, waits, edges, ids if restored else [], needs)

    def _forget(self, picks: list[int]) -> Op | None:
        ids = [id for id in map(self._job, picks) if id is not None]
        self.reopened |= set(ids)
        return Forget(sorted(set(ids))) if ids else None

    def _purge(self, queue: str) -> Op:
        return Purge(queue)

    def _put(self, pick: int, final: bool) -> Op | None:
        id = self._job(pick)
        if id is None:
            return None
        # What is final is written by hand for ids of no job, or of one that has ended.
        ends = final and not self.model.lives(id)
        return Put(id, State.COMPLETED if ends else State.RUNNING, f"by hand {self._id('h')}")

    # -- intents: nodes ---------------------------------------------------------------------------

    def _ending(self, run: Claim, how: str) -> Ending:
        if run.doomed:
            ended = State.CANCELLED if run.flags & (8 | 16) else State.FAILED
            return Ending(run.id, run.token, ended, f"ended {run.token}")
        ok = Ending(run.id, run.token, State.COMPLETED, f"result {run.token}")
        if how == "fail":
            return ok._replace(state=State.FAILED, ttl=3)
        if how == "follow":
            return ok._replace(follow_ups=(self._new({}), self._new({"delay": 1})))
        if how == "shared":
            shared = f"s{len(self.model.jobs) // 4:03}"
            return ok._replace(follow_ups=(Plan(shared, payload="shared"),))
        if how == "replace":
            helper = self._new({}, workflow=self.model.root(run.id))
            body = Plan(run.id, payload=f"replaced {run.token}", parents=(helper.id,))
            plain = run.token % 2 == 0
            plans = (body._replace(parents=()),) if plain else (helper, body)
            return Ending(run.id, run.token, State.WAITING, follow_ups=plans)
        if how == "beside" and run.flags & 1:
            return ok._replace(follow_ups=(self._new({}, joins=(run.id,)),))
        if how == "drop":
            return ok._replace(drops=self._below(run.id))
        return ok

    def _below(self, id: str) -> tuple[str, ...]:
        """The steps of a chain that wait for a job."""
        found: list[str] = []
        while True:
            children = [c for p, c in self.model.edges if p == (found[-1] if found else id)]
            if len(children) != 1 or children[0] not in self.model.jobs:
                return tuple(found)
            if self.model.nodes.get(children[0], None) is None:
                return tuple(found)
            if self.model.nodes[children[0]].pending != 1:
                return tuple(found)
            found.append(children[0])

    def _step(self, number: int, want: int, ends: list[tuple[int, str]]) -> Op:
        worker = self.workers[number]
        endings: dict[int, Ending] = {}
        for pick, how in ends:
            run = self._run(worker, pick)
            if run is not None and run.token not in endings:
                endings[run.token] = self._ending(run, how)
        room = max(0, ROOM - len(worker.runs) + len(endings))
        return Step(worker, min(want, room), list(endings.values()))

    def _again(self, number: int, backs: list[tuple[int, str]]) -> Op | None:
        worker = self.workers[number]
        endings: dict[int, Ending] = {}
        for pick, how in backs:
            run = self._run(worker, pick)
            if run is not None and run.token not in endings and not run.flags & 32:
                endings[run.token] = self._going_back(run, how)
        return Again(worker, list(endings.values())) if endings else None

    def _going_back(self, run: Claim, how: str) -> Ending:
        retry = Ending(run.id, run.token, State.RETRYABLE)
        if how == "retry":
            return retry._replace(result="why", delay=0)
        if how == "later":
            return retry._replace(delay=2)
        if how == "change":
            new = f"retry {run.token}"
            queue = "p" if run.queue == "q" else "q"
            return retry._replace(payload=new, due=1, priority=1, queue=queue, expires=5)
        job = self.model.jobs.get(run.id)
        left = job is not None and run.delivery < job.plan.most  # else it would be ended
        return Ending(run.id, run.token, State.AVAILABLE, counted=how == "counted" and left)

    def _stale(self, number: int, pick: int, how: str) -> Op | None:
        """An outcome that was sent before, or another one of that run."""
        worker = self.workers[number % 3]
        sent = [one for any_of in self.workers for one in any_of.sent]
        # Best of a job that runs once more by now.
        others = [one for one in sent if self.model.runs_otherwise(one)]
        sent = others if others and number < 6 else worker.sent
        if not sent:
            return None
        old = sent[-1 - pick % len(sent)]
        if how != "same":
            state = {
                "ok": State.COMPLETED,
                "fail": State.FAILED,
                "retry": State.RETRYABLE,
                "release": State.AVAILABLE,
            }[how]
            old = Ending(old.id, old.token, state, "stale")
        back = old.state in (State.RETRYABLE, State.AVAILABLE)
        return Again(worker, [old]) if back else Step(worker, 0, [old])

    def _relay(self, number: int, pick: int, heard: bool) -> Op | None:
        worker = self.workers[number]
        run = self._run(worker, pick)
        if run is None or run.doomed:
            return None
        done = Ending(run.id, run.token, State.COMPLETED, f"relayed {run.token}")
        return Relay(worker, done, self.one.reserve(), heard)

    def _end(self, number: int, pick: int) -> Op | None:
        worker = self.workers[number]
        run = self._run(worker, pick)
        if run is None or run.doomed:
            return None
        return End(worker, Ending(run.id, run.token, State.COMPLETED, f"ended {run.token}"))

    def _beat(self, number: int) -> Op:
        return Beat(self.workers[number])

    def _maintain(self, number: int) -> Op:
        return Maintain(self.workers[number])

    def _reclaim(self, number: int, keep: int) -> Op:
        worker = self.workers[number]
        return Reclaim(worker, sorted(worker.runs)[:keep])

    # -- rules ------------------------------------------------------------------------------------

    @rule(intent=INTENTS["enqueue"])
    def enqueue(self, intent: Any) -> None:
        self._do(self._intend("enqueue", intent))

    @rule(intent=INTENTS["canvas"])
    def canvas(self, intent: Any) -> None:
        self._do(self._intend("canvas", intent))

    @rule(intent=INTENTS["step"])
    def step(self, intent: Any) -> None:
        self._do(self._intend("step", intent))

    @rule(intent=INTENTS["step"])
    def another_step(self, intent: Any) -> None:
        self._do(self._intend("step", intent))

    @rule(intent=INTENTS["again"])
    def again(self, intent: Any) -> None:
        self._do(self._intend("again", intent))

    @precondition(lambda self: any(worker.sent for worker in self.workers))
    @rule(intent=INTENTS["stale"])
    def stale(self, intent: Any) -> None:
        self._do(self._intend("stale", intent))

    @rule(number=st.integers(0, 2), want=st.integers(1, ROOM))
    def step_of_all(self, number: int, want: int) -> None:
        """A step that ends all that runs on a worker."""
        runs = list(enumerate(self.workers[number].runs))
        self._do(self._step(number, want, [(place, "ok") for place, _ in runs]))

    @rule(
        data=st.data(), kind=st.sampled_from(sorted(set(INTENTS) - {"enqueue", "canvas", "step"}))
    )
    def other(self, data: st.DataObject, kind: str) -> None:
        op = self._intend(kind, data.draw(INTENTS[kind]))
        answer = self._do(op)
        if isinstance(op, Relay) and answer is not None and not op.heard:
            # The node sends the outcome itself, and gives back what was claimed.
            self._do(Step(op.worker, 0, [op.ending]))
            self._do(Unclaim([op.spare]))

    @rule(units=st.sampled_from([1, 1, 2, 3, 5, 31, DAY + 1]), beats=st.booleans())
    def advance(self, units: int, beats: bool) -> None:
        """Time goes by; those who live renew their leases in it."""
        for _ in range(2 if beats and units > 3 else 1):
            part = units if not beats or units < 4 else units - units // 2
            self.clock.advance(self.one.conn, part * UNIT_S)
            self.model.now += part
        if beats and units < 4:
            for worker in self.workers[:2]:
                self._do(Beat(worker))

    @rule(number=st.integers(0, 2))
    def crash(self, number: int) -> None:
        """A worker is gone, and starts anew knowing nothing."""
        worker = self.workers[number]
        for run in worker.runs.values():
            worker.sent.append(Ending(run.id, run.token, State.COMPLETED, "too late"))
        worker.runs = {}
        self._do(Register(worker))

    @precondition(lambda self: any(worker.runs for worker in self.workers))
    @rule(number=st.integers(0, 2))
    def upkeep(self, number: int) -> None:
        """Leases run out, and somebody finds that."""
        self.advance(5, False)
        self._do(Beat(self.workers[number]))
        self._do(Maintain(self.workers[number]))

    @rule(
        data=st.data(),
        kinds=st.tuples(st.sampled_from(_MEETING), st.sampled_from(_MEETING)),
        kept=st.sampled_from([(True, True), (True, True), (True, False), (False, True)]),
        second_first=st.booleans(),
    )
    def two_at_once(
        self,
        data: st.DataObject,
        kinds: tuple[str, str],
        kept: tuple[bool, bool],
        second_first: bool,
    ) -> None:
        ops = [self._intend(kind, data.draw(INTENTS[kind])) for kind in kinds]
        if ops[0] is None or ops[1] is None:
            return
        self.sound = False
        done = self.pair.both((ops[0], ops[1]), kept, second_first)
        self.model = settle(self.model, done, lambda: self.one.dump(self.model.now))
        for one in done:
            self._done(one.op, one.answer)

    # -- what holds -------------------------------------------------------------------------------

    @invariant()
    def holds(self) -> None:
        type(self).steps += 1
        self.sound = False
        self._the_engine_is_as_the_model()
        self._what_has_ended_stays_so()
        self._a_job_is_in_one_place()
        self._nobody_waits_for_nothing()
        self._deliveries_are_bounded()
        self.sound = True

    def _the_engine_is_as_the_model(self) -> None:
        engine, model = self.one.dump(self.model.now), self.model.dump()
        assert engine == model, differences(engine, model)

    def _what_has_ended_stays_so(self) -> None:
        now = {id: tuple(r) for id, r in self.model.results.items() if r.final}
        for id, old in self.ends.items():
            if id in now and id not in self.reopened:
                assert now[id][:3] == old[:3], f"{id} had ended as {old}, now as {now[id]}"
        self.ends, self.reopened = now, set()

    def _a_job_is_in_one_place(self) -> None:
        model = self.model
        for id, job in model.jobs.items():
            at = (id in model.places) + (id in model.nodes)
            ended = id in model.results and model.results[id].final
            assert at == (0 if ended or job.parked else 1), f"{id} is in {at} places"
        assert set(model.places) <= set(model.jobs)
        tokens = [place.token for place in model.places.values() if place.token]
        assert len(tokens) == len(set(tokens))

    def _nobody_waits_for_nothing(self) -> None:
        model = self.model
        for id, node in model.nodes.items():
            parents = [parent for parent, child in model.edges if child == id]
            assert node.pending == len(parents) > 0, f"{id} waits for {node.pending} of {parents}"
            for parent in parents:
                known = model.lives(parent) or parent in model.nodes or parent[:6] == "latch "
                assert known, f"{id} waits for {parent}, which is not there"

    def _deliveries_are_bounded(self) -> None:
        for id, place in self.model.places.items():
            most = self.model.jobs[id].plan.most
            assert place.deliveries <= most or place.lost, (
                f"{id} was delivered {place.deliveries} times"
            )

    # -- the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        type(self).counts = self.pair.counts
        if self.sound:
            self.drain()

    def drain(self) -> None:
        """Let everything end that was sent."""
        for worker in self.workers:
            worker.runs = {t: r for t, r in worker.runs.items() if r.id in self.model.jobs}
        for _ in range(200):
            if not any(self.model.lives(id) for id in self.model.jobs):
                break
            self.clock.advance(self.one.conn, UNIT_S)
            self.model.now += 1
            for number, worker in enumerate(self.workers):
                self._do(Beat(worker))
                runs = [(place, "ok") for place in range(len(worker.runs))]
                self._do(self._step(number, ROOM, runs))
            self._do(Maintain(self.workers[0]))
            self._the_engine_is_as_the_model()
        else:
            left = [id for id in self.model.jobs if self.model.lives(id)]
            raise AssertionError(f"{left} never ended")
        self._the_engine_is_as_the_model()
        assert not self.model.places
        assert not self.model.nodes


_open: dict[str, tuple[Session, Pair, Clock]] = {}


def _shared(engine: Engine) -> tuple[Session, Pair, Clock]:
    """Connections are kept over all sequences."""
    if engine.dsn not in _open:
        one = Session(engine)
        pair = Pair(Session(engine), Session(engine), Session(engine))
        _open[engine.dsn] = one, pair, Clock(one.conn)
    return _open[engine.dsn]


def close(engine: Engine) -> None:
    """Close what sequences on this engine had opened."""
    one, pair, _ = _open.pop(engine.dsn, (None, None, None))
    if one is not None and pair is not None:
        pair.close()
        for session in (one, pair.one, pair.two, pair.watch):
            session.close()
    engine.close()
