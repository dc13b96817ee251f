"""The clock of periodic tasks: entries, schedulers, and the service that lets one tick.

Source: Celery 5.7, ``celery.beat``. What is new is where `PersistentScheduler` keeps its state.
"""

from __future__ import annotations

from pgcelery.compat.beat.embedded import EmbeddedService
from pgcelery.compat.beat.embedded import _Process as _Process
from pgcelery.compat.beat.embedded import _Threaded as _Threaded
from pgcelery.compat.beat.entry import BeatLazyFunc, ScheduleEntry, SchedulingError, event_t
from pgcelery.compat.beat.persistent import PersistentScheduler
from pgcelery.compat.beat.pidbox import BeatPidbox, beat_nodename
from pgcelery.compat.beat.scheduler import DEFAULT_MAX_INTERVAL, Scheduler
from pgcelery.compat.beat.service import Service

__all__ = (
    "DEFAULT_MAX_INTERVAL",
    "BeatLazyFunc",
    "BeatPidbox",
    "EmbeddedService",
    "PersistentScheduler",
    "ScheduleEntry",
    "Scheduler",
    "SchedulingError",
    "Service",
    "beat_nodename",
    "event_t",
)
