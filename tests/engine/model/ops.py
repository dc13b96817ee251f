"""What can be done, each in one transaction: on the engine, in the model, and at who did it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from pgcelery.engine import State
from pgcelery.engine.arrays import BooleanArray, ByteaArray, IntegerArray, TextArray
from pgcelery.engine.statements import Kind
from pgcelery.engine.territory import Territory
from tests.engine.model.database import Session
from tests.engine.model.ears import Ear
from tests.engine.model.model import Model
from tests.engine.model.plans import LEASE, UPKEEP_LEASE, Claim, Ending, Plan, Sent
from tests.engine.model.tables import Seen, demand

States = dict[str, int | None]  #: by id


@dataclass
class Worker:
    """A node and its pool, as far as they remember."""

    name: str
    queues: tuple[str, ...]
    territory: Territory
    ear: Ear
    id: int = 0
    turn: int = 0
    known: bool = True  #: as far as it was told
    runs: dict[int, Claim] = field(default_factory=dict)
    sent: list[Ending] = field(default_factory=list)  #: outcomes that it has sent once

    def order(self, turn: int) -> list[str]:
        """Give its queues in the order of a step's claims."""
        pivot = turn % len(self.queues)
        return [*self.queues[pivot:], *self.queues[:pivot]]

    def took(self, claims: Sequence[Claim]) -> None:
        self.runs.update({claim.token: claim for claim in claims})

    def ended(self, endings: Sequence[Ending]) -> None:
        for ending in sorted(endings):
            self.runs.pop(ending.token, None)
            self.sent.append(ending)


def same(what: str, engine: Any, model: Any) -> None:
    """Compare what the two came to."""
    demand(engine == model, f"{what}: the engine says {engine}, the model {model}")


def _by_id(claims: Sequence[Claim]) -> list[Claim]:
    return sorted(claims)


def _same_states(engine: States, model: States, seen: Seen | None) -> None:
    """Compare; what others were just purging or cancelling may have looked as if it ran."""
    if seen is not None:
        said = {id: model.get(id) if state == 3 else state for id, state in engine.items()}
        engine = {id: state for id, state in said.items() if id in model or state is not None}
    same("states", engine, model)


def _moving(engine: States, seen: Seen | None) -> set[str]:
    return set() if seen is None else {id for id, state in engine.items() if state == 3}


class Op:
    """One call, or what a client does in one transaction."""

    @property
    def told(self) -> list[Ending]:
        """Outcomes that it tells of."""
        found: list[Ending] = getattr(self, "endings", None) or [getattr(self, "ending", None)]
        return [one for one in found if one is not None]

    def run(self, session: Session) -> Any:
        """Do it."""
        raise NotImplementedError

    def apply(self, model: Model, answer: Any, seen: Seen | None) -> None:
        """Do it to the model, which has to come to the same answer."""
        raise NotImplementedError

    def done(self, answer: Any) -> None:
        """Let those who did it know, once it is committed."""


class Stepped(NamedTuple):
    claims: list[Claim]
    late: set[str]
    unknown: bool


@dataclass
class Step(Op):
    worker: Worker
    want: int
    endings: list[Ending]

    def __post_init__(self) -> None:
        self.me, self.turn = self.worker.id, self.worker.turn
        self.worker.turn += 1

    def run(self, session: Session) -> Stepped:
        rows = session.step(self.me, self.worker.territory, self.turn, self.want, self.endings)
        return Stepped(
            session.claims(rows),
            {row.job_id or "" for row in rows if row.kind is Kind.LATE},
            any(row.kind is Kind.UNKNOWN_WORKER for row in rows),
        )

    def apply(self, model: Model, answer: Stepped, seen: Seen | None) -> None:
        tokens = {claim.id: claim.token for claim in answer.claims}
        order = self.worker.order(self.turn)
        endings = sorted(self.endings, key=lambda one: one.token)
        # One that is buried while its step waits for that still claims. It is told at its next
        # step or beat, and the next upkeep finds those runs.
        known = self.me in model.workers or (seen is not None and not answer.unknown)
        claims, late = model.step(self.me, order, self.want, endings, tokens, seen, known)
        same("claims", _by_id(answer.claims), _by_id(claims))
        same("refused", answer.late, late)
        same("unknown worker", answer.unknown, self.want > 0 and not known)

    def done(self, answer: Stepped) -> None:
        self.worker.ended(self.endings)
        self.worker.took(answer.claims)
        self.worker.known = self.worker.known and not answer.unknown


