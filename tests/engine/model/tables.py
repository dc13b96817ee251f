"""What there is, in plain Python: the rows of the engine, and how jobs come and are freed.

No SQL and no threads; times are whole units.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tests.engine.model.plans import Claim, Plan


class Disagreement(AssertionError):
    """The engine did what its model does not, or what must hold does not."""


def demand(holds: object, said: str) -> None:
    """Check what the engine came to.

    Raises:
        Disagreement: It is not so.
    """
    if not holds:
        raise Disagreement(said)


AWAITED, BAD, CANCELLED, EXPIRED, LOST = 1, 4, 8, 16, 32


@dataclass
class Job:
    seq: int
    plan: Plan  #: as it is now; `sent` as it was, if a retry or a replacement changed that
    due: int | None
    expires: int | None
    awaited: bool
    leads: bool
    workflow: str | None
    joined: tuple[str, ...] | None = None
    last_token: int | None = None
    parked: bool = False
    sent: Plan | None = None


class Place(NamedTuple):
    """Where a job is that has not ended."""

    table: str  #: scheduled, ready, running
    deliveries: int
    bad: bool  #: a parent did not complete
    token: int = 0
    worker: int = 0
    lost: bool = False  #: its deliveries are used up: to be ended, not to run


@dataclass
class Node:
    """What waits for parents, and how many of them."""

    pending: int
    failed: int = 0
    joined: tuple[str, ...] | None = None


class Result(NamedTuple):
    state: int
    token: int | None
    data: str | None
    expires: int | None
    final: bool


class Freed(NamedTuple):
    id: str
    failed: bool
    fed_by: str | None


class Offer(NamedTuple):
    """To run a job of a queue; under the token that the run would have."""

    queue: str
    worker: int
    channel: str
    until: int


class Seen(NamedTuple):
    """What the engine's tables held right after a call among other open transactions."""

    scheduled: frozenset[str]
    ready: dict[str, int]  #: with deliveries so far
    waiting: frozenset[str]  #: for parents
    overdue: frozenset[str]  #: results that are past their time
    offers: frozenset[int]


