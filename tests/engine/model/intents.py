"""What is drawn, and which calls that comes to as things are: small numbers pick jobs and runs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from pgcelery.engine import State
from tests.engine.model.database import Session
from tests.engine.model.model import Model
from tests.engine.model.offering import Offer, Withdraw
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
    Record,
    Relay,
    Replay,
    Step,
    Worker,
)
from tests.engine.model.plans import Claim, Ending, Plan

SERVES = (("q", "p"), ("q",), ("p", "q"))  #: queues of the three workers
ROOM = 4  #: runs that a worker has room for
_PICK = st.integers(0, 7)
_HOW = st.sampled_from(
    ["ok", "ok", "ok", "ok", "fail", "follow", "shared", "replace", "beside", "drop"]
)
_BACK = st.sampled_from(["retry", "later", "change", "release", "counted", "wait"])
_TRAITS = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(["q", "p"]),
        "priority": st.sampled_from([0, 3]),
        "delay": st.sampled_from([1, 3]),
        "due": st.sampled_from([0, 2]),
        "expires": st.sampled_from([0, 1, 4]),
        "most": st.sampled_from([1, 1, 3]),
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
    "stale": st.tuples(
        _PICK, _PICK, st.sampled_from(["ok", "fail", "retry", "release", "end", "record", "same"])
    ),
    "relay": st.tuples(st.integers(0, 2), _PICK, st.booleans()),
    "end": st.tuples(st.integers(0, 2), _PICK),
    "record": st.tuples(st.integers(0, 2), _PICK, _HOW),
    "beat": st.tuples(st.integers(0, 2)),
    "maintain": st.tuples(st.integers(0, 2)),
    "reclaim": st.tuples(st.integers(0, 2), st.integers(0, 2)),
    "offer": st.tuples(
        st.integers(0, 2),
        st.sampled_from(["q", "p", "qp"]),
        st.integers(0, 2),
        st.sampled_from([1, 3, 9]),
        st.sampled_from([False, False, True]),
    ),
    "withdraw": st.tuples(st.integers(0, 2)),
    "cancel": st.tuples(st.lists(_PICK, min_size=1, max_size=2), st.booleans()),
    "cancel_unknown": st.tuples(st.booleans()),
    "cancel_workflow": st.tuples(_PICK),
    "replay": st.tuples(_PICK, st.booleans(), st.booleans()),
    "forget": st.tuples(st.lists(_PICK, min_size=1, max_size=2)),
    "purge": st.tuples(st.sampled_from(["q", "p"])),
    "put": st.tuples(_PICK, st.booleans()),
}  # fmt: skip
MEETING = (
    "enqueue", "repeat", "twice", "step", "step", "step", "again", "stale", "relay", "relay", "end",
    "record", "maintain", "maintain", "reclaim", "cancel", "cancel", "cancel_workflow",
    "offer", "withdraw", "replay", "forget", "purge",
)  # fmt: skip


class Intents:
    """Makes calls; None where there is nothing to call."""

    one: Session
    model: Model
    numbers: itertools.count[int]
    workers: list[Worker]
    unknown: list[str]  #: ids that were cancelled before they were sent
    links: set[tuple[str, str]]  #: every edge there has been
    plans: dict[str, Plan]  #: as sent first
    reopened: set[str]  #: whose results may go, by this rule

    def _intend(self, kind: str, intent: tuple[Any, ...]) -> Op | None:
        make: Callable[..., Op | None] = getattr(self, f"_{kind}")
        return make(*intent)

    def _id(self, letter: str = "j") -> str:
        return f"{letter}{next(self.numbers):03}"

    def _new(self, traits: dict[str, Any], **more: Any) -> Plan:
        id = self.unknown.pop() if self.unknown else self._id()
        plan = Plan(id, payload=f"of {id}", most=2)._replace(**traits)._replace(**more)
        self.plans[id] = plan
        return plan

    def _job(self, pick: int) -> str | None:
        """Pick one of the jobs there are, the newest first."""
        ids = sorted(self.model.jobs, reverse=True)
        return ids[pick % len(ids)] if ids else None

    def _run(self, worker: Worker, pick: int) -> Claim | None:
        runs = sorted(worker.runs.values())  # by id: tokens are the engine's choice
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
            plain = len(self.plans) % 2 == 0
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
        delay = 2 if how == "wait" else None
        counted = how == "counted" and left
        return Ending(run.id, run.token, State.AVAILABLE, delay=delay, counted=counted)

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
        if how in ("end", "record"):
            other = Ending(old.id, old.token, State.COMPLETED, "stale")
            return End(worker, other) if how == "end" else Record(worker, other)
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
        """The end of a run that others wait for, if there is one."""
        worker = self.workers[number]
        runs = sorted(worker.runs.values(), key=lambda run: (not run.flags & 1, run))
        if pick >= len(runs) or runs[pick].doomed:
            return None
        run = runs[pick]
        done = Ending(run.id, run.token, State.COMPLETED, f"relayed {run.token}")
        return Relay(worker, done, self.one.reserve(), heard)

    def _end(self, number: int, pick: int) -> Op | None:
        worker = self.workers[number]
        run = self._run(worker, pick)
        if run is None or run.doomed:
            return None
        return End(worker, Ending(run.id, run.token, State.COMPLETED, f"ended {run.token}"))

    def _record(self, number: int, pick: int, how: str) -> Op | None:
        worker = self.workers[number]
        run = self._run(worker, pick)
        if run is None or run.doomed:
            return None
        ending = self._ending(run, how)
        if ending.state is not State.COMPLETED:
            ending = self._ending(run, "ok")
        return Record(worker, ending)

    def _beat(self, number: int) -> Op:
        return Beat(self.workers[number])

    def _offer(self, number: int, queues: str, many: int, lives: int, paused: bool) -> Op | None:
        worker = self.workers[number]
        return Offer(worker, tuple(queues), many, lives, paused) if worker.ear.channel else None

    def _withdraw(self, number: int) -> Op:
        return Withdraw(self.workers[number])

    def _maintain(self, number: int) -> Op:
        return Maintain(self.workers[number])

    def _reclaim(self, number: int, keep: int) -> Op:
        worker = self.workers[number]
        return Reclaim(worker, [run.token for run in sorted(worker.runs.values())[:keep]])
