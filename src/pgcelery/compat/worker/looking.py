"""Tasks as remote control sees them: those that run in a worker, those that wait for their eta."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pgcelery.compat.worker import state
from pgcelery.compat.worker.request import Request
from pgcelery.engine import Job, JobInfo, State

__all__ = ("refresh_active", "scheduled", "scheduled_among")


def refresh_active(worker: Any) -> None:
    """Bring `state.active_requests` up to date."""
    running = worker.node.active() if worker.node is not None else []
    for one in running:
        request = state.requests.get(one.job.id)
        if request is None:
            request = Request(job=one.job, app=worker.app, hostname=worker.hostname)
        request.accepted(one.pid, one.started_monotonic_s)
        state.task_accepted(request)
    ids = {one.job.id for one in running}
    for request in [each for each in state.active_requests if each.id not in ids]:
        state.active_requests.discard(request)


def scheduled(worker: Any, limit: int) -> list[Request]:
    """Tasks with an eta that wait in the queues of a worker, at most `limit`."""
    return _as_requests(worker, worker.app.engine.scheduled(worker.queue_names(), limit=limit))


def scheduled_among(worker: Any, ids: Iterable[str]) -> list[Request]:
    """Those of ids that wait for their eta in the queues of a worker."""
    queues = worker.queue_names()
    jobs = [worker.app.engine.job(id) for id in ids]
    return _as_requests(
        worker,
        (
            job
            for job in jobs
            if job and job.queue in queues and job.state in (State.SCHEDULED, State.RETRYABLE)
        ),
    )


def _as_requests(worker: Any, found: Iterable[JobInfo]) -> list[Request]:
    jobs = [Job(one.id, 0, one.queue, one.name, one.payload, one.priority, 1) for one in found]
    return [Request(job=job, app=worker.app, hostname=worker.hostname) for job in jobs]
