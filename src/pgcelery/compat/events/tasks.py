"""A task, as its events describe it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import WeakSet

from pgcelery.compat import states

__all__ = ("TASK_EVENT_TO_STATE", "Task", "peek")

#: state of a task after an event, by what follows ``task-`` in its type
TASK_EVENT_TO_STATE = {
    "sent": states.PENDING,
    "received": states.RECEIVED,
    "started": states.STARTED,
    "failed": states.FAILURE,
    "retried": states.RETRY,
    "succeeded": states.SUCCESS,
    "revoked": states.REVOKED,
    "rejected": states.REJECTED,
}


class Task:
    """One task. Two with the same uuid are equal.

    Attributes:
        sent: Time of the event of this name, in seconds since 1970; likewise ``received``,
            ``started``, ``succeeded``, ``failed``, ``retried``, ``revoked`` and ``rejected``.
        worker: The `Worker` that said something of it last.
        client: Name of the node that sent it.
        children: Tasks that it sent, while something else refers to them.
    """

    name = received = sent = started = succeeded = failed = retried = revoked = rejected = None
    args = kwargs = eta = expires = retries = worker = result = exception = timestamp = None
    runtime = traceback = exchange = routing_key = root_id = parent_id = client = None
    state: str = states.PENDING
    clock = 0

    # fmt: off
    _fields = (
        "uuid", "name", "state", "received", "sent", "started", "rejected", "succeeded", "failed",
        "retried", "revoked", "args", "kwargs", "eta", "expires", "retries", "worker", "result",
        "exception", "timestamp", "runtime", "traceback", "exchange", "routing_key", "clock",
        "client", "root", "root_id", "parent", "parent_id", "children",
    )
    _info_fields = (
        "args", "kwargs", "retries", "result", "eta", "runtime", "expires", "exception",
        "exchange", "routing_key", "root_id", "parent_id",
    )
    # fmt: on

    #: of an event that comes after one that it should have come before, the fields that count
    merge_rules: Mapping[str, tuple[str, ...]] = {
        states.RECEIVED: (
            "name", "args", "kwargs", "parent_id", "root_id", "retries", "eta", "expires",
        ),
    }  # fmt: skip

    def __init__(
        self,
        uuid: str | None = None,
        cluster_state: Any = None,
        children: Iterable[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.uuid = uuid
        self.cluster_state = cluster_state
        known = cluster_state.tasks if cluster_state is not None else {}
        self.children: WeakSet[Task] = WeakSet(known[id] for id in children or () if id in known)
        for name, value in kwargs.items():
            if name not in _FOUND:  # these follow from the ids
                self.__dict__[name] = value

    def __eq__(self, other: object) -> bool:
        return self.uuid == other.uuid if isinstance(other, Task) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.uuid)

    def event(
        self,
        type_: str,
        timestamp: float | None = None,
        local_received: float | None = None,
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Take in an event, which may be late.

        Args:
            type_: What follows ``task-``; an unknown one is a state of the application's own.
            timestamp: Seconds since 1970.
            local_received: When it came here.
            fields: The event.
        """
        fields = dict(fields or {})
        state = TASK_EVENT_TO_STATE.get(type_)
        if state is None:
            state = type_.upper()
        else:
            setattr(self, type_, timestamp)
        late = states.precedence(state) > states.precedence(self.state)
        if late and states.RETRY not in (state, self.state):
            if state in self.merge_rules:
                keep = self.merge_rules[state]
                fields = {name: value for name, value in fields.items() if name in keep}
        else:
            fields.update(state=state, timestamp=timestamp)
        self.__dict__.update(fields)

    def info(
        self, fields: Iterable[str] | None = None, extra: Iterable[str] | None = None
    ) -> dict[str, Any]:
        """Give the fields that are known, of those for people or of `fields`, and of `extra`."""
        names = [*(self._info_fields if fields is None else fields), *(extra or ())]
        found = {name: getattr(self, name, None) for name in names}
        return {name: value for name, value in found.items() if value is not None}

    def as_dict(self) -> dict[str, Any]:
        """Give every field; other tasks by their ids."""
        related = {
            "children": [task.id for task in self.children],
            "root": self.root_id,
            "parent": self.parent_id,
        }
        return {
            name: related[name] if name in related else getattr(self, name) for name in self._fields
        }

    def __reduce__(self) -> Any:
        return _remake_task, (type(self), self.as_dict())

    def __repr__(self) -> str:
        return f"<Task: {self.name}({self.uuid}) {self.state} clock:{self.clock}>"

    @property
    def id(self) -> str | None:
        """The uuid."""
        return self.uuid

    @property
    def origin(self) -> Any:
        """Who said something of it last: a worker's id, or the client."""
        return self.client if self.worker is None else self.worker.id

    @property
    def ready(self) -> bool:
        """Whether it has ended."""
        return self.state in states.READY_STATES

    def _related(self, id: str | None) -> Any:
        if not id or self.cluster_state is None:
            return id
        return peek(self.cluster_state.tasks, id)

    @property
    def parent(self) -> Any:
        """The task that sent it, if that is known."""
        return self._related(self.parent_id)

    @property
    def root(self) -> Any:
        """The first task of its workflow, if that is known."""
        return self._related(self.root_id)


_FOUND = ("root", "parent", "children")


def _remake_task(cls: type[Task], fields: dict[str, Any]) -> Task:
    return cls(**fields)


def peek(cache: Any, key: str) -> Any:
    """Look into a cache without counting that as a use."""
    return getattr(cache, "data", cache).get(key)
