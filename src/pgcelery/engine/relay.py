"""How a pool process records a completed run and claims what comes next, without its node.

A chain would otherwise go from the process to the node, to the database, and back the same way, for
each of its steps; and so would short jobs where a process holds one at a time. The process has a
connection of its own for this, and the node knows beforehand under which token it may claim: so a
claim whose answer got lost is found and given back.
"""

from __future__ import annotations

import json
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from pgcelery.engine.arrays import IntegerArray, TextArray
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.database import AWAY, OVERTAKEN, load
from pgcelery.engine.errors import DatabaseUnavailable
from pgcelery.engine.failpoint import failpoint
from pgcelery.engine.job import Job, Outcome
from pgcelery.engine.link import Link, LinkState, Param, Rows, Statement

_INT4, _INT8, _TEXT, _BYTEA, _FLOAT8 = 23, 20, 25, 17, 701
_MARGIN = 0.2  # of the lease: what must be left of it, and the most that an answer may take
_RETRY_S = (0.05, 10.0)  # first and slowest pause between attempts to connect
_REFUSED_PAUSE_S = 0.5  # after the server refused a statement

Cells = list[bytes | None]  #: of an answer's only row


class Terms(NamedTuple):
    """What a node allows its pool's processes."""

    worker_id: int
    queues: tuple[tuple[int, str], ...]  #: that it serves, by id
    barred: tuple[str, ...] = ()  #: names of what is not to be claimed
    serves: bool = False  #: it may also claim what waits for nobody, from all of these queues
    ends: bool = (
        False  #: nothing waits, so that the outcome of a short job need not wait for others
    )


class Step(NamedTuple):
    """An outcome that was recorded, and the job that was claimed with it."""

    outcome: Outcome
    job: Job | None  #: None after the last of a row
    spare: int  #: token of the next claim
    news: tuple[tuple[int, str | None, int | None, str | None], ...] = ()  #: see `Recorded`
    more: bool = False  #: jobs wait in the node's queues


class AnswerLost(Exception):  # noqa: N818 - says what happened
    """Whether anything was recorded is not known, nor whether a claim was made."""


