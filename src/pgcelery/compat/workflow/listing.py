"""Workflows in a list."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from pgcelery.compat.workflow.node import iso, ordered, overall
from pgcelery.engine import WorkflowInfo

#: Workflows that one question asks for.
PAGE = 100


class Summary(NamedTuple):
    """A workflow, with how far it is."""

    id: str
    name: str  #: of the task with which it begins
    state: str  #: as `Workflow.state`
    counts: dict[str, int]  #: tasks by state
    created_at: datetime
    finished_at: datetime | None  #: None until all have ended

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values."""
        times = {"created_at": iso(self.created_at), "finished_at": iso(self.finished_at)}
        return {**self._asdict(), **times}


def newest(
    app: Any, limit: int, states: Collection[str] = (), *, look_at: int = 10_000
) -> Iterator[Summary]:
    """Iterate over canvases that were sent, the newest first.

    Args:
        app: The application.
        limit: Most to give.
        states: Only those in one of these; none for all.
        look_at: How many to look at in order to find them.
    """
    before = None
    while limit > 0 and look_at > 0:
        size = min(PAGE if states else limit, look_at, 1000)
        page: list[WorkflowInfo] = app.engine.workflows(limit=size, before=before)
        for info in page:
            summary = _summary(info)
            if limit > 0 and (not states or summary.state in states):
                limit -= 1
                yield summary
        if len(page) < size:
            return
        before, look_at = page[-1].seq, look_at - size


def _summary(info: WorkflowInfo) -> Summary:
    counts = ordered(info.counts)
    over = all(state.final for state in info.counts)
    finished_at = info.finished_at if over else None
    return Summary(info.id, info.name, overall(counts), counts, info.created_at, finished_at)
