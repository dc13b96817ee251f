"""One fault against a server, workers and a load of its own; then the history is checked."""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from pgcelery.compat.message import decode
from tests.faults.suite import oracle
from tests.faults.suite.fleet import Fleet, Worker
from tests.faults.suite.history import (
    History,
    Recorded,
    Row,
    Strike,
    Verdict,
    affected_until,
    check,
)
from tests.faults.suite.load import MIX, Load
from tests.faults.suite.proxy import Network
from tests.faults.suite.server import Server
from tests.support.wait import wait_for

HEARTBEAT_S, MAINTAIN_S = 0.5, 0.5
USER = "postgresql://pgcelery"
STATES = {10: "SUCCESS", 11: "FAILURE", 12: "REVOKED"}
MOVING = ("nodes", "edges", "ready", "running", "scheduled", "gated", "cancels")


@dataclass(frozen=True)
class Fault:
    """One row of the table: what is done, and what that may cost.

    Attributes:
        number: As in the matrix of docs/faults.md.
        inject: Does it; called once the load has run for `calm_s`.
        lease_s: Of the workers.
        slack_s: To recover in, beyond lease and upkeep: for waiting tasks to have their turn.
        direct: Workers and sender use the server's socket, not links of the proxy.
        mix: Kinds of sends, one after the other.
        transport: Options of the engine, for workers and sender.
        settings: More settings of the application.
        senders: Threads that send.
        idle: Nothing is sent but by the fault itself.
        known: By promise, why it is known to be broken. A strict list, but for reasons that begin
            with "sometimes".
        needs: Gives the reason why it cannot be run here, if there is one.
    """

    number: str
    title: str
    inject: Callable[[Ground], None]
    lease_s: float = 6.0
    slack_s: float = 5.0
    workers: int = 2
    slots: int = 3
    args: tuple[str, ...] = ()
    mix: Sequence[str] = MIX
    rate: float = 12.0
    idle: bool = False
    calm_s: float = 1.5
    quick: bool = False
    direct: bool = False
    transport: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    senders: int = 1
    known: Mapping[str, str] = field(default_factory=dict)
    needs: Callable[[], str | None] = lambda: None


