"""Rules: what clients, nodes, pool processes and operators do, in any order, and what must hold."""

from __future__ import annotations

import itertools
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pgcelery.engine import State
from tests.engine.model.database import Engine, Session, territory
from tests.engine.model.ears import Ear
from tests.engine.model.intents import INTENTS, MEETING, ROOM, SERVES, Intents
from tests.engine.model.model import Model
from tests.engine.model.offering import Offer
from tests.engine.model.ops import (
    Beat,
    Cancel,
    Enqueue,
    Maintain,
    Op,
    Purge,
    Reclaim,
    Register,
    Relay,
    Step,
    Unclaim,
    Worker,
    same,
)
from tests.engine.model.plans import DAY, MOST_TOLD, UNIT_S, Ending, Plan
from tests.engine.model.sessions import Pair, differences, settle
from tests.engine.model.tables import Disagreement, demand
from tests.support.clock import Clock

_LONE = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(["q", "q", "p"]),
        "priority": st.sampled_from([0, 3]),
        "due": st.sampled_from([0, 2]),
        "expires": st.sampled_from([0, 4]),
        "most": st.sampled_from([1, 3]),
    },
)


class EngineMachine(Intents, RuleBasedStateMachine):
    """One engine, one model of it, three workers."""

    engine: ClassVar[Engine]
    steps: ClassVar[int] = 0  #: rules that were run, over all sequences
    counts: ClassVar[Any] = None

    def __init__(self) -> None:
        super().__init__()
        shared = _shared(self.engine)
        self.one, self.pair, self.clock, ears = shared
        self.one.transaction("rollback")  # if a sequence was left in the middle of a call
        self.engine.empty(self.one.conn)
        self.model = Model()
        self.sound = False  # nothing has failed
        self.numbers = itertools.count()
        self.unknown: list[str] = []
        self.links: set[tuple[str, str]] = set()
        self.plans: dict[str, Plan] = {}
        self.ends: dict[str, tuple[Any, ...]] = {}  # results that are final
        self.reopened: set[str] = set()
        self.workers = [
            Worker(f"w{n}", queues, territory(self.engine, f"w{n}", queues), ear)
            for n, (queues, ear) in enumerate(zip(SERVES, ears, strict=True))
        ]
        for number, ear in enumerate(ears):
            self._listen(number)
            ear.heard()  # what another sequence left
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
        self._hear()
        op.done(answer)
        self.links |= self.model.edges
        for worker in self.workers:
            if not worker.known:
                self._do(Register(worker))

    def _hear(self) -> None:
        """Have nodes take what they were handed, which is what the model says they were."""
        for worker in self.workers:
            told = [claim for channel, claim in self.model.told if channel == worker.ear.channel]
            heard = worker.ear.heard()
            same("heard", sorted(heard), sorted(told))
            worker.took(heard)
            self.pair.counts["handed over"] += len(heard)
        self.model.told.clear()

    def _listen(self, number: int) -> None:
        ear = self.workers[number].ear
        if not ear.channel:
            ear.connect()
        self.model.ears.add(ear.channel)

    def _hang_up(self, number: int) -> None:
        ear = self.workers[number].ear
        self.model.ears.discard(ear.channel)
        ear.hang_up()

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

    @rule(intent=INTENTS["cancel"], early=st.booleans())
    def cancel(self, intent: Any, early: bool) -> None:
        kind = "cancel_unknown" if early else "cancel"
        self._do(self._intend(kind, (intent[1],) if early else intent))

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

    @rule(
        number=st.sampled_from([0, 2]),
        shape=st.sampled_from(["chain", "long chain", "chord"]),
        meanwhile=st.sampled_from(["", "", "cancelled", "joined"]),
    )
    def relay(self, number: int, shape: str, meanwhile: str) -> None:
        """A pool process goes on with a chain, not knowing what became of it."""
        worker = self.workers[number]
        self._do(Beat(worker))
        self._do(self._intend("canvas", (shape, [], False)))
        runs = [(place, "ok") for place in range(len(worker.runs))]
        self._do(self._step(number, ROOM, runs))
        op = self._intend("relay", (number, 0, True))
        if isinstance(op, Relay) and meanwhile == "cancelled":
            self._do(Cancel([op.ending.id], False))
        if isinstance(op, Relay) and meanwhile == "joined":
            children = [child for parent, child in self.model.edges if parent == op.ending.id]
            self._do(Enqueue([self._new({}, joins=tuple(sorted(children)))]))
        self._do(op)

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
        self._hang_up(number)
        for run in sorted(worker.runs.values()):
            worker.sent.append(Ending(run.id, run.token, State.COMPLETED, "too late"))
        worker.runs = {}
        self._listen(number)
        self._do(Register(worker))

    @rule(
        number=st.integers(0, 2),
        kind=st.sampled_from(["plain", "plain", "chain", "again", "two", "repeat"]),
        traits=_LONE,
        long=st.sampled_from([0, 0, 0, MOST_TOLD - 1, MOST_TOLD]),
        how=st.sampled_from(["", "", "", "", "paused", "cancelled", "gone", "back", "over"]),
    )
    def lone(self, number: int, kind: str, traits: dict[str, Any], long: int, how: str) -> None:
        """A job is sent where one offers to run it, whatever became of the one who does."""
        worker = self.workers[number]
        if how == "cancelled":
            self._do(self._intend("cancel_unknown", (False,)))
        self._listen(number)
        self._do(Beat(worker))
        self._do(Offer(worker, ("q",), 1, 9))
        if how == "gone":
            self._hang_up(number)
        if how == "over":
            self.advance(5, False)
        plans = self._lone(kind, {**traits, "payload": "x" * long} if long else traits)
        op = Enqueue(plans, paused=how == "paused")
        if how == "back":
            self._handed_to_nobody(number, op)
        else:
            self._do(op)

    def _lone(self, kind: str, traits: dict[str, Any]) -> list[Plan]:
        sent = [id for id in self.model._waiting("q")[:1] if id in self.plans]
        if kind == "repeat" and sent:  # it is there, and perhaps not for the first time
            return [self.plans[sent[0]]._replace(again=True, parents=(), joins=())]
        first = self._new(traits)
        if kind in ("again", "repeat"):
            return [first._replace(again=True)]
        parents = (first.id,) if kind == "chain" else ()
        return [first] if kind == "plain" else [first, self._new({}, parents=parents)]

    def _handed_to_nobody(self, number: int, op: Op) -> None:
        """Who is handed a job goes before that is committed, and is back."""
        self.one.transaction("begin")
        answer = op.run(self.one)
        op.apply(self.model, answer, None)
        self._hang_up(number)
        self.one.transaction("commit")
        self._done(op, answer)
        self._listen(number)
        self._do(self._reclaim(number, len(self.workers[number].runs)))

    @rule(
        number=st.integers(0, 2),
        kind=st.sampled_from(
            ["reclaim", "reclaim", "enqueue", "withdraw", "offer", "step", "cancel", "purge"]
        ),
        data=st.data(),
        kept=st.sampled_from([(True, True), (True, True), (False, True)]),
        turned=st.booleans(),
        second_first=st.booleans(),
    )
    def handed_at_once(
        self,
        number: int,
        kind: str,
        data: st.DataObject,
        kept: tuple[bool, bool],
        turned: bool,
        second_first: bool,
    ) -> None:
        """A job is handed over while the one who gets it, or another, does something else."""
        worker = self.workers[number]
        self._listen(number)
        self._do(Beat(worker))
        self._do(Purge("q"))
        self._do(Offer(worker, ("q",), 2, 9))
        intent = (number, ROOM) if kind == "reclaim" else data.draw(INTENTS[kind])
        lone = Enqueue([self._new({})])
        other = self._intend(kind, intent) or Reclaim(worker, list(worker.runs))
        pair = (other, lone) if turned else (lone, other)
        self._both(*pair, kept, second_first)

    @rule(number=st.integers(0, 2), back=st.booleans())
    def connection_breaks(self, number: int, back: bool) -> None:
        """What it offered is there until it is back, or for good."""
        self._hang_up(number)
        if back:
            self._listen(number)
            self._do(self._reclaim(number, ROOM))

    @precondition(lambda self: any(worker.runs for worker in self.workers))
    @rule(number=st.integers(0, 2))
    def upkeep(self, number: int) -> None:
        """Leases run out, and somebody finds that."""
        self.advance(5, False)
        self._do(Beat(self.workers[number]))
        self._do(Maintain(self.workers[number]))
        self._do(self._intend("offer", ((number + 1) % 3, "q", 1, 3, False)))

    @rule(
        data=st.data(),
        kind=st.sampled_from(sorted(set(MEETING) - {"enqueue", "twice"})),
        kept=st.sampled_from([(True, True), (True, True), (False, True)]),
    )
    def the_same_at_once(self, data: st.DataObject, kind: str, kept: tuple[bool, bool]) -> None:
        """The same call twice, as after an answer that seemed to be lost."""
        intent = data.draw(INTENTS[kind])
        first, second = self._intend(kind, intent), self._intend(kind, intent)
        if first is not None and second is not None:
            self._both(first, second, kept, False)

    @precondition(lambda self: any(worker.runs for worker in self.workers))
    @rule(number=st.integers(0, 2), pick=st.integers(0, 2), kind=st.sampled_from(["end", "record"]))
    def one_run_twice_at_once(self, number: int, pick: int, kind: str) -> None:
        """What fences a run off from itself must be seen by who waited for the first."""
        intent = (number, pick) if kind == "end" else (number, pick, "ok")
        first, second = self._intend(kind, intent), self._intend(kind, intent)
        if first is not None and second is not None:
            self._both(first, second, (True, True), False)

    @rule(number=st.integers(0, 2), second_first=st.booleans())
    def two_steps_at_once(self, number: int, second_first: bool) -> None:
        """Two workers end what they run, at the same time."""
        first, second = (
            self._step((number + more) % 3, 2, [(place, "ok") for place in range(ROOM)])
            for more in (0, 1)
        )
        self._both(first, second, (True, True), second_first)

    @rule(second_first=st.booleans())
    def two_purges_at_once(self, second_first: bool) -> None:
        """Each frees something into the queue of the other one."""
        for queues in ("qp", "pq"):
            self._do(self._canvas("chain", [{"queue": queue} for queue in queues], False))
        self._both(Purge("q"), Purge("p"), (True, True), second_first)

    @rule(
        data=st.data(),
        kinds=st.tuples(st.sampled_from(MEETING), st.sampled_from(MEETING)),
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
        first, second = (
            self._intend(kind, data.draw(INTENTS[kind])) or self._step(number, 2, [(0, "ok")])
            for number, kind in enumerate(kinds)
        )
        self._both(first, second, kept, second_first)

    def _both(self, first: Op, second: Op, kept: tuple[bool, bool], second_first: bool) -> None:
        self.sound = False
        for one, other in ((first, second), (second, first)):
            if isinstance(one, Reclaim):  # a node knows of what it has said but heard no answer to
                one.known += [ending.token for ending in other.told]
        done = self.pair.both((first, second), kept, second_first)
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
        demand(engine == model, differences(engine, model))

    def _what_has_ended_stays_so(self) -> None:
        now = {id: tuple(r) for id, r in self.model.results.items() if r.final}
        for id, old in self.ends.items():
            if id in now and id not in self.reopened:
                demand(now[id][:3] == old[:3], f"{id} had ended as {old}, now as {now[id]}")
        self.ends, self.reopened = now, set()

    def _a_job_is_in_one_place(self) -> None:
        model = self.model
        for id, job in model.jobs.items():
            at = (id in model.places) + (id in model.nodes)
            ended = id in model.results and model.results[id].final
            demand(at == (0 if ended or job.parked else 1), f"{id} is in {at} places")
        demand(set(model.places) <= set(model.jobs), "a place is of no job")
        tokens = [place.token for place in model.places.values() if place.token]
        demand(len(tokens) == len(set(tokens)), f"two runs have one token: {tokens}")

    def _nobody_waits_for_nothing(self) -> None:
        model = self.model
        for id, node in model.nodes.items():
            parents = [parent for parent, child in model.edges if child == id]
            right = node.pending == len(parents) > 0
            demand(right, f"{id} waits for {node.pending} of {parents}")
            for parent in parents:
                known = model.lives(parent) or parent in model.nodes or parent[:6] == "latch "
                demand(known, f"{id} waits for {parent}, which is not there")

    def _deliveries_are_bounded(self) -> None:
        for id, place in self.model.places.items():
            most = self.model.jobs[id].plan.most
            bounded = place.deliveries <= most or place.lost
            demand(bounded, f"{id} was delivered {place.deliveries} times")

    # -- the end ----------------------------------------------------------------------------------

    def teardown(self) -> None:
        type(self).counts = self.pair.counts
        if self.sound:
            self.drain()

    def drain(self) -> None:
        """Let everything end that was sent."""
        for worker in self.workers:
            worker.runs = {t: r for t, r in worker.runs.items() if r.id in self.model.jobs}
        for number in range(3):  # what pool processes claimed and nobody heard of
            self._do(self._reclaim(number, len(self.workers[number].runs)))
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
            raise Disagreement(f"{left} never ended")
        self._the_engine_is_as_the_model()
        demand(not self.model.places and not self.model.nodes, "some wait at the end")


_open: dict[str, tuple[Session, Pair, Clock, list[Ear]]] = {}


def _shared(engine: Engine) -> tuple[Session, Pair, Clock, list[Ear]]:
    """Connections are kept over all sequences."""
    if engine.dsn not in _open:
        one = Session(engine)
        pair = Pair(Session(engine), Session(engine), Session(engine))
        _open[engine.dsn] = one, pair, Clock(one.conn), [Ear(engine) for _ in SERVES]
    return _open[engine.dsn]


def close(engine: Engine) -> None:
    """Close what sequences on this engine had opened."""
    if engine.dsn in _open:
        one, pair, _, ears = _open.pop(engine.dsn)
        pair.close()
        for session in (one, pair.one, pair.two, pair.watch):
            session.close()
        for ear in ears:
            ear.hang_up()
    engine.close()
