"""A workflow, as it was when somebody looked, and what can be done with it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kombu.exceptions import DecodeError, OperationalError

from pgcelery.compat import states
from pgcelery.compat.exceptions import TaskRevokedError, TimeoutError
from pgcelery.compat.message import decode, encode
from pgcelery.compat.platforms import signals
from pgcelery.compat.result import assert_will_not_block
from pgcelery.compat.workflow import outline, replaying
from pgcelery.compat.workflow.drawing import draw
from pgcelery.compat.workflow.node import Node, is_done, make, ordered, overall
from pgcelery.compat.workflow.replaying import NotReplayable
from pgcelery.compat.workflow.structure import Structure, read
from pgcelery.engine import DatabaseUnavailable, NotEnded, Rerun, State, WorkflowJobs

#: Most tasks that are read, unless somebody asks for more.
LIMIT = 10_000

#: Seconds after which `wait` looks at the whole again: when nothing ends, and when what has not
#: ended is not among those read.
_LOOK_S, _LOOK_AT_UNREAD_S = 5.0, 0.2


class WorkflowNotFound(LookupError):
    """Nothing is known of a workflow or task of this id: never sent, or its results expired."""


class Workflow:
    """A canvas that was sent, with all that its tasks have sent since: links, replacements.

    A task that is in no canvas is a workflow of one node. What is read is a picture of one moment;
    `refresh` takes another.

    Args:
        app: The application.
        given: Id of the workflow or of any of its tasks, or a result of it.
        limit: Most tasks to read; of each name the first ones. None for all.

    Attributes:
        id: The workflow's id: what sending it gave as the result's.
        nodes: Its tasks by id, in the order in which they were sent.
        total: How many tasks it has, read or not.
        counts: How many of all are in which state.
        counts_by_name: The same for each task name.
        structure: What waits for what.

    Raises:
        WorkflowNotFound: There is none.
        TypeError: `given` is neither text nor a result.
        kombu.exceptions.OperationalError: The database cannot be reached; so do all methods.
    """

    def __init__(self, app: Any, given: Any, *, limit: int | None = LIMIT) -> None:
        self.app = app
        self._limit = limit
        ids = list(_ids(given))
        for id in ids:
            found = self._look(id)
            if found is not None:
                self._take(found)
                return
        raise WorkflowNotFound(f"no workflow or task {next(iter(ids), given)!r} is known")

    def _look(self, id: str) -> WorkflowJobs | None:
        with _kombu_errors():
            found: WorkflowJobs | None = self.app.engine.workflow(id, limit=self._limit)
        return found

    def _take(self, found: WorkflowJobs) -> None:
        calls = [read(member) for member in found.members]
        counts: Counter[State] = Counter()
        for by_state in found.counts.values():
            counts.update(by_state)
        self.id = found.id
        self.nodes: dict[str, Node] = {call.id: make(self.app, call) for call in calls}
        self.total = found.total
        self.counts = ordered(counts)
        self.counts_by_name = {name: ordered(by_state) for name, by_state in found.counts.items()}
        self.structure = Structure(calls)

    def refresh(self) -> Workflow:
        """Look again; gives itself.

        Raises:
            WorkflowNotFound: It is not known any more.
        """
        found = self._look(self.id)
        if found is None:
            raise WorkflowNotFound(f"workflow {self.id} is not known any more")
        self._take(found)
        return self

    # -- looking --------------------------------------------------------------------------------

    @property
    def edges(self) -> list[tuple[str, str]]:
        """Every (parent, child): the child comes after the parent."""
        return self.structure.edges

    @property
    def state(self) -> str:
        """Give PENDING, STARTED until all have ended, then FAILURE, REVOKED or SUCCESS."""
        return overall(self.counts)

    @property
    def done(self) -> bool:
        """Whether all tasks have ended."""
        return is_done(self.counts)

    @property
    def truncated(self) -> bool:
        """Whether it has tasks that are not among `nodes`."""
        return self.total > len(self.nodes)

    @property
    def starts(self) -> list[str]:
        """Ids of the tasks with which it began."""
        return replaying.starts(self.structure)

    @property
    def failed(self) -> list[str]:
        """Ids of the tasks that failed or were revoked, but for those after one that did."""
        return replaying.failed(self.structure)

    def outline(self) -> outline.Outline:
        """Give its shape with members of large groups taken together, for drawings."""
        return outline.build(self)

    def draw(self, format: str = "tree", **options: Any) -> str:
        """Draw it.

        Args:
            format: ``tree`` (text), ``mermaid`` or ``svg``.
            **options: Of `drawing.tree.draw`.

        Raises:
            ValueError: No such format.
        """
        return draw(self, format, **options)

    def to_dict(self) -> dict[str, Any]:
        """Give all of it as plain values."""
        return {
            "id": self.id,
            "state": self.state,
            "done": self.done,
            "total": self.total,
            "truncated": self.truncated,
            "counts": self.counts,
            "nodes": [node.to_dict() for node in self.nodes.values()],
            "edges": [list(edge) for edge in self.edges],
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}: {self.state}, {self.total} tasks>"

    # -- doing ----------------------------------------------------------------------------------

    def wait(self, timeout: float | None = None) -> Workflow:
        """Wait until all its tasks have ended; gives itself, whatever they came to.

        Args:
            timeout: Seconds; None for ever.

        Raises:
            celery.exceptions.TimeoutError: The time is over.
            RuntimeError: Called in a task.
        """
        assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.refresh().done:
            left = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
            if left <= 0:
                raise TimeoutError(f"workflow {self.id} has not ended: {self.counts}")
            going = [id for id in reversed(self.structure.order) if not self.nodes[id].done]
            if going:
                # The last one: when it ends most others have.
                with _kombu_errors():
                    self.app.engine.wait(going[:1], left)
            else:
                threading.Event().wait(min(left, _LOOK_AT_UNREAD_S))
        return self

    def cancel(self, terminate: bool = False, signal: str | int = "SIGTERM") -> Workflow:
        """End all that has not ended; gives itself, as it is then.

        What waits ends REVOKED, now. What runs goes on to its end, as with `AsyncResult.revoke`,
        but nothing comes of it: its links are revoked too.

        Args:
            terminate: Kill the processes that run its tasks.
            signal: Sent for `terminate`.
        """
        with _kombu_errors():
            self.app.engine.cancel_workflow(
                self.id,
                terminate=terminate,
                signum=signals.signum(signal),
                result=self._revoked,
            )
        return self.refresh()

    def _revoked(self, id: str) -> bytes:
        error = TaskRevokedError("revoked")
        meta: bytes = self.app.backend.encode_meta(id, error, states.REVOKED)
        return meta

    def replay(self, from_id: str | Iterable[str] | None = None) -> Workflow:
        """Run tasks again that have ended, and all that comes after them; gives itself.

        They keep their ids; their results are gone until there are new ones. Those before them do
        not run: their results are used again. What a task had sent itself (links, what it was
        replaced with) is forgotten, and it sends that anew. ``countdown``, ``eta`` and ``expires``
        of where it begins do not count.

        Args:
            from_id: Id or ids where to begin; None for `failed`. For all of it: `starts`.

        Raises:
            NotReplayable: Something has not ended, or is not known any more. Nothing was done.
        """
        self.refresh()
        if self.truncated:
            raise NotReplayable(
                f"workflow {self.id} has {self.total} tasks, and {len(self.nodes)} were read;"
                f" look at it with a higher limit: app.workflow(id, limit={self.total})"
            )
        begin = [from_id] if isinstance(from_id, str) else list(from_id or ())
        if from_id is None:
            begin = self.failed
            if not begin:
                raise NotReplayable(f"nothing failed in workflow {self.id}; name a task")
        for id in begin:
            if id not in self.nodes:
                raise NotReplayable(f"task {id} is not in workflow {self.id}")
        plan = replaying.plan(self.structure, begin)
        again = [
            Rerun(id, plan.waits[id], id in plan.restored, self._without_retries(id))
            for id in plan.again
        ]
        drops = [*plan.drops, *self._strangers({*plan.again, *plan.drops})]
        try:
            with _kombu_errors():
                self.app.engine.replay(
                    again, plan.edges, workflow=self.id, drops=drops, needs=plan.needs
                )
        except NotEnded as exc:
            raise NotReplayable(str(exc)) from exc
        self._forget([*plan.again, *drops])
        return self.refresh()

    def _without_retries(self, id: str) -> bytes | None:
        """Give the message of a retried task with its count of retries set back.

        In a canvas what it was sent as is kept, and comes back whole.
        """
        call = self.structure.calls[id]
        if not call.retries or call.rewritten:
            return None
        info = self.app.engine.job(id)
        try:
            message = decode(info.payload)
        except (AttributeError, DecodeError):
            return None
        message.headers["retries"] = 0
        return encode(message)

    def _strangers(self, replayed: set[str]) -> Iterator[str]:
        """Find what replayed tasks had added to a chord and sent by themselves."""
        for id in replayed:
            for one in self.structure.calls[id].joined:
                info = None if one in self.nodes else self.app.engine.job(one)
                if info is not None and decode(info.payload).headers.get("parent_id") in replayed:
                    yield one

    def _forget(self, ids: Iterable[str]) -> None:
        """Remember no results of before; other processes may."""
        cache = getattr(self.app.backend, "_cache", None)
        for id in ids:
            if cache is not None:
                cache.pop(id, None)


def _ids(given: Any) -> Iterator[str]:
    """Give the ids by which a workflow may be known, given one of them or a result."""
    if isinstance(given, str):
        yield given
        return
    if not hasattr(given, "id") and not hasattr(given, "results"):
        raise TypeError(f"an id or a result, not {type(given).__name__}")
    while given is not None:
        id = getattr(given, "id", None)
        if id is not None:
            yield id
        members = getattr(given, "results", None)
        given = members[0] if members else None


@contextmanager
def _kombu_errors() -> Iterator[None]:
    """Raise what Celery's callers know when the database cannot be reached."""
    try:
        yield
    except DatabaseUnavailable as exc:
        raise OperationalError(str(exc)) from exc
