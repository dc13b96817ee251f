"""What follows from the end of a call: its links, the next step of its chain, its error links.

Source: Celery 5.7, `celery.app.trace` and `Backend._call_task_errbacks`. Follow-ups of a job become
part of its outcome; they are built by `apply_async` all the same, so that overridden ones and the
publish signals take part.
"""

from __future__ import annotations

from typing import Any

from pgcelery.compat.app.execution import follow
from pgcelery.compat.canvas import group, maybe_signature

__all__ = ("call_errbacks", "call_links")


def call_links(app: Any, request: Any, retval: Any, priority: int | None) -> None:
    """Call the links, then the next step of the chain, with what the call returned."""
    origin = {
        "parent_id": request.id,
        "root_id": request.root_id or request.id,
        "priority": priority,
    }
    for sig in _as_few(app, request.callbacks or ()):
        follow(request, sig.apply_async, (retval,), **origin)
    if request.chain:
        step = maybe_signature(request.chain[-1], app=app)
        follow(request, step.apply_async, (retval,), chain=request.chain[:-1], **origin)


def _as_few(app: Any, callbacks: Any) -> list[Any]:
    """One link as it is; of several the groups by themselves, and the others as one group."""
    sigs = [maybe_signature(callback, app=app) for callback in callbacks]
    if len(sigs) < 2:
        return sigs
    groups = [sig for sig in sigs if isinstance(sig, group)]
    others = [sig for sig in sigs if not isinstance(sig, group)]
    return [*groups, group(others, app=app)] if others else groups


def call_errbacks(backend: Any, request: Any, exc: BaseException, traceback: str | None) -> None:
    """Call the error links: in place if they take the error, else as tasks with the call's id."""
    if request.errbacks:
        follow(request, backend._call_task_errbacks, request, exc, traceback)
