"""The shape of an event, and the names of the exchange that Celery sends it to.

Source: Celery 5.7, ``celery.events.event``.
"""

from __future__ import annotations

import time
from copy import copy
from typing import Any

from kombu.entity import Exchange

__all__ = ("Event", "event_exchange", "get_exchange", "group_from")

EVENT_EXCHANGE_NAME = "celeryev"
#: a name only: events go through a table
event_exchange = Exchange(EVENT_EXCHANGE_NAME, type="topic")


def Event(type: str, _fields: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Make an event: a dict with its ``type`` and ``timestamp`` (seconds since 1970)."""
    event = {**(_fields or {}), **fields}
    event.setdefault("timestamp", time.time())
    event["type"] = type
    return event


def group_from(type: str) -> str:
    """Group of an event type: ``task`` of ``task-sent``."""
    return type.split("-", 1)[0]


def get_exchange(conn: Any, name: str = EVENT_EXCHANGE_NAME) -> Exchange:
    """Give the exchange, by another name if wanted."""
    exchange = copy(event_exchange)
    exchange.name = name
    return exchange
