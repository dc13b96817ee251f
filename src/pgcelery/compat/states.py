"""The states of a task, and their engine counterparts.

Source: Celery 5.7, `celery.states`. Nothing else maps engine states to Celery's.
"""

from __future__ import annotations

from pgcelery.engine import State

__all__ = (
    "ALL_STATES",
    "EXCEPTION_STATES",
    "FAILURE",
    "IGNORED",
    "PENDING",
    "PROPAGATE_STATES",
    "READY_STATES",
    "RECEIVED",
    "REJECTED",
    "RETRY",
    "REVOKED",
    "STARTED",
    "SUCCESS",
    "UNREADY_STATES",
    "precedence",
    "state",
)

PENDING = "PENDING"  #: not known, or waiting
RECEIVED = "RECEIVED"  #: in events only
STARTED = "STARTED"  #: runs, and ``task_track_started`` is on
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
REVOKED = "REVOKED"
REJECTED = "REJECTED"  #: in events only
RETRY = "RETRY"  #: waits to run again
IGNORED = "IGNORED"  #: of eager results only

READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
UNREADY_STATES = frozenset({PENDING, RECEIVED, STARTED, REJECTED, RETRY})
EXCEPTION_STATES = frozenset({RETRY, FAILURE, REVOKED})
PROPAGATE_STATES = frozenset({FAILURE, REVOKED})
ALL_STATES = frozenset({PENDING, RECEIVED, STARTED, SUCCESS, FAILURE, RETRY, REVOKED})

#: From the highest to the lowest; None is where states of the application's own rank.
PRECEDENCE = [SUCCESS, FAILURE, None, REVOKED, STARTED, RECEIVED, REJECTED, RETRY, PENDING]
PRECEDENCE_LOOKUP = {name: rank for rank, name in enumerate(PRECEDENCE)}
NONE_PRECEDENCE = PRECEDENCE_LOOKUP[None]


def precedence(state: str) -> int:
    """Rank of a state; 0 is the highest."""
    return PRECEDENCE_LOOKUP.get(state, NONE_PRECEDENCE)


class state(str):
    """A state that compares by rank: ``state(PENDING) < state(SUCCESS)``."""

    __slots__ = ()

    def __gt__(self, other: str) -> bool:
        return precedence(self) < precedence(other)

    def __ge__(self, other: str) -> bool:
        return precedence(self) <= precedence(other)

    def __lt__(self, other: str) -> bool:
        return precedence(self) > precedence(other)

    def __le__(self, other: str) -> bool:
        return precedence(self) >= precedence(other)


_TO_ENGINE = {
    PENDING: State.AVAILABLE,
    SUCCESS: State.COMPLETED,
    FAILURE: State.FAILED,
    REVOKED: State.CANCELLED,
    RETRY: State.RETRYABLE,
}
_FROM_ENGINE = {
    State.COMPLETED: SUCCESS,
    State.FAILED: FAILURE,
    State.CANCELLED: REVOKED,
    State.RETRYABLE: RETRY,
}


def to_engine(state: str) -> State:
    """Engine state for a Celery state; STARTED and the application's own are RUNNING."""
    return _TO_ENGINE.get(state, State.RUNNING)


def from_engine(state: State) -> str:
    """Celery's word for an engine state when no result says more."""
    return _FROM_ENGINE.get(state, PENDING)
