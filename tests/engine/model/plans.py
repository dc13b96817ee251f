"""What the rules send, with times in whole units, and how the engine is told.

All that is decided by time lies half a unit away from the moments at which rules run, so that it
does not matter how long the rules themselves take.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from pgcelery.engine import NewJob, Outcome, State

UNIT_S = 60  #: seconds of a unit; a sequence of rules takes much less than half of that
DAY, WEEK = 1440, 7 * 1440  #: in units
QUEUES = ("q", "p")
LEASE, UPKEEP_LEASE = 4, 2
MOST_TOLD = 5000  #: bytes of a payload that is too long for a notification


def seconds(units: int) -> float:
    """Give the seconds after which something is over at the unit given, and not before."""
    return units * UNIT_S - UNIT_S / 2


def _seconds(units: int | None) -> float | None:
    return None if units is None else seconds(units)


def _time(units: int | None) -> datetime | None:
    return None if units is None else datetime.now(UTC) + timedelta(seconds=seconds(units))


class Plan(NamedTuple):
    """A job to enqueue; what `NewJob` says in seconds or as a time is in units from now."""

    id: str
    queue: str = "q"
    payload: str = ""
    priority: int = 0
    due: int | None = None
    delay: int | None = None
    expires: int | None = None
    most: int = 1  #: deliveries
    ttl: int | None = 30
    parents: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    awaited: bool = False
    again: bool = False
    lives: int | None = None
    workflow: str | None = None
    leads: bool = False

    def job(self) -> NewJob:
        """Say it to the engine."""
        return NewJob(
            self.id,
            self.queue,
            "name",
            self.payload.encode(),
            priority=self.priority,
            due_at=_time(self.due),
            delay_s=_seconds(self.delay),
            expires_at=_time(self.expires),
            max_deliveries=self.most,
            ttl_s=_seconds(self.ttl),
            parents=self.parents,
            joins=self.joins,
            awaited=self.awaited,
            again=self.again,
            lives_s=_seconds(self.lives),
            workflow=self.workflow,
            leads=self.leads,
        )


class Ending(NamedTuple):
    """What became of a run; see `Outcome`."""

    id: str
    token: int
    state: State
    result: str | None = None
    payload: str | None = None
    queue: str | None = None
    priority: int | None = None
    due: int | None = None
    delay: int | None = None
    expires: int | None = None
    counted: bool = False
    ttl: int | None = None
    drops: tuple[str, ...] = ()
    follow_ups: tuple[Plan, ...] = ()

    def outcome(self) -> Outcome:
        """Say it to the engine."""
        return Outcome(
            self.id,
            self.token,
            self.state,
            result=None if self.result is None else self.result.encode(),
            payload=None if self.payload is None else self.payload.encode(),
            queue=self.queue,
            priority=self.priority,
            due_at=_time(self.due),
            delay_s=_seconds(self.delay),
            expires_at=_time(self.expires),
            counted=self.counted,
            ttl_s=_seconds(self.ttl),
            drops=self.drops,
            follow_ups=tuple(plan.job() for plan in self.follow_ups),
        )


class Sent(NamedTuple):
    """What an enqueue came to: ids that existed, the token of the job that was handed over."""

    existing: set[str]
    token: int | None


class Claim(NamedTuple):
    """A run as a worker is told of it."""

    id: str
    token: int
    queue: str
    payload: str
    priority: int
    delivery: int
    flags: int
    fed_by: str | None

    @property
    def doomed(self) -> bool:
        """Whether it must be ended without running: failed parent, cancelled, expired, lost."""
        return bool(self.flags & (4 | 8 | 16 | 32))
