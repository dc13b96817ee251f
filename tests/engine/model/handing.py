"""The engine as it should be: what idle nodes offer to run, and how they are handed it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from pgcelery.engine.columns import is_plain
from tests.engine.model.plans import MOST_TOLD, Claim, Plan, Sent
from tests.engine.model.tables import (
    AWAITED,
    BAD,
    CANCELLED,
    EXPIRED,
    LOST,
    Offer,
    Place,
    Seen,
    Tables,
    demand,
)


class Handing(Tables):
    """Offers, and what both ways to a run have in common."""

    def offer(
        self,
        me: int,
        channel: str,
        queues: Collection[str],
        many: int,
        lives: int,
        paused: bool,
        said: Collection[tuple[int, str]],
        seen: Seen | None,
    ) -> list[tuple[int, str]]:
        """Renew what a node offers and offer more; gives all that, and is told the tokens."""
        lease = self.workers.get(me)
        until = self.now if lease is None else min(lease, self.now + lives)
        renewed = [
            (token, offer.queue)
            for token, offer in self.offers.items()
            if offer.worker == me and offer.queue in queues
        ]
        if seen is not None:  # but for those that somebody was just taking
            renewed = [one for one in renewed if one in said]
        for token, _ in renewed:
            self.offers[token] = self.offers[token]._replace(until=until)
        for token, offer in list(self.offers.items()):
            if offer.until <= self.now and offer.queue in queues:
                same_moment = lease is None and (token, offer.queue) in renewed
                if not same_moment and not (seen and token in seen.offers):
                    del self.offers[token]
        more = [one for one in said if one not in renewed]
        for token, queue in more:
            demand(token not in self.offers, f"{token} was offered before")
            self.offers[token] = Offer(queue, me, channel, until)
        each = 0 if paused or lease is None else many
        new = sorted(queue for _, queue in more)
        demand(new == sorted([*queues] * each), f"offers {new}, not {each} of {queues}")
        return renewed + more

    def withdraw(self, me: int, seen: Seen | None) -> None:
        """Take back what a node offers, but for what somebody is just taking."""
        for token, offer in list(self.offers.items()):
            if offer.worker == me and not (seen and token in seen.offers):
                del self.offers[token]

    def send(self, plans: Sequence[Plan], seen: Seen | None, *, paused: bool = False) -> Sent:
        """Insert jobs as a client does, and hand one to a node that offers to run it."""
        known = {plan.id for plan in plans} & self.jobs.keys()
        existing = self.enqueue(plans)
        roots = [plan for plan in plans if not plan.parents]
        plain = len(plans) == 1 and is_plain(plans[0].job())
        if existing or len(roots) != 1 or (plain and known):
            return Sent(existing, None)
        return Sent(existing, self._hand(roots[0], seen, paused))

    def _hand(self, plan: Plan, seen: Seen | None, paused: bool) -> int | None:
        """Give the token; which it is, or whether any, others decide who were just at offers."""
        id, queue = plan.id, plan.queue
        offers = [t for t, o in self.offers.items() if o.queue == queue and o.until > self.now]
        waiting = self._waiting(queue)
        if seen is not None:  # what had not been committed did not wait yet
            waiting = [one for one in waiting if one == id or one in seen.ready]
        expires = self.jobs[id].expires
        fresh = expires is None or expires > self.now
        short = len(plan.payload.encode()) < MOST_TOLD
        if not (offers and waiting[:1] == [id] and fresh and short) or paused or id in self.cancels:
            return None
        taken = max(offers)
        if seen is not None:
            gone = [one for one in offers if one not in seen.offers]
            demand(len(gone) < 2, f"took {gone}")
            if not gone:
                return None  # others had them locked, or what they took seemed to wait
            (taken,) = gone
        offer = self.offers.pop(taken)
        if offer.channel not in self.ears:
            return None
        claim = self._start(offer.worker, id, self.places[id], taken, 1, None)
        self.told.append((offer.channel, claim))
        return taken

    # -- runs -------------------------------------------------------------------------------------

    def _start(self, me: int, id: str, place: Place, token: int, delivery: int, fed_by: str | None):
        job = self.jobs[id]
        flags = job.awaited * AWAITED | place.bad * BAD | place.lost * LOST
        self.places[id] = Place("running", delivery, place.bad, token, me, place.lost)
        flags |= CANCELLED if id in self.cancels else 0
        flags |= EXPIRED if job.expires is not None and job.expires <= self.now else 0
        plan = job.plan
        return Claim(id, token, plan.queue, plan.payload, plan.priority, delivery, flags, fed_by)

    def _in_turn(self, ids: Iterable[str]) -> list[str]:
        return sorted(ids, key=lambda id: (self.jobs[id].plan.priority, self.jobs[id].seq))

    def _at(self, table: str) -> list[str]:
        return [id for id, place in self.places.items() if place.table == table]

    def _queue(self, id: str) -> str:
        return self.jobs[id].plan.queue

    def _waiting(self, queue: str) -> list[str]:
        return self._in_turn(id for id in self._at("ready") if self._queue(id) == queue)
