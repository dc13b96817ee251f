"""Chords whose header is a slow generator: its members are sent while it goes on.

Source: Celery 5.7, `celery.canvas.group._apply_tasks`. There members are published one by one; here
those that come within a moment of each other are sent together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from kombu.utils.uuid import uuid

from pgcelery.compat.app import running, sending
from pgcelery.compat.canvas import outbox
from pgcelery.compat.canvas.groups import group
from pgcelery.compat.result import inputs
from pgcelery.compat.utils.functional import _regen
from pgcelery.engine import EngineError

#: Seconds for which members are gathered. A header that is complete by then is sent with its body.
MOMENT_S = 0.05


def is_slow(header: Any) -> bool:
    """Draw for a moment; whether members are left that had better not be waited for.

    What belongs to the end of a run, or to a transaction of the caller, is not sent before that.
    """
    tasks = header.tasks
    if not isinstance(tasks, _regen) or running.is_collecting() or running.lent() is not None:
        return False
    return not tasks.draw_for(MOMENT_S)


def send(
    app: Any,
    header: Any,
    workflow: str,
    send_members: Callable[[Any], Any],
    send_body: Callable[[list[Any], str], Any],
) -> list[Any]:
    """Send members as they are drawn, then the body; if drawing fails, that never comes.

    Args:
        app: The application.
        header: The group.
        workflow: Id of the workflow.
        send_members: Freezes and sends a group of some of them; gives their results.
        send_body: Sends the body, given the results of all and the latch that it has to wait for.

    Returns:
        The results of the members.
    """
    latch = uuid()
    results: list[Any] = []
    sending.reached(app.engine.open_latch, latch)
    try:
        for batch in _batches(header.tasks):
            part = group(batch, app=app, **header.options)
            part.first_index = len(results)
            with sending.collecting() as jobs:
                sent = send_members(part)
            results += sent
            ends = frozenset(inputs.flat([inputs.of(result) for result in sent]))
            outbox.mark(jobs, workflow, leads=not part.first_index)
            jobs[:] = [job._replace(joins=(latch,)) if job.id in ends else job for job in jobs]
            sending.insert(app, jobs)
        with sending.collecting() as jobs:
            send_body(results, latch)
        outbox.mark(jobs, workflow, leads=False)
        sending.insert(app, jobs, closes=latch)
    except BaseException:
        with suppress(EngineError):
            app.engine.drop_latch(latch)
        raise
    return results


def _batches(members: Iterable[Any]) -> Iterator[list[Any]]:
    batch: list[Any] = []
    since = 0.0  # the first one has waited long enough
    for member in members:
        batch.append(member)
        if time.monotonic() - since >= MOMENT_S:
            yield batch
            batch, since = [], time.monotonic()
    if batch:
        yield batch
