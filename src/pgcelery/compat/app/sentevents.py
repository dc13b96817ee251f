"""``task-sent``: the event of who sends, with ``task_send_sent_event``.

Source: Celery 5.7, ``AMQP.send_task_message``: fields, and that it comes after the publishing.
"""

from __future__ import annotations

import os
from typing import Any

__all__ = ("tell",)


def tell(app: Any, outgoing: Any) -> None:
    """Send the event of an `Outgoing` that was inserted."""
    headers = outgoing.envelope.headers
    fields = {
        "uuid": outgoing.task_id,
        "root_id": headers["root_id"],
        "parent_id": headers["parent_id"],
        "name": outgoing.name,
        "args": headers["argsrepr"],
        "kwargs": headers["kwargsrepr"],
        "retries": headers["retries"],
        "eta": headers["eta"],
        "expires": headers["expires"],
        "queue": outgoing.jobs[0].queue if outgoing.jobs else None,
        "exchange": outgoing.exchange,
        "routing_key": outgoing.routing_key,
    }
    _dispatcher(app).publish("task-sent", fields)


def _dispatcher(app: Any) -> Any:
    # One for each process: it says its pid.
    found = app.amqp.__dict__.get("_event_dispatcher")
    if found is None or found.pid != os.getpid():
        found = app.amqp._event_dispatcher = app.events.Dispatcher(enabled=False)
    return found
