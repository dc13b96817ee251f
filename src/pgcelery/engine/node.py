"""The conversation of one worker with the database: lease, claims, outcomes, messages.

A node owns the `Link` and says what it wants; whoever drives it (`pgcelery.engine.worker`) gives
it outcomes and capacity, and gets jobs. It never waits. After a lost connection it sends again what
was not answered for: tokens make that safe.
"""

from __future__ import annotations

import json
import os
import random
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from math import inf
from typing import Any

from pgcelery.engine import notices
from pgcelery.engine.appetite import Appetite
from pgcelery.engine.arrays import BigintArray, TextArray
from pgcelery.engine.client import Client
from pgcelery.engine.columns import QueueKey
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.ears import packed
from pgcelery.engine.errors import DatabaseUnavailable, EngineError
from pgcelery.engine.failpoint import failpoint
from pgcelery.engine.inquests import Inquests
from pgcelery.engine.job import Job, Outcome, State
from pgcelery.engine.lease import Lease
from pgcelery.engine.link import LinkState, Param, Rows
from pgcelery.engine.offers import Offers
from pgcelery.engine.outbox import Doubts, Tray, again_params, ended_params
from pgcelery.engine.session import Session
from pgcelery.engine.statements import (
    Kind,
    Row,
    beat_row,
    job,
    outcome_row,
    statements,
    upkeep_row,
    wide_row,
)
from pgcelery.engine.territory import OWN, Territory
from pgcelery.engine.withholding import Withholding

_LINGER_S = 0.002  # outcomes wait this long for company while other jobs run
_LEAST_PRUNED = 50  # results deleted in one round of upkeep, when more take too long
_CANCELLED = "57014"
_ISOLATE = ("21", "22", "23", "54", "P0")  # SQLSTATE classes that blame the data, not the moment


