"""What a worker process runs: a node, a pool, and the loop that lets them talk.

One thread does it all and waits in one place, `select`. Signals and other threads reach it by a
pipe. Claiming follows the pool's capacity, so outcomes that cannot be written yet slow claiming
down: nothing is buffered beyond what the pool holds.

Promises P17, P20 of docs/guarantees.md.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any, Literal

from pgcelery.engine.client import Client
from pgcelery.engine.config import EngineConfig
from pgcelery.engine.errors import DatabaseUnavailable, EngineError
from pgcelery.engine.failpoint import failpoint
from pgcelery.engine.fence import Fence
from pgcelery.engine.guard import Guarded
from pgcelery.engine.job import Handler, Job, Lost, Outcome, State
from pgcelery.engine.link import LinkState
from pgcelery.engine.node import Node
from pgcelery.engine.pool import ActiveJob, Cut, Doubtful, Pool, Unsure
from pgcelery.engine.relay import Step, Terms
from pgcelery.engine.statements import Row, lost, outcome_rows
from pgcelery.engine.territory import OWN
from pgcelery.engine.watch import Watch

logger = logging.getLogger(__name__)

How = Literal["warm", "cold"]
_FAREWELL_S = 10.0  # how long a stopping worker tries to record its last outcomes
_FEW_QUEUES = 16  # of which a pool process may look for jobs whenever one has ended
_STALE_S = 1.0  # jobs queued behind others for longer go back, for other workers to take


class Worker:
    """One worker. `run` in any thread; `stop` from any thread or signal handler.

    Args:
        config: Where and how.
        handler: What jobs mean.
        pool: Where they run; started and stopped by this worker.
        name: The worker's name, as others see it; need not be unique.
        queues: Names of the queues it serves, none before another.
        info: Kept in its row for those who look.
        labels: What jobs may ask for (`NewJob.placement`); ``worker`` is its name unless given.
        rates: How many jobs a second it may begin, by name; see `set_rates`.
        on_control: Called with each broadcast message and whom to answer.
        on_beat: Called after each renewal of the lease.
        client: For what is asked beside the node's own connection; closed at the end.
    """

    def __init__(
        self,
        config: EngineConfig,
        handler: Handler,
        pool: Pool,
        *,
        name: str,
        queues: Sequence[str],
        info: Mapping[str, Any] | None = None,
        labels: Mapping[str, str] | None = None,
        rates: Mapping[str, float] | None = None,
        on_control: Callable[[bytes, str | None], None] | None = None,
        on_beat: Callable[[], None] | None = None,
        client: Client | None = None,
    ) -> None:
        self.config = config
        self.name = name
        self.pool = pool
        self.ready = threading.Event()
        self.stopped = threading.Event()
        self._handler = Guarded(handler)
        self._initial_queues = list(dict.fromkeys(queues))
        self._on_control = on_control
        self._node = Node(
            config,
            name=name,
            info=dict(info or {}),
            labels=dict(labels or {}),
            claimed=self._claimed,
            recorded=self._recorded,
            late=self._handler.late,
            cancel=self._cancel,
            message=self._message,
            beaten=on_beat or (lambda: None),
            client=client,
            held=lambda: [*self._tokens.values(), *self.pool.spares()],
            free_at=lambda: self.pool.free_at(),
            room=lambda: self._want(),
            idle=lambda: min(self._want(), self.pool.size - len(self.pool.active())),
        )
        self._throttle = self._node.withholding.throttle
        self._throttle.set_rates(rates or {})
        self._tokens: dict[str, int] = {}  # job id -> token of what is in the pool, or is held
        self._fenced = Fence(config, self._handler)
        self._how: How | None = None
        self._deadline: float | None = None
        self._recalled = False
        self._swept_at = time.monotonic()
        self._calls: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._watch = Watch()
        self._wanted = 0  # of the node, in the round before
        self._allowed: Terms | None = None
        self._pool_ended = False

    # -- from any thread ------------------------------------------------------------------------

    def stop(self, how: How = "warm", *, timeout_s: float | None = None) -> None:
        """Ask it to end.

        Args:
            how: ``warm`` lets running jobs finish and gives the others back; ``cold`` kills them.
            timeout_s: Seconds after which warm becomes cold; None waits for ever.
        """
        if self._how != "cold":
            self._how = how
        if timeout_s is not None:
            self._deadline = time.monotonic() + timeout_s
        self._watch.alert()

    def call(self, function: Callable[[], None]) -> None:
        """Run a function in the worker's own thread, soon; the way to touch its pool."""
        with self._lock:
            self._calls.append(function)
        self._watch.alert()

    @property
    def queues(self) -> list[str]:
        """Names of the queues it serves."""
        return list(self._node.territory.queues) or list(self._initial_queues)

    @property
    def served_ids(self) -> list[int]:
        """Ids of its queues and of the places that it suits; for `Client.waiting`."""
        return self._node.territory.ids

    def add_queue(self, name: str) -> None:
        """Serve another queue from now on."""
        ids = self._node.client.intern([name])

        def add() -> None:
            self._node.territory.serve(ids)
            self._node.inform()
            self._node.wake()

        self.call(add)

    def cancel_queue(self, name: str) -> None:
        """Claim nothing from a queue any more; what was claimed is finished."""

        def cancel() -> None:
            self._node.territory.abandon(name)
            self._node.inform()

        self.call(cancel)

    @property
    def labels(self) -> dict[str, str]:
        """What jobs may ask for."""
        return dict(self._node.territory.labels)

    def set_labels(self, labels: Mapping[str, str | None]) -> None:
        """Change labels from now on, or take those away that are None; others stay.

        What it has claimed it finishes, whatever that asked for.
        """

        def change() -> None:
            all_of_them = {**self._node.territory.labels, **labels}
            kept = {name: value for name, value in all_of_them.items() if value is not None}
            self._node.territory.relabel({OWN: self.name, **kept})
            self._node.inform()
            self._node.wake()

        self.call(change)

    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Begin no more than so many jobs a second of these names, and any number of others.

        At once, also for what waits for the rates that it had.
        """

        def change() -> None:
            self.pool.submit(self._throttle.set_rates(rates))
            self._node.inform()

        self.call(change)

    @property
    def draining(self) -> bool:
        """Whether it claims nothing."""
        return self._node.draining

    def drain(self) -> None:
        """Claim nothing more, but live on; what runs is finished, the rest goes back."""

        def drain() -> None:
            self._node.draining = True
            self._give_back()
            self._node.inform()

        self.call(drain)

    def undrain(self) -> None:
        """Claim again."""

        def undrain() -> None:
            self._node.draining = False
            self._node.inform()
            self._node.wake()

        self.call(undrain)

    @property
    def registration(self) -> int | None:
        """Its id among the workers; another one once its lease has run out and it came back."""
        return self._node.worker_id

    def active(self) -> list[ActiveJob]:
        """List what is running."""
        return self.pool.active()

    # -- the loop -------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until stopped. Outages of the database are outlived, at the start too."""
        with suppress(EngineError):  # it is tried again, and told of, in the first round
            self._name_queues()  # before the fork, so that what a connection needs is shared
        self.pool.start(self._handler, self.config if self.config.relay else None)
        try:
            while not self._over():
                self._round()
        finally:
            self._end()

    def _over(self) -> bool:
        if self._how is None:
            return False
        now = time.monotonic()
        if self._how == "warm" and self._deadline is not None and now >= self._deadline:
            self._how = "cold"
        if self._how == "cold":
            return True
        if not self._recalled:
            self._recalled = True
            self._allow()
            self._give_back()
        if not self.pool.idle:
            return False
        self._farewell()
        return True

    def _round(self) -> None:
        tick_s = self.pool.tick()
        now = time.monotonic()
        due_s = self._fenced.due_s(self._node, self._tokens)
        timeout = min(self._node.wait_s(now, self._wanted), due_s)
        if tick_s is not None:
            timeout = min(timeout, tick_s)
        if self._how is not None and self._deadline is not None:
            timeout = min(timeout, max(0.0, self._deadline - now))
        timeout = min(timeout, self._throttle.next_in(now))
        if self._look_out(timeout):
            self._answer_calls()
        self._fence()
        self._collect()
        self._node.advance(time.monotonic())
        self._begin_held()
        if self._node.link.state is LinkState.OPEN:
            self._enter()
            self._wanted = self._want()
            self._node.converse(time.monotonic(), self._wanted, not self.pool.idle)
        self._allow()
        if self._tokens and time.monotonic() - self._swept_at >= _STALE_S:
            self._swept_at = time.monotonic()
            self._give_back(waiting_s=_STALE_S)

    def _want(self) -> int:
        if self._how is not None or self._node.draining or not self._node.territory.queues:
            return 0
        if not self._node.lease.safe(time.monotonic()):
            return 0
        return max(0, self.pool.capacity() - self._throttle.due(time.monotonic()))

    def _look_out(self, timeout_s: float) -> bool:
        self._watch.follow([] if self._pool_ended else self.pool.filenos(), self._node.link)
        return self._watch.wait(timeout_s)

    def _answer_calls(self) -> None:
        with self._lock:
            calls, self._calls = self._calls, []
        for function in calls:
            try:
                function()
            except Exception:  # a caller's mistake must not end the worker
                logger.exception("a call into the worker failed", extra={"action": "worker.call"})

    def _enter(self) -> None:
        self._name_queues()
        if self._node.ready and not (self._initial_queues or self.ready.is_set()):
            self.ready.set()

    def _name_queues(self) -> None:
        if self._initial_queues and not self._node.territory.queues:
            with suppress(DatabaseUnavailable):  # it is tried again in the next round
                self._node.territory.serve(self._node.client.intern(self._initial_queues))
                self._initial_queues = []

    def _collect(self) -> None:
        now = time.monotonic()
        for what in self.pool.collect():
            failpoint("outcome.received")
            if isinstance(what, Step):
                self._tokens.pop(what.outcome.id, None)
                self._recorded(what.outcome)
                if what.news:
                    self._node.spread(outcome_rows(what.news), satisfied=False, now=now)
                if what.job is not None:
                    self._begun([what.job])
                elif what.more:
                    self._node.wake()
                continue
            if isinstance(what, Cut):
                self._tokens.pop(what.job.id, None)
                if not self._fenced.gives_back(self._node, what):
                    self._lose(what.job, what.why, now)
                continue
            if isinstance(what, Doubtful):
                self._node.doubts.add(what.job.token, what.claim)
                self._node.inquests.open(what.job, partial(self._judge, what))
                continue
            if isinstance(what, Unsure):
                self._node.doubts.add(what.outcome.token, what.claim)
            outcome = what.outcome if isinstance(what, Unsure) else what
            self._tokens.pop(outcome.id, None)
            self._node.put(outcome, now)

    def _allow(self) -> None:
        """Say whether pool processes may claim what follows their jobs, and from which queues."""
        node = self._node
        safe = node.lease.safe(time.monotonic())
        going_on = self._how is None and not node.draining
        if going_on and node.relays and safe and not self._handler.hears_first():
            assert node.worker_id is not None
            rated, plain = self._throttle.names, node.territory.plain
            serves = node.appetite.backlog and plain and not rated
            ends = not node.appetite.backlog and len(node.territory.served) <= _FEW_QUEUES
            terms = Terms(node.worker_id, node.territory.served, rated, serves, ends)
        else:
            terms = None
        if terms != self._allowed:
            self._allowed = terms
            self.pool.allow(terms)

    def _fence(self) -> None:
        """Let go of what others may have by now, before the lease ends; see `engine.fence`.

        Called before anything is read of the database: what waits there may be of long ago.
        """
        self._fenced.look(self._node, self.pool, self._tokens)

    # -- what the node tells --------------------------------------------------------------------

    def _claimed(self, claims: list[tuple[Job, Row]], drawn: bool) -> None:
        failpoint("claim.received")
        now = time.monotonic()
        jobs = []
        for job, row in claims:
            if (why := lost(job, row)) is not None:
                self._lose(job, why, now)
            else:
                jobs.append(job)
        if jobs and self._throttle.names:
            jobs = self._sift(jobs, now, drawn=drawn)
        if jobs:
            self._begun(jobs)
            self.pool.submit(jobs)
        self._begin_held()

    def _sift(self, jobs: list[Job], now: float, *, drawn: bool) -> list[Job]:
        """Hold, or withhold, what may not begin now; give the others."""
        stopping = self._how is not None or self._node.draining
        free, held, withheld = self._throttle.sift(jobs, now, drawn=drawn, stopping=stopping)
        if held:
            self._begun(held)
            self._throttle.hold(held, now)
        self._node.withholding.put(withheld)
        return free

    def _begin_held(self) -> None:
        """Let what is held begin whose turn has come, as far as there is room for it."""
        now = time.monotonic()
        if self._throttle.due(now):
            self.pool.submit(self._throttle.begin(now, self.pool.capacity()))

    def _begun(self, jobs: list[Job]) -> None:
        """Keep in mind what is in the pool now, and tell of it."""
        self._tokens.update((job.id, job.token) for job in jobs)
        self._handler.received(jobs)

    def _judge(self, what: Doubtful, recorded: Outcome | None) -> None:
        self._tokens.pop(what.job.id, None)
        if recorded is None:
            self._lose(what.job, what.why, time.monotonic())
        else:
            self._recorded(recorded)

    def _lose(self, job: Job, why: Lost, now: float) -> None:
        self._node.put(self._handler.lost(job, why), now)

    def _recorded(self, outcome: Outcome) -> None:
        self._handler.finished(outcome)

    def _cancel(self, row: Row) -> None:
        if not row.job_id or self._tokens.get(row.job_id) != row.token:
            return
        held = self._throttle.withdraw(row.job_id)
        if held is not None:
            del self._tokens[held.id]
            self._lose(held, Lost("cancelled", "cancelled before it began"), time.monotonic())
        elif row.flags:
            self.pool.terminate(row.job_id, row.priority or 15)

    def _message(self, body: bytes, reply_to: str | None) -> None:
        if self._on_control is None:
            return
        try:
            self._on_control(body, reply_to)
        except Exception:  # a bad message must not end the worker
            logger.exception("a control message failed", extra={"action": "worker.control"})

    # -- the end --------------------------------------------------------------------------------

    def _give_back(self, *, waiting_s: float = 0.0) -> None:
        now = time.monotonic()
        held = self._throttle.recall(now - waiting_s if waiting_s else inf)
        for job in [*self.pool.recall(waiting_s=waiting_s), *held]:
            self._tokens.pop(job.id, None)
            self._node.put(Outcome(job.id, job.token, State.AVAILABLE), now)

    def _end(self) -> None:
        cold = not self.pool.idle
        if cold:
            self._give_back()
        self.pool.stop(kill=cold)
        self._pool_ended = True
        self._collect()
        if cold:
            now = time.monotonic()
            self._give_back()
            for active in self.pool.active():
                job = active.job
                if self._tokens.pop(job.id, None) is not None:
                    self._lose(job, Lost("shutdown", "the worker was shut down", active.pid), now)
        self._farewell()
        self._node.leave()
        self._drain(lambda: self._node.silent, 1.0)
        self._node.close()
        self._watch.close()
        self.stopped.set()

    def _farewell(self) -> None:
        self._collect()
        self._drain(lambda: self._node.settled and self._node.silent, _FAREWELL_S)

    def _drain(self, done: Callable[[], bool], limit_s: float) -> None:
        """Talk to the database until `done`, at most `limit_s`."""
        give_up = time.monotonic() + limit_s
        while not done() and time.monotonic() < give_up:
            self._node.converse(time.monotonic(), 0, False)
            now = time.monotonic()
            self._look_out(min(self._node.wait_s(now, 0), give_up - now, 0.2))
            self._node.advance(time.monotonic())