@dataclass
class Tables:
    now: int = 0
    seq: int = 0
    jobs: dict[str, Job] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    edges: set[tuple[str, str]] = field(default_factory=set)
    results: dict[str, Result] = field(default_factory=dict)
    cancels: dict[str, tuple[bool, int]] = field(default_factory=dict)
    late: list[tuple[str, int, int, str, int]] = field(default_factory=list)
    workers: dict[int, int] = field(default_factory=dict)
    upkeep: tuple[int, int] | None = None
    stopped: dict[str, int] = field(default_factory=dict)
    offers: dict[int, Offer] = field(default_factory=dict)
    ears: set[str] = field(default_factory=set)  #: channels whose connections live
    told: list[tuple[str, Claim]] = field(default_factory=list)  #: on channels, and not read yet

    # -- enqueue ----------------------------------------------------------------------------------

    def enqueue(self, plans: Sequence[Plan]) -> set[str]:
        """Insert jobs; gives the ids that existed."""
        self._begin_anew(plans)
        waited_for = {parent for plan in plans for parent in plan.parents}
        born: set[str] = set()
        for plan in plans:
            job = self.jobs.get(plan.id)
            if plan.id not in born and (job is None or job.parked):
                born.add(plan.id)
                self._bear(plan, job, plan.id in waited_for or plan.awaited or bool(plan.joins))
        self.edges |= {(p, plan.id) for plan in plans if plan.id in born for p in plan.parents}
        ids = {plan.id for plan in plans}
        self.join([(o.id, p) for o in plans if o.id in born for p in o.joins if p not in ids])
        for plan in plans:
            if plan.leads and plan.workflow is not None:
                self.stopped.pop(plan.workflow, None)
        for plan in plans:
            if plan.id in born and plan.workflow in self.stopped:
                self.cancels.setdefault(plan.id, (False, self.now))
        return ids - born

    def _begin_anew(self, plans: Sequence[Plan]) -> None:
        """Have ids that have ended taken over by what is not the same send."""
        for plan in plans:
            found, job = self.results.get(plan.id), self.jobs.get(plan.id)
            if not (plan.again and found and found.final):
                continue
            if job is None or (found.token is not None and job.plan.payload != plan.payload):
                del self.results[plan.id]
                if job is not None:
                    job.parked, job.joined, job.last_token = True, None, None

    def _bear(self, plan: Plan, old: Job | None, awaited: bool) -> None:
        due = None if plan.due is None else self.now + plan.due
        if plan.delay is not None:
            due = None if plan.parents else self.now + plan.delay
        kept = plan if plan.parents else plan._replace(delay=None, lives=None)
        expires = None if plan.expires is None else self.now + plan.expires
        self.seq += 1
        job = Job(self.seq, kept, due, expires, awaited, plan.leads, plan.workflow)
        if old is not None:
            job.seq = old.seq
            job.awaited, job.leads = awaited or old.awaited, plan.leads or old.leads
            job.workflow = plan.workflow if plan.workflow is not None else old.workflow
            job.last_token, job.joined = old.last_token, old.joined
            if old.last_token is not None:
                job.sent = old.sent or old.plan
        self.jobs[plan.id] = job
        if plan.parents:
            self.nodes[plan.id] = Node(len(plan.parents))
        else:
            self._put(plan.id, 0, bad=False)

    def _put(self, id: str, deliveries: int, *, bad: bool, lost: bool = False) -> None:
        due = self.jobs[id].due
        table = "scheduled" if due is not None and due > self.now else "ready"
        self.places[id] = Place(table, deliveries, bad, lost=lost)

    def join(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Have what waits at, or beside, a place wait for another parent too."""
        beside: dict[str, list[str]] = {}
        more: dict[str, list[str]] = {}
        for parent, place in pairs:
            at_node = place in self.nodes
            children = [place] if at_node else [c for p, c in self.edges if p == place]
            for child in children:
                if child in self.nodes and (parent, child) not in self.edges:
                    self.edges.add((parent, child))
                    more.setdefault(child, []).append(parent)
                    if not at_node:
                        beside.setdefault(child, []).append(parent)
        for child, parents in more.items():
            node = self.nodes[child]
            node.pending += len(parents)
            node.joined = (node.joined or ()) + tuple(beside.get(child, ()))

    def open_latch(self, id: str) -> None:
        if id not in self.nodes:
            self.nodes[id] = Node(1, joined=())
            self.edges.add((f"latch {id}", id))

    def close_latch(self, id: str, plans: Sequence[Plan]) -> set[str]:
        existing = self.enqueue(plans)
        self.place(self.free([(f"latch {id}", True)]))
        return existing

    # -- freeing -----------------------------------------------------------------------------

    def free(self, ended: Iterable[tuple[str, bool]]) -> list[Freed]:
        """Count ended jobs down at their children; gives those that wait for nobody any more."""
        arrived: dict[str, list[tuple[str, bool]]] = {}
        for parent, ok in ended:
            for edge in [edge for edge in self.edges if edge[0] == parent]:
                self.edges.discard(edge)
                arrived.setdefault(edge[1], []).append((parent, ok))
        freed: list[Freed] = []
        opened: list[tuple[str, bool]] = []
        for child in sorted(arrived):
            node = self.nodes.get(child)
            if node is None:
                continue
            node.pending -= len(arrived[child])
            node.failed += sum(not ok for _, ok in arrived[child])
            if node.pending > 0:
                continue
            del self.nodes[child]
            if child in self.jobs:
                job = self.jobs[child]
                fed = len(arrived[child]) == len(job.plan.parents) == 1 and node.joined is None
                job.joined = job.joined if node.joined is None else node.joined
                by = arrived[child][0][0] if fed else None
                freed.append(Freed(child, node.failed > 0, by))
            else:
                opened.append((child, node.failed == 0))
                for _, waiting in [edge for edge in self.edges if edge[0] == child]:
                    if node.joined and waiting in self.nodes:
                        told = self.nodes[waiting]
                        told.joined = (told.joined or ()) + node.joined
        later = self.free(opened) if opened else []
        return freed + [one._replace(fed_by=None) for one in later]

    def place(self, freed: Iterable[Freed]) -> None:
        for one in freed:
            job = self.jobs.get(one.id)
            if job is None:
                continue
            if job.plan.delay is not None:
                job.due = self.now + job.plan.delay
            if job.plan.lives is not None:
                job.expires = self.now + job.plan.lives
            self._put(one.id, 0, bad=one.failed)

    # -- what there is ----------------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        """All of it, as `database.dump` gives the engine's."""
        places: list[tuple[Any, ...]] = []
        for id, place in self.places.items():
            job = self.jobs[id]
            flags = job.awaited * AWAITED | place.bad * BAD | place.lost * LOST
            at: tuple[Any, ...] = (place.table, id, place.deliveries, flags, job.plan.queue)
            if place.token:
                at = (*at, place.token, place.worker)
            elif place.table == "scheduled":
                at = (*at, job.plan.priority, job.due)
            else:
                at = (*at, job.plan.priority)
            places.append(at)
        for id, node in self.nodes.items():
            places.append(("node", id, node.pending, node.failed, node.joined))
        return {
            "jobs": {id: _row(job) for id, job in self.jobs.items()},
            "order": sorted(self.jobs, key=lambda id: self.jobs[id].seq),
            "places": sorted(places, key=repr),
            "results": {id: tuple(result) for id, result in self.results.items()},
            "edges": sorted(self.edges),
            "cancels": dict(self.cancels),
            "late": sorted(self.late),
            "workers": dict(self.workers),
            "upkeep": self.upkeep,
            "stopped": dict(self.stopped),
            "offers": {token: tuple(offer) for token, offer in self.offers.items()},
        }


def _row(job: Job) -> tuple[Any, ...]:
    plan = job.plan
    last = _kept(job.sent) if job.sent else None
    now = (*_kept(plan), job.due, job.expires, len(plan.parents), job.awaited, job.leads)
    return (*now, job.workflow, job.joined, job.last_token, job.parked, last)


def _kept(plan: Plan) -> tuple[Any, ...]:
    return (
        plan.queue, plan.priority, plan.most, plan.payload, plan.ttl, plan.delay, plan.lives
    )  # fmt: skip