@dataclass
class Again(Op):
    worker: Worker
    endings: list[Ending]

    def __post_init__(self) -> None:
        self.me = self.worker.id

    def run(self, session: Session) -> set[str]:
        rows = session.reschedule(self.me, self.endings)
        return {row.job_id or "" for row in rows if row.kind is Kind.LATE}

    def apply(self, model: Model, answer: set[str], seen: Seen | None) -> None:
        endings = sorted(self.endings, key=lambda one: one.token)
        same("refused", answer, model.reschedule(self.me, endings))

    def done(self, answer: set[str]) -> None:
        self.worker.ended(self.endings)


@dataclass
class Relay(Op):
    """`heard`: whether the pool process got the answer."""

    worker: Worker
    ending: Ending
    spare: int
    heard: bool = True

    def __post_init__(self) -> None:
        self.me = self.worker.id

    def run(self, session: Session) -> Claim | None:
        return session.relay(self.me, self.ending, self.worker.queues, self.spare)

    def apply(self, model: Model, answer: Claim | None, seen: Seen | None) -> None:
        said = model.relay(self.me, self.ending, self.worker.queues, self.spare)
        same("relayed", answer, said)

    def done(self, answer: Claim | None) -> None:
        if answer is not None and self.heard:
            self.worker.ended([self.ending])
            self.worker.took([answer])


@dataclass
class End(Op):
    worker: Worker
    ending: Ending

    def run(self, session: Session) -> bool:
        return session.end(self.ending)

    def apply(self, model: Model, answer: bool, seen: Seen | None) -> None:
        same("ended", answer, model.end(self.ending))

    def done(self, answer: bool) -> None:
        if answer:
            self.worker.ended([self.ending])


@dataclass
class Record(Op):
    """A run's own transaction, which records that it completed."""

    worker: Worker
    ending: Ending

    def run(self, session: Session) -> bool:
        return session.record(self.ending)

    def apply(self, model: Model, answer: bool, seen: Seen | None) -> None:
        same("recorded", answer, model.record(self.ending))

    def done(self, answer: bool) -> None:
        self.worker.ended([self.ending])


@dataclass
class Register(Op):
    worker: Worker

    def run(self, session: Session) -> int:
        return session.register(self.worker.name)

    def apply(self, model: Model, answer: int, seen: Seen | None) -> None:
        demand(answer not in model.workers, f"there was a worker {answer}")
        model.workers[answer] = model.now + LEASE

    def done(self, answer: int) -> None:
        self.worker.id, self.worker.known = answer, True


@dataclass
class Beat(Op):
    worker: Worker

    def __post_init__(self) -> None:
        self.me = self.worker.id

    def run(self, session: Session) -> tuple[bool, set[tuple[int, bool]]]:
        rows = session.beat(self.me)
        unknown = any(row.kind is Kind.UNKNOWN_WORKER for row in rows)
        cancels = {(row.token or 0, bool(row.flags)) for row in rows if row.kind is Kind.CANCEL}
        return unknown, cancels

    def apply(self, model: Model, answer: Any, seen: Seen | None) -> None:
        unknown, cancels = answer
        same("unknown worker", unknown, self.me not in model.workers)
        if not unknown:
            model.workers[self.me] = model.now + LEASE
            same("cancels", cancels, model.wishes(self.me))

    def done(self, answer: Any) -> None:
        self.worker.known = self.worker.known and not answer[0]


@dataclass
class Maintain(Op):
    worker: Worker

    def __post_init__(self) -> None:
        self.me = self.worker.id

    def run(self, session: Session) -> tuple[bool, list[Claim]]:
        rows = session.maintain(self.me)
        return any(row.kind is Kind.UPKEEP for row in rows), session.claims(rows)

    def apply(self, model: Model, answer: Any, seen: Seen | None) -> None:
        holds, claims = answer
        same("holds the lease", holds, model.leads_upkeep(self.me, UPKEEP_LEASE))
        if holds:
            tokens = {claim.id: claim.token for claim in claims}
            same("lost", _by_id(claims), _by_id(model.reap(self.me, tokens, seen)))
            model.prune(seen)

    def done(self, answer: Any) -> None:
        self.worker.took(answer[1])


@dataclass
class Reclaim(Op):
    """A worker is back and knows of some of its runs only."""

    worker: Worker
    known: list[int]

    def __post_init__(self) -> None:
        self.me = self.worker.id

    def run(self, session: Session) -> None:
        session.reclaim(self.me, self.known)

    def apply(self, model: Model, answer: None, seen: Seen | None) -> None:
        model.withdraw(self.me, None)
        model.give_back(model.running(self.me) - set(self.known))

    def done(self, answer: None) -> None:
        self.worker.runs = {t: run for t, run in self.worker.runs.items() if t in self.known}


@dataclass
class Unclaim(Op):
    tokens: list[int]

    def run(self, session: Session) -> None:
        session.unclaim(self.tokens)

    def apply(self, model: Model, answer: None, seen: Seen | None) -> None:
        model.give_back(self.tokens)