class Ground:
    """What a fault can lay hands on."""

    def __init__(self, fault: Fault, folder: Path, quick: bool) -> None:
        self.fault, self.folder, self.quick = fault, folder, quick
        self.strikes: list[Strike] = []
        self.notes: list[str] = []  #: for the table: what was measured
        self.bad: list[tuple[str, str]] = []  #: promise and what is wrong, seen by the fault itself
        self.healed_at = time.monotonic()
        self.left_over: dict[str, int] = {}  #: what did not end
        self._finished = False
        #: A time that never was, since a backup was restored: what was sent or run then is gone.
        self.forgotten = (float("inf"), 0.0)
        self.server = Server()
        self.server.migrate()
        self.network = Network()
        self.oracle = folder / "oracle.jsonl"
        self.oracle.touch()
        self._app_env()
        self.fleet = Fleet(folder, self._env, ["-c", str(fault.slots), *fault.args])
        self.load = Load(fault.mix, fault.rate, senders=fault.senders)

    def _app_env(self) -> None:
        timing = {
            "lease_s": self.fault.lease_s, "heartbeat_s": HEARTBEAT_S, "maintain_s": MAINTAIN_S
        }  # fmt: skip
        settings = {"broker_transport_options": {**timing, **self.fault.transport}}
        settings.update(self.fault.settings)
        self._env = {
            "FAULTS_ORACLE": str(self.oracle),
            "FAULTS_SETTINGS": json.dumps(settings),
            "FAULTS_DSN": self.dsn("sender"),
        }
        os.environ.update(self._env)

    def dsn(self, link: str) -> str:
        """Give the address of the server by a link of that name."""
        if self.fault.direct:
            return self.server.dsn
        if link not in self.network.links:
            self.network.link(link, self.server.socket)
        return self.network.links[link].dsn(USER)

    # -- what faults use ------------------------------------------------------------------------

    def start_worker(self, name: str = "", wait: bool = True, **options: Any) -> Worker:
        link = f"worker{len(self.fleet.workers) + 1}"
        options.setdefault("dsn", self.dsn(link))
        worker = self.fleet.start(name, link=link, **options)
        if wait:
            self.fleet.ready(worker)
        return worker

    def link_of(self, worker: Worker) -> Any:
        return self.network.links[worker.link]

    @contextmanager
    def strike(
        self, kind: str, workers: Collection[Worker] = (), pids: Collection[int] = (), **how: Any
    ) -> Iterator[None]:
        """Note who is hit while the block runs."""
        began = time.monotonic()
        groups = frozenset(worker.pid for worker in workers)
        try:
            yield
        finally:
            self.healed_at = time.monotonic()
            self.strikes.append(Strike(kind, began, self.healed_at, frozenset(pids), groups, **how))

    def rest(self, seconds: float) -> None:
        """Let the load run on."""
        threading.Event().wait(seconds)

    def times(self, many: int) -> int:
        """Give how often to do something: less of it in a quick run."""
        return max(2, many // 3) if self.quick else many

    def wrong(self, promise: str, text: str) -> None:
        self.bad.append((promise, text))

    def say(self, text: str) -> None:
        self.notes.append(text)

    def send_by(self, dsn: str) -> None:
        """Let the sender reach the server by another address from now on."""
        os.environ["FAULTS_DSN"] = dsn
        self.load.tasks.app.close()
        self.load = Load(self.fault.mix, self.fault.rate)

    # -- the end --------------------------------------------------------------------------------

    def finish(self) -> None:
        """End the load and wait for all that is to come of it. Does nothing the second time."""
        if self._finished:
            return
        self._finished = True
        self.load.stop()
        for _ in range(4):  # it still works
            self.load.send("quick")
        try:
            wait_for(lambda: not self.left(), self.fault.lease_s * 2 + 20)
        except AssertionError:
            self.left_over = self.left()

    def left(self) -> dict[str, int]:
        """What has not ended; empty hot tables, and no task without an end."""
        counts = " union all ".join(
            f"select '{name}', count(*) from pgcelery.{name}"  # noqa: S608 - names from above
            for name in MOVING
        )
        with suppress(psycopg.OperationalError):
            return {name: many for name, many in self.server.execute(counts) if many}
        return {"server": 1}

    def history(self) -> History:
        offset = time.time() - time.monotonic()
        recorded = [
            Recorded(id, token, at.timestamp() - offset)
            for id, token, at in self.server.execute(
                "select id, token, at from audit.ended order by at"
            )
        ]
        since, until = self.forgotten
        sends = [
            s._replace(acked=None) if s.acked and since - 1 < s.acked < until else s
            for s in self.load.sends
        ]
        return History(
            sends,
            [run for run in oracle.runs(self.oracle) if not since < run.begun < until],
            recorded,
            self.rows(),
            self.strikes,
            dict(self.fleet.deaths),
        )

    def rows(self) -> list[Row]:
        return [
            row_of(id, bytes(payload), state, result)
            for id, payload, state, result in self.server.execute(
                "select j.id, j.payload, r.state, r.result from pgcelery.jobs j"
                " left join pgcelery.results r on r.id = j.id and r.finished_at is not null"
            )
        ]

    def close(self) -> None:
        self.load.stop()
        self.fleet.close()
        self.load.tasks.app.close()
        self.network.close()
        self.server.close()


def row_of(id: str, payload: bytes, state: int | None, result: Any) -> Row:
    args, kwargs, _ = json.loads(decode(payload).body)
    tag = kwargs["tag"] if "tag" in kwargs else args[1]
    value, error = None, ""
    if state is not None and result is not None:
        value = json.loads(bytes(result))["result"]
        error = value["exc_type"] if state != 10 and isinstance(value, dict) else ""
    return Row(id, tag, None if state is None else STATES[state], value, error)


def run(fault: Fault, folder: Path, *, quick: bool) -> dict[str, Any]:
    """Try one fault; what the table and the JSON say of it."""
    began = time.monotonic()
    if reason := fault.needs():
        return {"number": fault.number, "title": fault.title, "skipped": reason}
    ground = Ground(fault, folder, quick)
    try:
        ended = _go_through(ground)
        history = ground.history()
        verdict = check(history)
        for promise, text in ground.bad:
            verdict.blame(promise, text)
        recovered_s = _recovery(ground, history, verdict)
    finally:
        ground.close()
    if not ended:
        verdict.blame("P5", f"not at its end: {ground.left_over}")
    known = _without_known(fault, verdict)
    return {
        "number": fault.number,
        "title": fault.title,
        "tasks": verdict.tasks,
        "lost": verdict.lost,
        "twice": verdict.twice,
        "extra": dict(verdict.extra),
        "recovered_s": round(recovered_s, 2),
        "raised": ground.load.raised,
        "slowest_call_s": round(ground.load.slowest_s, 2),
        "notes": ground.notes,
        "known": known,
        "violations": [f"{promise}: {text}" for promise, text in verdict.violations],
        "seconds": round(time.monotonic() - began, 1),
    }


def _go_through(ground: Ground) -> bool:
    """Load, fault, end of the load, and all that is to come; whether everything ended."""
    fault = ground.fault
    workers = [ground.start_worker(wait=False) for _ in range(fault.workers)]
    ground.fleet.ready(*workers)
    if not fault.idle:
        ground.load.start()
    ground.rest(fault.calm_s)
    ground.healed_at = time.monotonic()
    fault.inject(ground)
    ground.rest(1.0)
    ground.finish()
    for name in ground.fleet.fallen():
        ground.wrong("P21", f"{name} is no longer alive")
    for text in ground.fleet.stop():
        ground.wrong("P20", text)
    for pid in ground.fleet.orphans():
        ground.wrong("P21", f"process {pid} outlives its worker")
    return not ground.left_over


def _recovery(ground: Ground, history: History, verdict: Verdict) -> float:
    """Check how long it took from the end of the fault until what was there had ended."""
    acked = {s.number for s in history.sends if s.acked and s.acked < ground.healed_at}
    tags = {tag for s in history.sends if s.number in acked for tag in s.calls}
    ids = [row.id for row in history.rows if row.tag in tags]
    recovered_s = affected_until(history, ground.healed_at, ids)
    fault = ground.fault
    limit_s = fault.lease_s + MAINTAIN_S + fault.slack_s
    if recovered_s > limit_s:
        verdict.blame("recovery", f"took {recovered_s:.1f} s, more than {limit_s:g}")
    return recovered_s


def _without_known(fault: Fault, verdict: Verdict) -> list[str]:
    """Put aside what is known to be broken, and name it; that it is not any more is wrong too."""
    found = Counter(one.promise for one in verdict.violations)
    verdict.violations = [one for one in verdict.violations if one.promise not in fault.known]
    for promise, reason in fault.known.items():
        if not found[promise] and not reason.startswith("sometimes"):
            verdict.blame(promise, "is on the list of known failures, and is kept: take it off")
    return [f"{one}: {reason}" for one, reason in fault.known.items() if found[one]]
