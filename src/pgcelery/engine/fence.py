"""What a worker does with its runs when it could not renew its lease in time: P9, no overlap.

A worker that is cut off cannot know whether others have its runs already, nor whether the database
is only down, when nobody can have them. So before its lease ends it kills what somebody else could
begin while it still runs here: jobs that may be delivered again, and those that hold a slot of a
limit, which goes to the next one. A job that is begun at most once and holds nothing overlaps with
nothing: it goes on, and is recorded if the connection is back before its worker is buried. Once it
is, nothing of it can be recorded any more, so all of it is killed.

What was killed and may run again is given back by the reclaim of the next connection, if it is
still this worker's: uncounted, as nobody but the outage is to blame. Threads cannot be killed; they
go on, and what they come to is refused if it is late.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, MutableMapping
from math import inf

from pgcelery.engine.config import EngineConfig
from pgcelery.engine.job import Handler, Job, Outcome, State
from pgcelery.engine.node import Node
from pgcelery.engine.pool import Cut, Pool

logger = logging.getLogger(__name__)


class Fence:
    """One worker's."""

    def __init__(self, config: EngineConfig, handler: Handler) -> None:
        self._kills = config.lease_lost == "kill"
        self._handler = handler
        self._lapsed = False  # since the last renewal that came in time
        #: tokens of runs that were killed for it, and as which worker that had them
        self._cut: dict[int, int | None] = {}
        self._told: set[int] = set()  # tokens of runs that go on all the same

    def due_s(self, node: Node, runs: Mapping[str, int]) -> float:
        """Seconds until `look` has something to do."""
        if not runs or self._lapsed:
            return inf
        return max(0.0, node.lease.safe_until - time.monotonic())

    def look(self, node: Node, pool: Pool, runs: MutableMapping[str, int]) -> None:
        """Let go of runs if the lease may have run out.

        Args:
            node: Whose lease it is.
            pool: Where they run.
            runs: Tokens by job id; what is let go of before it began is taken out.
        """
        if node.lease.safe(time.monotonic()):
            self._lapsed = False
            return
        if not self._lapsed and runs:
            self._lapsed = True
            if not node.lease.buried:
                # What was claimed in an answer that lies unread may be another's, and what is let
                # go of here is given back by the reclaim that follows on the next connection.
                node.drop(f"the lease was not renewed for {node.lease.safe_s:g} s")
        for job in [*pool.recall(), *node.withholding.throttle.recall()]:
            runs.pop(job.id, None)
            self._handler.finished(Outcome(job.id, job.token, State.AVAILABLE))
        if self._kills and runs:
            killed = pool.cut(lambda job: node.lease.buried or self._overlaps(job))
            as_whom = None if node.lease.buried else node.worker_id
            self._cut.update((job.token, as_whom) for job in killed)
        self._tell(pool)

    def _overlaps(self, job: Job) -> bool:
        return job.gated or self._handler.repeats(job)

    def _tell(self, pool: Pool) -> None:
        active = pool.active()
        self._told &= {one.job.token for one in active}
        for one in active:
            if one.job.token not in self._cut and one.job.token not in self._told:
                self._told.add(one.job.token)
                logger.warning(
                    "the lease of this worker may have run out, and job %s goes on; what it comes"
                    " to is refused if another has the job by then",
                    one.job.id,
                    extra={"action": "fence.goes_on", "job_id": one.job.id},
                )

    def gives_back(self, node: Node, cut: Cut) -> bool:
        """Tell whether a killed run is left to the next owner; else it must be ended.

        It is to be taken out of the worker's runs before.
        """
        registration = self._cut.pop(cut.job.token, None)
        if not node.lease.buried and registration == node.worker_id:
            if not self._handler.repeats(cut.job):
                return False
            node.drop("a run was killed that has to be given back")  # if it is back already
        self._handler.finished(Outcome(cut.job.id, cut.job.token, State.AVAILABLE))
        return True