class Node(Session):
    """One registered worker. Used from one thread."""

    def __init__(
        self,
        config: EngineConfig,
        *,
        name: str,
        info: Mapping[str, Any],
        labels: Mapping[str, str],
        claimed: Callable[[list[tuple[Job, Row]], bool], None],
        recorded: Callable[[Outcome], None],
        late: Callable[[Outcome, str], None],
        cancel: Callable[[Row], None],
        message: Callable[[bytes, str | None], None],
        beaten: Callable[[], None],
        held: Callable[[], Iterable[int]],
        client: Client | None = None,
        free_at: Callable[[], float] = lambda: inf,
        room: Callable[[], int] = lambda: 0,
        idle: Callable[[], int] = lambda: 0,
    ) -> None:
        super().__init__(config)
        self.name = name
        self.info = info
        self.draining = False
        self.client = client or Client(config)
        self.worker_id: int | None = None
        self.territory = Territory({OWN: name, **labels}, config.placement_grace_s)
        self._claimed = claimed
        self._recorded = recorded
        self._late = late
        self._cancel = cancel
        self._message = message
        self._beat_heard = beaten
        self._held = held  # tokens of runs in the pool
        self._sql = statements(config.schema)
        self.ended = Tray()
        self.again = Tray()
        self.doubts = Doubts()
        self.inquests = Inquests(self._sql, self._send, self._flying, self.doubts)
        self.withholding = Withholding(
            self.territory,
            self._sql,
            self._send,
            self._flying,
            lambda claims: self._take(claims, drawn=True),
            lambda place: self._woken(place, False, time.monotonic()),
        )
        self.offers = Offers(
            config, self.territory, self._sql, self._send, self._flying, room, idle
        )
        self._turn = 0
        self._errand = False  # something is to be ended that needs no room
        now = time.monotonic()
        self.appetite = Appetite(config, now, free_at)
        self._beat_at = self._maintain_at = now
        self.lease = Lease(config.lease_s, now)
        self._prune_batch = config.prune_batch
        self._told_at: dict[int, float] = {}
        self._left = False

    # -- connection -----------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether it is connected and registered."""
        return self.link.state is LinkState.OPEN and self.worker_id is not None

    def _heard(self, channel: str, payload: str) -> None:
        handed = self.offers.heard(channel, payload)
        if handed is not None:
            self._handed(handed)
        elif payload == "c":
            self._beat_at = 0.0
        elif payload == "p":
            self.territory.doubt()
        elif payload[:1] == "q" and self.territory.heard(int(payload[1:])):
            self.wake()

    def _disconnected(self, now: float) -> None:
        self.ended.take_back(now)
        self.again.take_back(now)
        if "maintain" in self._flying:
            self._prune_batch = max(_LEAST_PRUNED, self._prune_batch // 4)

    def _connected(self, now: float) -> None:
        if self.config.listen:  # else a pooler would keep it for others
            self._send("limit", self._sql.limit, [str(round(self._statement_s * 1000))])
            self._send("listen", self._sql.listen, [])
            self._outlive(self._sql.outlive)
            self.offers.connected()
        if self.worker_id is not None:
            notices.connected()
            self._reclaim([*self._held(), *self.doubts.tokens()])
        self._beat_at = now
        self.wake()

    def _reclaim(self, held: list[int]) -> None:
        """Give back what was claimed for this worker and is neither held nor has ended."""
        known = BigintArray.of([*held, *self.ended.tokens(), *self.again.tokens()])
        params: list[Param] = [self.worker_id, known]
        self._send("reclaim", self._sql.reclaim, params, on_refused=self._begin_anew)

    def register(self) -> None:
        """Enter this worker into the table of workers; its lease starts."""
        if "register" in self._flying or self.link.state is not LinkState.OPEN:
            return
        params: list[Param] = [
            self.name,
            socket.gethostname(),
            os.getpid(),
            *self._story(),
            float(self.config.lease_s),
        ]
        self.lease.asked(time.monotonic())
        self._send("register", self._sql.register, params, self._registered)

    def _story(self) -> list[Param]:
        told = {**self.info, "labels": self.territory.labels, "draining": self.draining}
        told["rates"] = self.withholding.throttle.rates
        return [TextArray.of(list(self.territory.queues)), json.dumps(told, default=str)]

    def inform(self) -> None:
        """Let those who look see queues, labels and draining as they are now."""
        if self.worker_id is not None:  # else it is going to register
            self._send("inform", self._sql.inform, [self.worker_id, *self._story()])

    def _registered(self, rows: Rows) -> None:
        failpoint("register.answered")
        self.worker_id = int.from_bytes(rows[0][0] or b"", "big")
        self._renewed()
        self.wake()

    def _renewed(self) -> None:
        self.lease.renewed()
        self._well()

    # -- what to send ---------------------------------------------------------------------------

    def wake(self) -> None:
        """Ask for work as soon as there is room."""
        self.appetite.wake()

    def put(self, outcome: Outcome, now: float) -> None:
        """Take an outcome; it is recorded soon."""
        ends = outcome.state.final or outcome.state is State.WAITING
        tray = self.ended if ends else self.again
        tray.add(outcome, now)

    @property
    def relays(self) -> bool:
        """Whether pool processes may claim for it: nothing of theirs is being reclaimed."""
        return self.ready and "reclaim" not in self._flying and not self._left

    @property
    def settled(self) -> bool:
        """Whether every outcome was answered for."""
        return self.ended.empty and self.again.empty and self.doubts.empty and self.inquests.empty

    def converse(self, now: float, want: int, busy: bool) -> None:
        """Send what is due: beats, upkeep, outcomes, and a wish for up to `want` jobs.

        Args:
            now: Monotonic time.
            want: Room for jobs; 0 asks for none.
            busy: Other jobs are running, so that outcomes may wait a moment for company.
        """
        if self.link.state is not LinkState.OPEN or self._left:
            return
        if self.worker_id is None:
            self.register()
            return
        if now >= self._beat_at and "beat" not in self._flying:
            self._beat_at = now + self.config.heartbeat_s
            self.lease.asked(time.monotonic())
            params = [self.worker_id, float(self.config.lease_s)]
            self._send("beat", self._sql.beat, params, self._beaten)
            failpoint("beat.sent")
            self.territory.hope()
            self.offers.beat()
            self._survey(beat=True)
        elif self.territory.unsure and now >= self._quiet_until:
            self._survey(beat=False)
        if now < self._quiet_until:
            return
        if now >= self._maintain_at and "maintain" not in self._flying:
            self._maintain_at = now + self.config.maintain_s * random.uniform(0.8, 1.2)
            params = [self.worker_id, float(self.config.maintain_s * 3), self._prune_batch]
            sql = self._sql.maintain
            self._send("maintain", sql, params, self._maintained, self._not_maintained)
            failpoint("maintain.sent")
        self.inquests.ask()
        if self.again.waiting:
            self._reschedule()
        if self.doubts.settled:
            self._unclaim()
        self.withholding.withhold()
        self._step(now, min(want, self.config.max_batch), busy)
        if not self._flying & {"step", "reclaim"}:
            calm = self.appetite.next(now) > now
            self.offers.look(self.worker_id, free=not self.withholding.throttle.names, calm=calm)

    def _survey(self, *, beat: bool) -> None:
        if "places" not in self._flying and self.territory.queues:
            params = self.territory.question(beat=beat)
            self._send(
                "places", self._sql.places, params, self._surveyed, lambda _: self.territory.doubt()
            )

    def _surveyed(self, rows: Rows) -> None:
        if self.territory.learn(rows):
            self.wake()

    def _reschedule(self) -> None:
        if self.link.state is not LinkState.OPEN or "reschedule" in self._flying:
            return
        batch = self.again.take(self.config.max_batch)
        params = self._built(again_params, batch, self.again)
        if params is not None:
            self._send(
                "reschedule",
                self._sql.reschedule,
                [self.worker_id, *params],
                self._rescheduled,
                lambda state: self._refused(self.again, state),
            )
            failpoint("reschedule.sent")

    def _unclaim(self) -> None:
        if "unclaim" in self._flying:
            return
        claims = self.doubts.settled.copy()

        def gone(rows: Rows) -> None:
            self.doubts.settled -= claims
            self.wake()

        self._send("unclaim", self._sql.unclaim, [BigintArray.of(sorted(claims))], gone)

    def _step(self, now: float, want: int, busy: bool) -> None:
        if not self.ready or self._flying & {"step", "draw"}:
            return
        assert self.worker_id is not None
        want -= self.withholding.draw(self.worker_id, now, want)
        tray = self.ended
        flush = bool(tray.waiting) and (
            not busy
            or len(tray.waiting) >= self.config.max_batch // 4
            or now - (tray.since or now) >= _LINGER_S
        )
        if not flush and not self._errand and not (want > 0 and self.appetite.next(now) <= now):
            return
        if not self._errand and self.appetite.held_until(now, want) > now:
            return
        params = self._built(ended_params, tray.take(self.config.max_batch), tray)
        if params is None:
            return
        self.appetite.ask(now, want)
        self._errand = False
        self._turn += 1  # each queue is asked first in its turn
        self._send(
            "step",
            self._sql.step,
            [
                self.worker_id,
                want,
                *self.territory.params(self._turn),
                float(self.config.patience_s),
                *params,
            ],
            self._stepped,
            lambda state: self._refused(tray, state),
        )
        failpoint("step.sent")

    def _built(
        self,
        build: Callable[[list[Outcome], Callable[[QueueKey], int]], list[Any]],
        batch: list[Outcome],
        tray: Tray,
    ) -> list[Any] | None:
        try:
            return build(batch, lambda key: self.client.intern_places([key])[key])
        except DatabaseUnavailable:
            tray.take_back(time.monotonic())
        except EngineError:
            notices.unfit()
            tray.isolate(time.monotonic())
        return None

    def _refused(self, tray: Tray, state: str) -> None:
        now = time.monotonic()
        if state[:2] in _ISOLATE:
            tray.isolate(now)
        else:
            tray.take_back(now)

    def wait_s(self, now: float, want: int) -> float:
        """Seconds until something here is due, when nothing arrives before."""
        if self.link.state is LinkState.CLOSED:
            return max(0.0, self._reconnect_at - now)
        if not self.ready:
            return 1.0
        due = [self._beat_at, self._maintain_at, self._overdue_at() or inf]
        if not self._flying & {"step", "draw"}:
            if self.ended.waiting:
                due.append((self.ended.since or now) + _LINGER_S)
            if want > 0:
                due += [self.appetite.due(now, want), self.withholding.throttle.draw_at(now)]
        return max(0.0, max(min(due), self._quiet_until) - now)

    def _not_maintained(self, state: str) -> None:
        if state == _CANCELLED:  # by the time allowed: a smaller bite, then
            self._prune_batch = max(_LEAST_PRUNED, self._prune_batch // 4)

    # -- answers --------------------------------------------------------------------------------

    def _stepped(self, rows: Rows) -> None:
        failpoint("step.answered")
        now = time.monotonic()
        decoded = [wide_row(cells) for cells in rows]
        ended = self.ended.answered()
        claims = [row for row in decoded if row.kind is Kind.CLAIM]
        claims.sort(key=lambda row: row.token or 0)
        news = [row for row in decoded if row.kind is not Kind.CLAIM]
        self._account(ended, news)
        due_ms = [row.token or 0 for row in news if row.kind is Kind.NEXT_DUE]
        self.appetite.fed(now, len(claims), due_ms)
        self.spread(news, satisfied=len(claims) < self.appetite.asked, now=now)
        if claims:
            outcomes = {outcome.id: outcome for outcome in ended}
            self._take(claims, outcomes)

    def _take(
        self, claims: list[Row], ended: Mapping[str, Outcome] | None = None, *, drawn: bool = False
    ) -> None:
        name_of = self.territory.name_of
        self._claimed([(job(row, name_of(row.queue_id or 0), ended), row) for row in claims], drawn)

    def _handed(self, row: Row) -> None:
        """Take a job that was claimed for this node by who sent it, or give it back at once."""
        failpoint("handed.heard")
        if self.offers.room() > 0:
            self._take([row])
        else:
            back = Outcome(row.job_id or "", row.token or 0, State.AVAILABLE)
            self.put(back, time.monotonic())

    def _rescheduled(self, rows: Rows) -> None:
        failpoint("reschedule.answered")
        decoded = [outcome_row(cells) for cells in rows]
        self._account(self.again.answered(), decoded)
        self.spread(decoded, satisfied=False, now=time.monotonic())
        self.appetite.expect(time.monotonic())  # a retry may be due before what was known

    def _account(self, outcomes: list[Outcome], rows: list[Row]) -> None:
        late = {row.job_id: row.name or "" for row in rows if row.kind is Kind.LATE}
        for outcome in outcomes:
            self.doubts.settle(outcome.token)
            if outcome.id in late:
                notices.late(outcome, late[outcome.id])
                self._late(outcome, late[outcome.id])
            else:
                self._recorded(outcome)

    def spread(self, rows: list[Row], *, satisfied: bool, now: float) -> None:
        """Tell others: clients that wait for a result, workers of queues that got work."""
        waiters: dict[str, list[str]] = defaultdict(list)
        for row in rows:
            if row.kind is Kind.WAITER and row.name and row.job_id:
                waiters[row.name].append(row.job_id)
            elif row.kind is Kind.QUEUE_WOKEN and row.queue_id is not None:
                self._woken(row.queue_id, satisfied, now)
            elif row.kind is Kind.RUNS_STRUCK:
                self._tell(self.config.schema, "c")
            elif row.kind is Kind.UNKNOWN_WORKER:
                self._unknown()
        for channel, ids in waiters.items():
            for payload in packed(ids):
                self._tell(channel, payload)

    def _woken(self, queue_id: int, satisfied: bool, now: float) -> None:
        if queue_id == 0:
            self._errand = True
            return
        if self.territory.heard(queue_id):
            self.wake()
            if satisfied:
                return
        if now - self._told_at.get(queue_id, 0.0) >= self.config.poll_min_s / 2:
            self._told_at[queue_id] = now
            self._tell(self.config.schema, f"q{queue_id}")

    def _tell(self, channel: str, payload: str) -> None:
        if self.link.state is LinkState.OPEN:
            self._send("tell", self._sql.tell, [channel, payload])

    def _beaten(self, rows: Rows) -> None:
        failpoint("beat.answered")
        decoded = [beat_row(cells) for cells in rows]
        if not any(row.kind is Kind.UNKNOWN_WORKER for row in decoded):
            self._renewed()
        self._beat_heard()
        for row in decoded:
            if row.kind is Kind.CANCEL:
                self._cancel(row)
            elif row.kind is Kind.MESSAGE and row.payload is not None:
                self._message(row.payload, row.name)
        self.spread(decoded, satisfied=False, now=time.monotonic())

    def _maintained(self, rows: Rows) -> None:
        failpoint("maintain.answered")
        self._prune_batch = min(self.config.prune_batch, self._prune_batch * 2)
        decoded = [upkeep_row(cells) for cells in rows]
        claims = [row for row in decoded if row.kind is Kind.CLAIM]
        for row in decoded:
            if row.kind is Kind.UPKEEP and (row.priority or row.delivery):
                notices.reaped(row)
        self.spread(decoded, satisfied=False, now=time.monotonic())
        if claims:
            self._take(claims)

    def _unknown(self) -> None:
        notices.expired()
        if self.worker_id is not None:
            self.offers.withdraw(self.worker_id)
        self.worker_id = None
        self.lease.bury()

    def leave(self) -> None:
        """Strike this worker off; for when nothing of it runs any more."""
        if self.ready and self.worker_id is not None:
            self._reclaim([])  # what a killed pool process may have claimed, or was handed over now
            self._send("leave", self._sql.leave, [self.worker_id])
            self._left = True

    @property
    def silent(self) -> bool:
        """Whether no answer is outstanding."""
        return not self._flying

    def close(self) -> None:
        """Drop the connections."""
        self.link.close()
        self.client.close()
