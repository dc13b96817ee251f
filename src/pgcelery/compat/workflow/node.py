"""A task of a workflow, and the words for the state of one, and of many. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pgcelery.compat import states
from pgcelery.compat.workflow.structure import Call
from pgcelery.engine import State

#: Waits for others of its workflow; Celery has no word for it, its results say PENDING.
WAITING = "WAITING"

_STATES = {
    State.SCHEDULED: states.PENDING,
    State.AVAILABLE: states.PENDING,
    State.RUNNING: states.STARTED,
    State.RETRYABLE: states.RETRY,
    State.WAITING: WAITING,
    State.COMPLETED: states.SUCCESS,
    State.FAILED: states.FAILURE,
    State.CANCELLED: states.REVOKED,
}

#: In the order in which they are told.
STATES = (
    states.SUCCESS,
    states.FAILURE,
    states.REVOKED,
    states.STARTED,
    states.RETRY,
    states.PENDING,
    WAITING,
)


def word(state: State) -> str:
    """Give the state of a task in a workflow, whether it stores a result or not."""
    return _STATES[state]


def ordered(counts: Mapping[State, int]) -> dict[str, int]:
    """Count by words, in the order in which states are told, without zeros."""
    found = dict.fromkeys(STATES, 0)
    for state, many in counts.items():
        found[word(state)] += many
    return {state: many for state, many in found.items() if many}


def overall(counts: Mapping[str, int]) -> str:
    """Give the state of a workflow, given how many of its tasks are in which.

    PENDING until one has begun, STARTED until all have ended, then FAILURE if one failed, REVOKED
    if one was revoked, else SUCCESS.
    """
    if is_done(counts):
        for state in (states.FAILURE, states.REVOKED):
            if counts.get(state):
                return state
        return states.SUCCESS
    begun = {state for state, many in counts.items() if many} - {states.PENDING, WAITING}
    return states.STARTED if begun else states.PENDING


def is_done(counts: Mapping[str, int]) -> bool:
    """Whether all have ended."""
    return not any(many for state, many in counts.items() if state not in states.READY_STATES)


@dataclass(frozen=True, slots=True)
class Node:
    """A task of a workflow, as it was when somebody looked.

    Attributes:
        id: The task's id.
        name: Its name.
        state: Celery's word, or WAITING. What stores no result is SUCCESS here too.
        args: Its arguments as text; ``...`` for what comes from the tasks that it waits for.
        group: Id of the group that it is in.
        queue: Name of its queue.
        retries: How often it has been retried.
        created_at: When it was sent; aware, as the others.
        started_at: When the run began that goes on now; None when none does.
        finished_at: When it ended.
    """

    id: str
    name: str
    state: str
    args: str
    group: str | None
    queue: str
    retries: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    _app: Any = field(repr=False, compare=False)

    @property
    def result(self) -> Any:
        """The task's `AsyncResult`."""
        return self._app.AsyncResult(self.id)

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self.state in states.READY_STATES

    def to_dict(self) -> dict[str, Any]:
        """Give its attributes as plain values."""
        return {
            "id": self.id,
            "name": self.name,
            "state": self.state,
            "args": self.args,
            "group": self.group,
            "queue": self.queue,
            "retries": self.retries,
            "created_at": iso(self.created_at),
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
        }


def make(app: Any, call: Call) -> Node:
    """Make the node of a call."""
    return Node(
        call.id, call.name, word(call.state), call.args, call.group, call.queue, call.retries,
        call.created_at, call.started_at, call.finished_at, app,
    )  # fmt: skip


def iso(when: datetime | None) -> str | None:
    """Write a time."""
    return None if when is None else when.isoformat()
