"""The engine as it should be, in plain Python: each method is one call of it.

What the engine chooses freely (tokens; among other open transactions also which rows it skips as
locked) is told to the method, which checks that the choice was possible.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from pgcelery.engine import State
from tests.engine.model.handing import Handing
from tests.engine.model.plans import DAY, WEEK, Claim, Ending
from tests.engine.model.tables import (
    AWAITED,
    BAD,
    CANCELLED,
    LOST,
    Freed,
    Node,
    Place,
    Result,
    Seen,
    demand,
)


class Model(Handing):
    """All calls; see `Tables` for what they work on."""

    # -- the end of runs --------------------------------------------------------------------------

    def _current(self, ending: Ending) -> Place | None:
        place = self.places.get(ending.id)
        return place if place and place.token == ending.token and place.token else None

    def _refuse(self, me: int, ending: Ending) -> bool:
        """Whether an outcome without a run is late; if not, it is a repeat."""
        found, job = self.results.get(ending.id), self.jobs.get(ending.id)
        if found and found.token == ending.token:
            return False
        if job and job.last_token == ending.token:
            return False
        done = found is not None and found.final and ending.state not in (2, 4)
        reason = "already finished" if done else "reassigned"
        self.late.append((ending.id, ending.token, int(ending.state), reason, self.now))
        return True

    def _store(self, id: str, state: int, token: int | None, data: str | None, ttl: int | None):
        old = self.results.get(id)
        if old and old.final:
            return
        kept = old.data if data is None and old and token is not None else data
        expires = None if ttl is None else self.now + ttl
        self.results[id] = Result(state, token, kept, expires, state >= State.COMPLETED)

    def finish(self, me: int, endings: Sequence[Ending]) -> tuple[set[str], list[Freed]]:
        """Record the end of runs; gives whose outcomes were refused, and what is free since."""
        ended: list[Ending] = []
        parents: list[tuple[str, bool]] = []
        for ending in endings:
            if self._current(ending) is None:
                continue
            job = self.jobs.get(ending.id)
            del self.places[ending.id]
            ended.append(ending)
            if ending.state is State.WAITING:
                if job:
                    job.parked, job.last_token = True, ending.token
                continue
            ttl = ending.ttl if ending.ttl is not None else job.plan.ttl if job else None
            self._store(ending.id, ending.state, ending.token, ending.result, ttl)
            self.cancels.pop(ending.id, None)
            if job and job.awaited:
                parents.append((ending.id, ending.state is State.COMPLETED))
        late = {e.id for e in endings if e not in ended and self._refuse(me, e)}
        drops = dict.fromkeys(id for ending in ended for id in ending.drops)
        dropped = [id for id in drops if id in self.nodes and id in self.jobs]
        gone = {e.id for e in endings} | {id for e in endings for id in e.drops}
        for id in dropped:
            self.edges -= {edge for edge in self.edges if edge[1] == id and edge[0] in gone}
            del self.nodes[id], self.jobs[id]
        follow_ups = []
        for ending in ended:
            job = self.jobs.get(ending.id)
            root = job.workflow if job and job.workflow is not None else ending.id
            for plan in ending.follow_ups:
                follow_ups.append(plan if plan.workflow else plan._replace(workflow=root))
        self.enqueue(follow_ups)
        parents += [(id, False) for id in dropped if id not in self.jobs]
        return late, self.free(parents)

    # -- claims -----------------------------------------------------------------------------------

    def step(
        self,
        me: int,
        queues: Sequence[str],
        want: int,
        endings: Sequence[Ending],
        tokens: dict[str, int],
        seen: Seen | None,
        known: bool,
    ) -> tuple[list[Claim], set[str]]:
        """One round trip; gives claims, if the worker is known, and whose outcomes were refused."""
        late, freed = self.finish(me, endings)
        room = want if known else 0
        handed = []
        for one in freed:
            job = self.jobs.get(one.id)
            due = job is not None and (job.due is None or job.due <= self.now)
            if (
                job
                and due
                and job.plan.queue in queues
                and job.plan.delay is job.plan.lives is None
            ):
                handed.append(one)
        order = self._in_turn(one.id for one in handed)[:room]
        claims = [
            self._start(me, one.id, Place("", 0, one.failed), tokens.get(one.id, 0), 1, one.fed_by)
            for one in handed
            if one.id in order
        ]
        self.place(one for one in freed if one.id not in order)
        room -= len(claims)
        if want > 0:
            self._make_due(queues, seen)
        ready = [id for queue in queues for id in self._waiting(queue)]
        chosen = [id for id in ready if id in tokens] if seen else ready[:room]
        demand(len(chosen) <= room, "claimed more than it wanted")
        for id in chosen[:room]:
            place = self.places[id]
            delivery = place.deliveries + 1
            claims.append(self._start(me, id, place, tokens.get(id, 0), delivery, None))
        return claims, late

    def _make_due(self, queues: Collection[str], seen: Seen | None) -> None:
        for id in self._at("scheduled"):
            locked = seen is not None and id in seen.scheduled
            if self._queue(id) in queues and (self.jobs[id].due or 0) <= self.now and not locked:
                self.places[id] = self.places[id]._replace(table="ready")

    def relay(self, me: int, ending: Ending, queues: Sequence[str], token: int) -> Claim | None:
        """What a pool process does for a chain; None where that is for the node."""
        place = self._current(ending)
        children = [child for parent, child in self.edges if parent == ending.id]
        if place is None or place.bad or len(children) != 1:
            return None
        (child,) = children
        node, job = self.nodes.get(child), self.jobs.get(child)
        if node is None or job is None or node.pending != 1:
            return None
        plain = job.plan.delay is job.plan.lives is job.due is node.joined is None
        fresh = job.expires is None or job.expires > self.now
        alive = self.workers.get(me, 0) > self.now + 1  # a fifth of the lease
        wanted = {ending.id, child} & self.cancels.keys()
        if not (plain and fresh and alive and not wanted and len(job.plan.parents) == 1):
            return None
        if job.plan.queue not in queues:
            return None
        ttl = ending.ttl if ending.ttl is not None else self.jobs[ending.id].plan.ttl
        del self.places[ending.id]
        self._store(ending.id, State.COMPLETED, ending.token, ending.result, ttl)
        self.edges.discard((ending.id, child))
        del self.nodes[child]
        return self._start(me, child, Place("", 0, False), token, 1, ending.id)

    def end(self, ending: Ending) -> bool:
        place = self._current(ending)
        if place is None or self.jobs[ending.id].awaited:
            return False
        self.finish(place.worker, [ending._replace(state=State.COMPLETED)])
        return True

    def record(self, ending: Ending) -> bool:
        """What a run does that records its own end, which is undone if it is not current."""
        place, old = self._current(ending), self.results.get(ending.id)
        if place is None or (old and old.final):
            return False
        _, freed = self.finish(place.worker, [ending])
        self.place(freed)
        return True

    # -- runs that go back ------------------------------------------------------------------------

    def reschedule(self, me: int, endings: Sequence[Ending]) -> set[str]:
        """Retries and what is given back; gives whose outcomes were refused."""
        late: set[str] = set()
        for ending in endings:
            place, job = self._current(ending), self.jobs.get(ending.id)
            if place is None:
                found = self.results.get(ending.id)
                known = {job and job.last_token, found and found.token}
                if ending.token not in known:
                    self.late.append(
                        (ending.id, ending.token, int(ending.state), "reassigned", self.now)
                    )
                    late.add(ending.id)
                continue
            del self.places[ending.id]
            if job is None:
                continue
            retry = ending.state is State.RETRYABLE
            after = ending.delay if ending.delay is not None else ending.due or 0
            if ending.payload is not None and job.workflow is not None:
                job.sent = job.sent or job.plan
            plan = job.plan
            job.plan = plan._replace(
                payload=plan.payload if ending.payload is None else ending.payload,
                queue=ending.queue or plan.queue,
                priority=plan.priority if ending.priority is None else ending.priority,
            )
            if ending.expires is not None:
                job.expires = self.now + ending.expires
            timed = retry or ending.delay is not None
            job.due, job.last_token = (self.now + after if timed else None), ending.token
            back = place.deliveries if ending.counted else place.deliveries - 1
            self._put(ending.id, 0 if retry else back, bad=place.bad, lost=place.lost)
            if ending.result is not None:
                old = self.results.get(ending.id)
                if not (old and old.final):
                    kept = old.token if old else None
                    expires = old.expires if old else None
                    self.results[ending.id] = Result(
                        int(ending.state), kept, ending.result, expires, False
                    )
        return late

    def give_back(self, tokens: Collection[int]) -> None:
        """Runs that did not begin: they go back as they were, or to who ends what was lost."""
        for id, place in list(self.places.items()):
            if place.lost and place.token in tokens:
                self.places[id] = place._replace(worker=0)
            elif place.token and place.token in tokens:
                self.places[id] = Place("ready", place.deliveries - 1, place.bad)

    def running(self, worker: int) -> set[int]:
        return {p.token for p in self.places.values() if p.token and p.worker == worker}

    # -- upkeep and what operators do -------------------------------------------------------------

    def leads_upkeep(self, me: int, lease: int) -> bool:
        if self.upkeep and self.upkeep[1] > self.now and self.upkeep[0] != me:
            return False
        self.upkeep = (me, self.now + lease)
        return me in self.workers

    def reap(self, me: int, tokens: dict[str, int], seen: Seen | None) -> list[Claim]:
        """Bury who is silent; gives the runs that are to be ended by who does this."""
        self.workers = {id: until for id, until in self.workers.items() if until > self.now}
        lost: list[Claim] = []
        for id, place in list(self.places.items()):
            if place.table != "running" or place.worker in self.workers:
                continue
            returned = seen is None or seen.ready.get(id) == place.deliveries
            if not returned and id not in tokens:
                continue  # somebody is just ending it, or has just begun it
            plan, job, cancelled = self.jobs[id].plan, self.jobs[id], id in self.cancels
            if place.deliveries < plan.most and not cancelled:
                self.places[id] = Place("ready", place.deliveries, place.bad)
                continue
            token = tokens.get(id, 0)
            self.places[id] = place._replace(token=token, worker=me, lost=True)
            flags = job.awaited * AWAITED | place.bad * BAD | LOST | cancelled * CANCELLED
            claim = Claim(
                id, token, plan.queue, plan.payload, plan.priority, place.deliveries, flags, None
            )
            lost.append(claim)
        return lost

    def prune(self, seen: Seen | None) -> None:
        """Delete what is past its time."""
        due = {i: r for i, r in self.results.items() if r.expires is not None}
        old = {id: r for id, r in due.items() if (r.expires or 0) <= self.now}
        living = {
            job.workflow
            for id, job in self.jobs.items()
            if job.workflow and not (id in self.results and self.results[id].final)
        }
        for id, result in old.items():
            if seen is not None and id in seen.overdue:
                continue  # somebody had it locked
            job = self.jobs.get(id)
            if job and job.awaited and job.workflow in living:
                self.results[id] = result._replace(expires=self.now + 60)
                continue
            del self.results[id]
            if result.final:
                self.jobs.pop(id, None)
        for id, (_, at) in list(self.cancels.items()):
            runs = id in self.places and self.places[id].token
            if at <= self.now - DAY and not runs and not self.lives(id):
                del self.cancels[id]
        self.late = [one for one in self.late if one[4] > self.now - WEEK]
        self.stopped = {w: at for w, at in self.stopped.items() if at > self.now - WEEK}

    def runs_otherwise(self, ending: Ending) -> bool:
        """Whether a job runs, but not by the run that an outcome is of."""
        place = self.places.get(ending.id)
        return place is not None and place.token not in (0, ending.token)

    def wishes(self, worker: int) -> set[tuple[int, bool]]:
        """Runs of a worker that are to be cancelled, and whether by force."""
        return {
            (place.token, self.cancels[id][0])
            for id, place in self.places.items()
            if place.token and place.worker == worker and id in self.cancels
        }

    def root(self, id: str) -> str:
        """Id of the workflow that a job is of."""
        job = self.jobs.get(id)
        return job.workflow if job and job.workflow is not None else id

    def lives(self, id: str) -> bool:
        """Whether there is such a job and it has not ended."""
        return id in self.jobs and not (id in self.results and self.results[id].final)

    def cancel(
        self, ids: Collection[str], terminate: bool, moving: Collection[str] = ()
    ) -> dict[str, int | None]:
        """End what waits, note the wish for what runs; gives what each is then.

        What others were just moving is found nowhere: whoever claims it sees the wish.
        """
        states: dict[str, int | None] = {}
        for id in sorted(set(ids)):
            found, job, place = self.results.get(id), self.jobs.get(id), self.places.get(id)
            if found and found.final:
                states[id] = found.state
                continue
            waits = bool(job) and (id in self.nodes or (place is not None and not place.token))
            if not waits or job is None or id in moving:
                had = self.cancels.get(id, (False, self.now))
                self.cancels[id] = (had[0] or terminate, had[1])
                states[id] = 3 if job else None
                continue
            self.places.pop(id, None)
            self.nodes.pop(id, None)
            self.cancels.pop(id, None)
            self._store(id, State.CANCELLED, None, None, job.plan.ttl)
            states[id] = State.CANCELLED
            if job.awaited:
                self.place(self.free([(id, False)]))
        return states

    def purge(self, queues: Collection[str], seen: Seen | None = None) -> int:
        """Forget what waits in queues, but for what others just move; what waited for it fails.

        Nor does it see what another one that is open frees into its queues: that stays, to be ended
        by a worker, as if it had been freed after both.
        """
        left = {*seen.ready, *seen.scheduled, *seen.waiting} if seen is not None else set()
        waiting = [i for i, p in self.places.items() if not p.token and i not in left]
        gone = [id for id in waiting if self._queue(id) in queues]
        awaited = [id for id in gone if self.jobs[id].awaited]
        for id in gone:
            del self.places[id], self.jobs[id]
        self.place(self.free((id, False) for id in awaited))
        return len(gone)

    def forget(self, ids: Collection[str]) -> int:
        gone = [id for id in ids if id in self.results]
        for id in gone:
            if self.results.pop(id).final:
                self.jobs.pop(id, None)
        return len(gone)

    def put(self, id: str, state: int, data: str, ttl: int | None) -> bool:
        old = self.results.get(id)
        if old and old.final:
            return False
        expires = None if ttl is None else self.now + ttl
        token = old.token if old else None
        self.results[id] = Result(state, token, data, expires, state >= State.COMPLETED)
        return True

    def replay(
        self,
        workflow: str | None,
        waits: dict[str, int],
        edges: Collection[tuple[str, str]],
        restored: Collection[str],
        needs: Collection[str],
    ) -> bool:
        """Run ended jobs again; False, and nothing done, if one has not ended."""
        for id in (*waits, *needs):
            if not (id in self.jobs and id in self.results and self.results[id].final):
                return False
            if id in self.places or id in self.nodes:
                return False
        self.stopped.pop(workflow or "", None)
        for id in waits:
            self.cancels.pop(id, None)
            job = self.jobs[id]
            if id in restored and job.sent is not None:
                job.plan, job.sent = job.sent._replace(parents=job.plan.parents), None
            pending = sum(child == id for _, child in edges)
            job.plan = job.plan._replace(parents=("",) * max(waits[id], pending))
            job.awaited = job.awaited or any(parent == id for parent, _ in edges)
            job.due, job.expires, job.parked = None, None, False
            token = self.results.pop(id).token
            job.last_token = job.last_token if token is None else token
            job.joined = job.joined or None
            if pending:
                self.nodes[id] = Node(pending, joined=job.joined)
            else:
                self.places[id] = Place("ready", 0, False)
        self.edges |= set(edges)
        return True