@dataclass
class Enqueue(Op):
    """`paused`: some other queue is, meanwhile."""

    plans: list[Plan]
    paused: bool = False

    def run(self, session: Session) -> Sent:
        with session.pausing(self.paused):
            return session.enqueue(self.plans)

    def apply(self, model: Model, answer: Sent, seen: Seen | None) -> None:
        same("sent", answer, model.send(self.plans, seen, paused=self.paused))


@dataclass
class Latch(Op):
    """A chord whose header is drawn one by one: opened, joined, closed with the body."""

    id: str
    members: list[Plan]
    body: Plan | None

    def run(self, session: Session) -> list[Sent]:
        sent = []
        if self.members:
            session.run("latches/open", {"id": self.id})
            sent = [session.enqueue([member]) for member in self.members]
        if self.body is not None:
            session.enqueue([self.body])
            session.run("latches/close", {"id": self.id})
        return sent

    def apply(self, model: Model, answer: list[Sent], seen: Seen | None) -> None:
        if self.members:
            model.open_latch(self.id)
            same("sent", answer, [model.send([member], seen) for member in self.members])
        if self.body is not None:
            model.close_latch(self.id, [self.body])


@dataclass
class Cancel(Op):
    ids: list[str]
    terminate: bool

    def run(self, session: Session) -> States:
        return session.cancel(self.ids, self.terminate)

    def apply(self, model: Model, answer: States, seen: Seen | None) -> None:
        states = model.cancel(self.ids, self.terminate, _moving(answer, seen))
        _same_states(answer, states, seen)


@dataclass
class CancelWorkflow(Op):
    id: str

    def run(self, session: Session) -> tuple[str, dict[str, int | None]]:
        ((root,),) = session.run("workflows/stop", {"id": self.id})
        rows = session.run("workflows/unfinished", {"id": root})
        return root, session.cancel([row[0] for row in rows], False)

    def apply(self, model: Model, answer: Any, seen: Seen | None) -> None:
        # Another one that was open may have purged it after this one had looked.
        gone = seen is not None and self.id not in model.jobs
        root = answer[0] if gone else model.root(self.id)
        model.stopped[root] = model.now
        ids = [id for id in model.jobs if model.root(id) == root and model.lives(id)]
        same("workflow", answer[0], root)
        _same_states(answer[1], model.cancel(ids, False, _moving(answer[1], seen)), seen)


@dataclass
class Purge(Op):
    queue: str

    def run(self, session: Session) -> int:
        return int(session.run("jobs/purge", {"queues": [self.queue]})[0][0])

    def apply(self, model: Model, answer: int, seen: Seen | None) -> None:
        same("purged", answer, model.purge([self.queue], seen))


@dataclass
class Forget(Op):
    ids: list[str]

    def run(self, session: Session) -> int:
        return int(session.run("results/forget", {"ids": TextArray.of(self.ids)})[0][0])

    def apply(self, model: Model, answer: int, seen: Seen | None) -> None:
        same("forgotten", answer, model.forget(self.ids))


@dataclass
class Put(Op):
    id: str
    state: State
    data: str

    def run(self, session: Session) -> bool:
        params = {"id": self.id, "state": int(self.state), "ttl_s": None}
        return bool(session.run("results/put", {**params, "result": self.data.encode()})[0][0])

    def apply(self, model: Model, answer: bool, seen: Seen | None) -> None:
        same("written", answer, model.put(self.id, self.state, self.data, None))


@dataclass
class Replay(Op):
    workflow: str | None
    waits: dict[str, int]
    edges: list[tuple[str, str]]
    restored: list[str]
    needs: list[str]

    def run(self, session: Session) -> bool:
        ids, children = list(self.waits), [child for _, child in self.edges]
        parents = [parent for parent, _ in self.edges]
        params = {
            "workflow": self.workflow,
            "ids": TextArray.of(ids),
            "waits": IntegerArray.of([max(self.waits[id], children.count(id)) for id in ids]),
            "pendings": IntegerArray.of([children.count(id) for id in ids]),
            "awaited": BooleanArray.of([id in parents for id in ids]),
            "payloads": ByteaArray.of([None] * len(ids)),
            "restores": TextArray.of(self.restored),
            "drops": TextArray.of([]),
            "needs": TextArray.of(self.needs),
            "edge_parents": TextArray.of(parents),
            "edge_children": TextArray.of(children),
        }
        ((refused, _),) = session.run("workflows/replay", params)
        return refused is None

    def apply(self, model: Model, answer: bool, seen: Seen | None) -> None:
        told = model.replay(self.workflow, self.waits, self.edges, self.restored, self.needs)
        same("replayed", answer, told)