class Relay:
    """The side of the pool process. Opens nothing before `wanted` is set; not thread-safe.

    Args:
        config: Where and how.
        reserved: Called with a new token before anything is claimed under it.
    """

    def __init__(self, config: EngineConfig, reserved: Callable[[int], None]) -> None:
        self.wanted = False  #: there are jobs for which a connection would be of use
        self._reserved = reserved
        self._spare: int | None = None
        name = f"{config.application_name} relay"  # so that an operator can tell them apart
        self._link = Link(replace(config, application_name=name))
        self._limit_s = min(config.connect_timeout_s, config.lease_s * _MARGIN)
        self._margin_s = config.lease_s * _MARGIN
        self._connect_s = config.connect_timeout_s
        self._terms: Terms | None = None
        self._queues: dict[int, str] = {}  # of these terms
        self._arrays: tuple[IntegerArray, TextArray] = IntegerArray.of([]), TextArray.of([])
        self._asked = False  # for a token
        self._not_before = 0.0  # monotonic time of the next attempt
        self._pause_s = _RETRY_S[0]
        self._answer: Rows | None = None
        self._early: Rows | None = None  # the same, before it is committed
        self._refused: str | None = None
        oids = (_INT4, _INT8, _TEXT, _BYTEA, _FLOAT8, _INT8, IntegerArray.oid, _FLOAT8)
        text = load("nodes/relay", config.schema)
        self._relay = Statement(b"relay", text, (*oids, TextArray.oid))
        self._serve = Statement(b"serve", load("nodes/serve", config.schema), oids)
        self._turn = 0
        of_end = (_INT8, _TEXT, _BYTEA, _FLOAT8, IntegerArray.oid)
        self._end = Statement(b"end", load("nodes/end", config.schema), of_end)
        self._late = Statement(b"tell_late", load("nodes/tell_late", config.schema), (_TEXT,))
        self._notify = Statement(b"tell", load("nodes/tell", config.schema), (_TEXT, _TEXT))
        self._reserve = Statement(b"reserve", load("nodes/reserve", config.schema), ())

    @property
    def ready(self) -> bool:
        """Whether `step` may be called."""
        return (
            self._spare is not None
            and self._link.state is LinkState.OPEN
            and time.monotonic() >= self._not_before
        )

    def rest(self, work: select.poll) -> None:
        """Connect if that is wanted, and watch the connection, until `work` is there.

        Args:
            work: Polls what tells that the process has something to do.
        """
        while self.wanted:
            now = time.monotonic()
            if self._link.state is LinkState.CLOSED:
                if now < self._not_before:
                    return  # next time
                self._try(self._link.open)
                self._asked = False
                self._not_before = now + self._connect_s  # by then it is connected
            elif self._asks(now):
                self._asked = True
                self._try(
                    lambda: self._link.send(self._reserve, [], self._take_spare, self._refuse)
                )
            elif not self._watch(work, now):
                return

    def _asks(self, now: float) -> bool:
        wanting = self._spare is None and not self._asked
        return wanting and self._link.state is LinkState.OPEN and now >= self._not_before

    def _watch(self, work: select.poll, now: float) -> bool:
        """Wait for the connection; False if `work` came first."""
        link = self._link
        connecting = link.state is LinkState.CONNECTING
        if connecting and now >= self._not_before:
            self._broken()
            return True
        fd = link.fileno()
        writing = select.POLLOUT if link.wants_write else 0
        # While connecting the socket is readable only when libpq waits for that.
        reading = 0 if connecting and writing else select.POLLIN
        if fd >= 0:
            work.register(fd, reading | writing)
        try:
            soon = self._not_before > now  # and then there is something to do
            ripe = dict(work.poll((self._not_before - now) * 1000 if soon else None))
        finally:
            if fd >= 0:
                work.unregister(fd)
        if any(one != fd for one in ripe):
            return False
        self._try(link.advance)
        self._leave()
        if connecting and link.state is LinkState.OPEN:
            self._not_before, self._pause_s = 0.0, _RETRY_S[0]
        return True

    def step(
        self,
        job: Job,
        outcome: Outcome,
        terms: Terms,
        prepare: Callable[[Step], None] = lambda step: None,
    ) -> Step | None:
        """Record a completed run and claim what waited for it.

        Args:
            job: The run's.
            outcome: What it came to.
            terms: What the node allows.
            prepare: Called while the database commits, with what is returned if that succeeds.

        Returns:
            None if nothing was changed: it is not a case for this, or the server refused.

        Raises:
            AnswerLost: The token that was reserved may be that of a claim now.
        """
        assert self._spare is not None
        began = time.monotonic()
        self._heed(terms)
        queue_ids, barred = self._arrays
        params: list[Param] = [
            terms.worker_id,
            job.token,
            job.id,
            outcome.result,
            outcome.ttl_s,
            self._spare,
            queue_ids,
            self._margin_s,
            barred,
        ]
        step: Step | None = None
        spare = self._spare

        def early(cells: Cells) -> None:
            nonlocal step
            if cells[0] is not None:
                self._tell(outcome, cells[7])
                step = Step(outcome, self._job(cells, spare, outcome), _int(cells[6]))
                prepare(step)

        cells = self._ask(self._relay, params, began, early)
        if cells is None or step is None:
            return None
        if time.monotonic() - began > self._limit_s:  # the lease may be over before the job begins
            self._broken()
            raise AnswerLost
        self._spare = step.spare
        return step

    def end(self, job: Job, outcome: Outcome, terms: Terms) -> Step | None:
        """Record a completed run that nobody waits for; returns and raises what `step` does."""
        assert self._spare is not None
        self._heed(terms)
        params: list[Param] = [job.token, job.id, outcome.result, outcome.ttl_s, self._arrays[0]]

        def early(cells: Cells) -> None:
            self._tell(outcome, cells[1])
            self._link.send(self._late, [job.id], _done, _done)

        cells = self._ask(self._end, params, time.monotonic(), early)
        if cells is None or cells[0] != b"\1":
            return None
        return Step(outcome, None, self._spare, more=cells[2] == b"\1")

    def serve(self, job: Job, outcome: Outcome, terms: Terms) -> Step | None:
        """Record a completed run that nobody waits for and claim the next job of the queues.

        Returns and raises what `step` does.
        """
        assert self._spare is not None
        began = time.monotonic()
        self._heed(terms)
        ids = list(self._queues)
        self._turn += 1  # each queue is asked first in its turn
        pivot = self._turn % len(ids) if ids else 0
        params: list[Param] = [
            terms.worker_id,
            job.token,
            job.id,
            outcome.result,
            outcome.ttl_s,
            self._spare,
            IntegerArray.of(ids[pivot:] + ids[:pivot]),
            self._margin_s,
        ]
        # Not looked at before the commit: to be woken once more costs what others need.
        cells = self._ask(self._serve, params, began)
        if cells is None or cells[0] is None:
            return None
        if time.monotonic() - began > self._limit_s:  # the lease may be over before the job begins
            self._broken()
            raise AnswerLost
        self._try(partial(self._tell, outcome, cells[7]))
        claimed = self._job(cells, self._spare, outcome)
        claimed = claimed._replace(fed=None, delivery=_int(cells[8]))
        self._spare = _int(cells[6])
        return Step(outcome, claimed, self._spare)

    def _heed(self, terms: Terms) -> None:
        if terms is not self._terms:
            self._terms, self._queues = terms, dict(terms.queues)
            ids = IntegerArray.of(list(self._queues))
            self._arrays = ids, TextArray.of(list(terms.barred))

    def _ask(
        self,
        statement: Statement,
        params: list[Param],
        began: float,
        early: Callable[[Cells], None] | None = None,
    ) -> Cells | None:
        """Give an answer, or None if it was refused; `early` gets it before it is committed."""
        self._answer = self._early = self._refused = None
        on_early = None if early is None else self._take_early
        try:
            self._link.send(statement, params, self._take_answer, self._refuse, on_early)
            failpoint("relay.sent")
            self._await(began + self._limit_s, early)
        except DatabaseUnavailable as exc:
            self._broken()
            raise AnswerLost from exc
        self._leave()
        return None if self._answer is None else self._answer[0]

    def _tell(self, outcome: Outcome, channels: bytes | None) -> None:
        """Tell those who wait for a result; they look by themselves should that fail.

        Called before the commit, the server runs this right after it.
        """
        if channels is not None:
            told = json.dumps([outcome.id])
            for channel in TextArray.read(channels):
                self._link.send(self._notify, [channel, told], _done, _done)

    def _await(self, deadline: float, early: Callable[[Cells], None] | None) -> None:
        link = self._link
        waiting = select.poll()
        fd = link.fileno()
        if fd < 0:
            raise DatabaseUnavailable("the connection is gone")
        waiting.register(fd, select.POLLIN | (select.POLLOUT if link.wants_write else 0))
        while self._answer is None and self._refused is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise DatabaseUnavailable("no answer in time")
            waiting.poll(left_s * 1000)
            link.advance()
            if early is not None and self._early is not None:
                cells, self._early = self._early[0], None
                early(cells)
            waiting.modify(fd, select.POLLIN | (select.POLLOUT if link.wants_write else 0))

    def _job(self, cells: Sequence[bytes | None], token: int, outcome: Outcome) -> Job:
        id, queue_id, name, payload, priority, flags = cells[:6]
        return Job(
            (id or b"").decode(),
            token,
            self._queues.get(_int(queue_id), ""),
            (name or b"").decode(),
            payload or b"",
            _int(priority),
            1,
            fed=(outcome.id, int(outcome.state), outcome.result),
            awaited=bool(_int(flags) & 1),
        )

    def _take_early(self, rows: Rows) -> None:
        self._early = rows

    def _take_answer(self, rows: Rows) -> None:
        self._answer = rows

    def _take_spare(self, rows: Rows) -> None:
        self._spare = _int(rows[0][0])
        self._reserved(self._spare)

    def _refuse(self, state: str, text: str) -> None:
        self._refused = state
        if state not in OVERTAKEN:  # another transaction was quicker: no reason to pause
            self._asked = False
            self._not_before = time.monotonic() + _REFUSED_PAUSE_S

    def _leave(self) -> None:
        """Close a connection to a server that is not the one to talk to."""
        if self._refused is not None and self._refused.startswith(AWAY):
            self._refused = None
            self._broken()

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except DatabaseUnavailable:
            self._broken()

    def _broken(self) -> None:
        """Close; connect again later, maybe to a server that was restored and gives tokens anew."""
        self._link.close()
        self._spare = None
        self._not_before = time.monotonic() + self._pause_s
        self._pause_s = min(self._pause_s * 2, _RETRY_S[1])

    def close(self) -> None:
        """Close the connection."""
        self.wanted = False
        self._link.close()


def _done(*answer: object) -> None:
    """Need no answer."""


def _int(cell: bytes | None) -> int:
    return int.from_bytes(cell or b"", "big", signed=True)
