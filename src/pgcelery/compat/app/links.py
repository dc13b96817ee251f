"""What follows from the end of a call: its links, the next step of its chain, its error links.

Source: Celery 5.7, `celery.app.trace` and `Backend._call_task_errbacks`. Follow-ups of a job become
part of its outcome; they are built by `apply_async` all the same, so that overridden ones and the
publish signals take part.
"""

from __future__ import annotations

import logging
from typing import Any

from pgcelery.compat.app import planned
from pgcelery.compat.app import running as runs
from pgcelery.compat.app.execution import follow
from pgcelery.compat.canvas import group, maybe_signature
from pgcelery.compat.canvas.plan import calls_in
from pgcelery.engine import DatabaseUnavailable, State

__all__ = ("call_errbacks", "call_links")

logger = logging.getLogger("celery.app.trace")


def call_links(app: Any, request: Any, retval: Any, priority: int | None) -> None:
    """Call the links, then the next step of the chain, with what the call returned."""
    origin = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        "priority": priority,
    }
    for sig in _as_few(app, request.callbacks or ()):
        follow(request, sig.apply_async, (retval,), **origin)
    changed = planned.is_changed(request)
    if changed:
        _drop_planned(app, request)
    if request.chain_link and not changed:
        planned.hang_next(app, request)
    elif request.chain:
        step = maybe_signature(request.chain[-1], app=app)
        follow(request, step.apply_async, (retval,), chain=request.chain[:-1], **origin)


def _drop_planned(app: Any, request: Any) -> None:
    """Have the steps forgotten that wait for the call, for its body wants others."""
    run = runs.current(request.id)
    if run is not None:
        steps = planned.steps_of(app, request.chain_link)
        calls = [call for step in steps for call in calls_in(maybe_signature(step, app=app))]
        ids = [call.options["task_id"] for call in calls]
        run.drops.extend(ids or [request.chain_link["next"]])


def _as_few(app: Any, callbacks: Any) -> list[Any]:
    """One link as it is; of several the groups by themselves, and the others as one group."""
    sigs = [maybe_signature(callback, app=app) for callback in callbacks]
    if len(sigs) < 2:
        return sigs
    groups = [sig for sig in sigs if isinstance(sig, group)]
    others = [sig for sig in sigs if not isinstance(sig, group)]
    return [*groups, group(others, app=app)] if others else groups


def call_errbacks(backend: Any, request: Any, exc: BaseException, traceback: str | None) -> None:
    """Call the error links: in place if they take the error, else as tasks with the call's id.

    Those called in place find the failure when they look the result up, though it is not final
    before the outcome is recorded.
    """
    if request.errbacks:
        if any(
            backend._takes_error(maybe_signature(one, app=backend.app)) for one in request.errbacks
        ):
            _show(backend, request)
        follow(request, backend._call_task_errbacks, request, exc, traceback)


def _show(backend: Any, request: Any) -> None:
    run = runs.current(request.id)
    if run is None or run.record is None or run.record[1] is None:
        return
    try:
        backend.app.engine.put_result(request.id, State.RUNNING, run.record[1])
    except DatabaseUnavailable:
        logger.warning("Error links of task %r run before its failure is stored", request.id)
