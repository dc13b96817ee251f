"""The events of tasks, sent by the worker's main process from what it hears of them.

Source: Celery 5.7, ``celery.worker.strategy`` and ``celery.worker.request`` (when, and fields).
The pool does not say when it begins a task. It is asked a few times a second while some are known
that have not begun; of a shorter one ``task-started`` is sent when it has ended, with the time at
which it began.
"""

from __future__ import annotations

import time
from typing import Any

from pgcelery.engine import Outcome

__all__ = ("TaskEvents",)

_LOOK_S = 0.25  # between two questions to the pool
_RAN = ("task-succeeded", "task-failed", "task-retried", "task-rejected")


class TaskEvents:
    """Sends events of one worker's tasks. Used in the thread of its node.

    Args:
        worker: The `WorkController`.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._dispatcher = worker.consumer.event_dispatcher
        self._pending: set[str] = set()  # received, and not known to have begun
        self._unknown: set[str] = set()  # taken, and told of
        self._looking = False

    @property
    def on(self) -> bool:
        """Whether any are sent now."""
        sends: bool = self._dispatcher.sends("task")
        return sends

    def received(self, request: Any) -> None:
        """Tell that a task was taken."""
        if not request.task.send_events:
            return
        headers = request.request_dict
        self._dispatcher.send(
            "task-received",
            uuid=request.id,
            name=request.name,
            args=request.argsrepr,
            kwargs=request.kwargsrepr,
            root_id=headers.get("root_id"),
            parent_id=headers.get("parent_id"),
            retries=headers.get("retries", 0),
            eta=request.eta and request.eta.isoformat(),
            expires=request.expires and request.expires.isoformat(),
        )
        self._pending.add(request.id)
        self._look_later()

    def unknown(self, task_id: str, name: str) -> None:
        """Tell that a task was taken which the worker does not have."""
        self._unknown.add(task_id)
        self._dispatcher.send("task-failed", uuid=task_id, exception=f"NotRegistered({name!r})")

    def ended(self, request: Any, outcome: Outcome) -> None:
        """Tell what became of a task, if the outcome carries a note."""
        pending = request.id in self._pending
        self._pending.discard(request.id)
        if outcome.note is None or request.job.parent_failed or not request.task.send_events:
            return
        type, fields = outcome.note
        if pending and type in _RAN:
            self._started(request.id, time.time() - (fields.get("runtime") or 0))
        self._dispatcher.send(type, uuid=request.id, **fields)

    def ended_unseen(self, outcome: Outcome) -> None:
        """Tell of a task that was only taken to be ended, because it was revoked or lost."""
        if outcome.id in self._unknown:
            self._unknown.discard(outcome.id)
        elif outcome.note is not None:
            type, fields = outcome.note
            self._dispatcher.send(type, uuid=outcome.id, **fields)

    def forget(self, task_id: str) -> None:
        """Note that a task has ended of which nothing is told."""
        self._pending.discard(task_id)
        self._unknown.discard(task_id)

    def _started(self, task_id: str, timestamp: float) -> None:
        self._dispatcher.send("task-started", uuid=task_id, timestamp=timestamp)

    def _look_later(self) -> None:
        if not self._looking:
            self._looking = True
            node = self._worker.node
            self._worker.timer.call_after(_LOOK_S, node.call, (self._look,))

    def _look(self) -> None:
        self._looking = False
        if not self._pending:
            return
        ago = time.time() - time.monotonic()
        for one in self._worker.node.active():
            if one.job.id in self._pending:
                self._pending.discard(one.job.id)
                self._started(one.job.id, ago + one.started_monotonic_s)
        if self._pending:
            self._look_later()
