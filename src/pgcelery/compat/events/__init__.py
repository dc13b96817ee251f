"""Events: what happens to tasks and workers, for monitors to watch.

Source: Celery 5.7, ``celery.events``. They travel through the database; see `engine.stream`.
"""

from __future__ import annotations

from pgcelery.compat.events.dispatcher import EventDispatcher
from pgcelery.compat.events.event import Event, event_exchange, get_exchange, group_from
from pgcelery.compat.events.receiver import EventReceiver

__all__ = (
    "Event",
    "EventDispatcher",
    "EventReceiver",
    "event_exchange",
    "get_exchange",
    "group_from",
)
