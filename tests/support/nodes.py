"""Nodes without processes: the statements of real ones, one at a time on plain connections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg

from pgcelery.engine import Client, Job, Outcome, State, arrays
from pgcelery.engine.arrays import BigintArray
from pgcelery.engine.database import load
from pgcelery.engine.outbox import again_params, ended_params
from pgcelery.engine.territory import OWN, Territory

ENDED_AT_ONCE = 8 | 16 | 2048 | 4096  #: cancelled, expired, no slot, replaced: never run


class Claim(NamedTuple):
    """A row of kind 0."""

    job_id: str
    token: int
    flags: int
    priority: int
    delivery: int

    @property
    def struck(self) -> bool:
        """Whether it has to be ended without running."""
        return bool(self.flags & ENDED_AT_ONCE)


class Answer(NamedTuple):
    """What a step came back with."""

    claims: list[Claim]
    late: list[str]  #: ids whose outcomes were refused
    due_ms: int | None  #: kind 4: when there is more
    woken: list[int]


def connect(dsn: str) -> psycopg.Connection[Any]:
    """Open a connection that takes the engine's arrays, in autocommit."""
    conn = psycopg.connect(dsn, autocommit=True)
    arrays.register(conn.adapters)
    return conn


def call(conn: psycopg.Connection[Any], statement: str, params: Sequence[Any]) -> list[tuple]:
    """Run a node's statement."""
    cursor = psycopg.RawCursor(conn)
    return cursor.execute(load(f"nodes/{statement}", "pgcelery"), list(params)).fetchall()


class SimNode:
    """One registered worker, of which nothing runs by itself."""

    def __init__(
        self, client: Client, conn: psycopg.Connection[Any], name: str, queues: Sequence[str]
    ) -> None:
        self.client, self.conn, self.name, self.queues = client, conn, name, list(queues)
        self.territory = Territory({OWN: name}, grace_s=0.1)
        self.territory.serve(client.intern(queues))
        self.patience_s = 60.0
        self.register()

    def register(self) -> None:
        """Enter the table of workers, as after a start."""
        self.runs: dict[int, Claim] = {}
        params = [self.name, "host", 1, arrays.TextArray.of(self.queues), "{}", 3600.0]
        self.id = call(self.conn, "register", params)[0][0]

    def _intern(self, key: tuple[str, str]) -> int:
        return self.client.intern_places([key])[key]

    def step(
        self,
        want: int,
        outcomes: Sequence[Outcome] = (),
        conn: psycopg.Connection[Any] | None = None,
    ) -> Answer:
        """One round trip: what has ended, and up to `want` claims."""
        rows = call(
            conn or self.conn,
            "step",
            [
                self.id,
                want,
                *self.territory.params(0),
                self.patience_s,
                *ended_params(sorted(outcomes, key=lambda one: one.token), self._intern),
            ],
        )
        claims = [Claim(r[1], r[2], r[8], r[6], r[7]) for r in rows if r[0] == 0]
        claims.sort(key=lambda claim: claim.token)
        for outcome in outcomes:
            self.runs.pop(outcome.token, None)
        self.runs.update({claim.token: claim for claim in claims})
        due = [r[2] for r in rows if r[0] == 4]
        return Answer(
            claims,
            [r[1] for r in rows if r[0] == 2],
            min(due, default=None),
            [r[3] for r in rows if r[0] == 8],
        )

    def again(
        self, outcomes: Sequence[Outcome], conn: psycopg.Connection[Any] | None = None
    ) -> list[str]:
        """Retries and what is given back; gives the ids that were refused."""
        ordered = sorted(outcomes, key=lambda one: one.token)
        rows = call(
            conn or self.conn, "reschedule", [self.id, *again_params(ordered, self._intern)]
        )
        for outcome in outcomes:
            self.runs.pop(outcome.token, None)
        return [r[1] for r in rows if r[0] == 2]

    def reclaim(self) -> None:
        """Come back after a lost connection, knowing of `runs` only."""
        call(self.conn, "reclaim", [self.id, BigintArray.of(list(self.runs))])

    def maintain(self, conn: psycopg.Connection[Any] | None = None) -> list[Claim]:
        """One round of upkeep; gives the runs it is to end."""
        rows = call(conn or self.conn, "maintain", [self.id, 3600.0, 1000])
        claims = [Claim(r[1], r[2], r[8], r[6], r[7]) for r in rows if r[0] == 0]
        self.runs.update({claim.token: claim for claim in claims})
        return claims

    def beat(self, conn: psycopg.Connection[Any] | None = None) -> list[tuple]:
        """Renew the lease; gives the rows."""
        return call(conn or self.conn, "beat", [self.id, 3600.0])

    def finish(self, *claims: Claim, want: int = 0, state: State = State.COMPLETED) -> Answer:
        """End runs and take what is free then."""
        return self.step(want, [Outcome(c.job_id, c.token, state) for c in claims])


def job_of(claim: Claim) -> Job:
    """The job of a claim, as far as a test needs it."""
    return Job(claim.job_id, claim.token, "q", "test", b"", claim.priority, claim.delivery)
