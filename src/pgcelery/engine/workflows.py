"""The part of a client that sees jobs as workflows: look at them, cancel them, run them again."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from psycopg.rows import TupleRow

from pgcelery.engine.arrays import BooleanArray, ByteaArray, IntegerArray, TextArray
from pgcelery.engine.database import Connections, load
from pgcelery.engine.errors import NotEnded
from pgcelery.engine.exchange import Connection
from pgcelery.engine.job import State

_BATCH = 1000  # jobs that one transaction cancels
_SETTLED_S = (0.01, 100)  # pause, and how often to look, while runs are being ended


class Member(NamedTuple):
    """A job of a workflow."""

    id: str
    name: str
    queue: str
    state: State
    created_at: datetime
    started_at: datetime | None  #: of the run that goes on; None when none does
    finished_at: datetime | None
    payload: bytes
    sent: bytes | None  #: the payload it was sent with, when a retry or a replacement changed it
    joined: list[str]  #: ids that it waits for, or waited for, besides those it was sent with


class WorkflowJobs(NamedTuple):
    """A workflow with its jobs."""

    id: str
    members: list[Member]  #: in the order of enqueue; not all, if `total` is more
    total: int
    counts: dict[str, dict[State, int]]  #: by name, of all its jobs


class WorkflowInfo(NamedTuple):
    """A workflow in a list."""

    id: str
    seq: int  #: grows with every workflow; where the next page begins
    name: str  #: of the job that leads it
    created_at: datetime
    finished_at: datetime | None  #: when the last one of those that have ended did
    counts: dict[State, int]


class Rerun(NamedTuple):
    """A job that is to run again.

    Attributes:
        id: The job's.
        waits: How many jobs it waits for by what it was sent with.
        restored: It becomes what it was sent as, before retries and replacements.
        payload: Replaces its payload; None keeps it.
    """

    id: str
    waits: int = 0
    restored: bool = False
    payload: bytes | None = None


class Workflows:
    """What a client does with whole workflows."""

    if TYPE_CHECKING:
        config: Any
        _connections: Connections

        def _run(self, name: str, params: Any = None) -> list[TupleRow]:
            """See `Client`."""

        def _telling(self, queue_id: int) -> tuple[bytes, dict[str, str]]:
            """See `Client`."""

        def cancel(
            self,
            ids: Sequence[str],
            *,
            terminate: bool = False,
            signum: int = 15,
            result: Callable[[str], bytes | None] | None = None,
        ) -> dict[str, State | None]:
            """See `Client`."""

    def workflow(self, id: str, *, limit: int | None = 10_000) -> WorkflowJobs | None:
        """Look a workflow up.

        Args:
            id: Its own, or that of any of its jobs; a single job is a workflow of one.
            limit: Most members to give; of each name the first ones. None for all.

        Returns:
            None when nothing is known of it.
        """
        if "\0" in id:
            return None  # which the database cannot even be asked
        rows = self._run("workflows/members", {"id": id, "limit": limit})
        if not rows:
            return None
        root, total = rows[0][:2]
        members = [Member._make((*row[2:5], State(row[5]), *row[6:])) for row in rows]
        counts: dict[str, Counter[State]] = {}
        if total == len(members):
            for one in members:
                counts.setdefault(one.name, Counter())[one.state] += 1
        else:
            for name, state, many in self._run("workflows/tally", {"id": root}):
                counts.setdefault(name, Counter())[State(state)] = many
        return WorkflowJobs(root, members, total, {name: dict(n) for name, n in counts.items()})

    def workflows(self, *, limit: int = 20, before: int | None = None) -> list[WorkflowInfo]:
        """List workflows, the newest first.

        Args:
            limit: Most to give.
            before: `WorkflowInfo.seq` of the last one of the page before.
        """
        rows = self._run("workflows/newest", {"limit": limit, "before": before})
        return [
            WorkflowInfo._make(
                (*row[:5], {State(int(state)): many for state, many in row[5].items()})
            )
            for row in rows
        ]

    def cancel_workflow(
        self,
        id: str,
        *,
        terminate: bool = False,
        signum: int = 15,
        result: Callable[[str], bytes | None] | None = None,
    ) -> dict[str, State | None]:
        """Cancel every job of a workflow that has not ended, and what its runs still come to.

        Args:
            id: Its own, or that of any of its jobs.
            terminate: Kill the processes that run its jobs, with `signum`.
            signum: Signal number.
            result: Makes the bytes to keep as the result of a job that ends now.

        Returns:
            The states after this, as `cancel` does, of those that had not ended.
        """
        root = self._run("workflows/stop", {"id": id})[0][0]
        self._settle(root)
        states: dict[str, State | None] = {}
        while True:
            rows = self._run("workflows/unfinished", {"id": root})
            ids = [row[0] for row in rows if row[0] not in states]
            if not ids:
                return states
            # Those that wait come first, so that none of them is freed by the end of another.
            for start in range(0, len(ids), _BATCH):
                part = ids[start : start + _BATCH]
                states |= self.cancel(part, terminate=terminate, signum=signum, result=result)

    def _settle(self, root: str) -> None:
        """Wait for runs that are just being ended: they may not know yet that it is cancelled."""
        pause_s, times = _SETTLED_S
        for _ in range(times):
            if not self._run("workflows/unsettled", {"id": root})[0][0]:
                return
            threading.Event().wait(pause_s)

    def replay(
        self,
        jobs: Sequence[Rerun],
        edges: Sequence[tuple[str, str]] = (),
        *,
        workflow: str | None = None,
        drops: Collection[str] = (),
        needs: Collection[str] = (),
    ) -> None:
        """Run jobs again that have ended, all or none, in one transaction; wake workers.

        Args:
            jobs: Each starts at once, unless it is a child in `edges`.
            edges: (parent, child): the child waits for the parent; both are in `jobs`.
            workflow: Its id; if it was cancelled, that is over.
            drops: Jobs that the replayed ones made, and will make anew: they are forgotten.
            needs: Jobs that are not touched, but must have ended.

        Raises:
            NotEnded: One of all these has not, or is not known any more; nothing was done.
        """
        pending = Counter(child for _, child in edges)
        awaited = {parent for parent, _ in edges}
        params = {
            "workflow": workflow,
            "ids": TextArray.of([job.id for job in jobs]),
            "waits": IntegerArray.of([max(job.waits, pending[job.id]) for job in jobs]),
            "pendings": IntegerArray.of([pending[job.id] for job in jobs]),
            "awaited": BooleanArray.of([job.id in awaited for job in jobs]),
            "payloads": ByteaArray.of([job.payload for job in jobs]),
            "restores": TextArray.of([job.id for job in jobs if job.restored]),
            "drops": TextArray.of(list(drops)),
            "needs": TextArray.of(list(needs)),
            "edge_parents": TextArray.of([parent for parent, _ in edges]),
            "edge_children": TextArray.of([child for _, child in edges]),
        }
        # Not repeated when the answer got lost: these jobs may have ended once more by then.
        home = load("workflows/home", self.config.schema)
        query = load("workflows/replay", self.config.schema)

        def replay(conn: Connection) -> TupleRow | None:
            conn.execute(home, params)
            return conn.execute(query, params, binary=True).fetchone()

        row = self._connections.transact(replay)
        assert row is not None
        refused, woken = row
        if refused is not None:
            raise NotEnded(f"job {refused!r} has not ended, or is not known any more")
        for queue_id in woken:
            self._connections.run(*self._telling(queue_id))
