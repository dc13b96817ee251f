"""When periodic tasks run: `schedule`, `crontab`, `solar`.

Source: Celery 5.7, ``celery.schedules``.
"""

from __future__ import annotations

from pgcelery.compat.schedules.cron import crontab
from pgcelery.compat.schedules.cronfields import ParseException, cronfield, crontab_parser
from pgcelery.compat.schedules.intervals import BaseSchedule, maybe_schedule, schedstate, schedule
from pgcelery.compat.schedules.sun import solar

__all__ = (
    "BaseSchedule",
    "ParseException",
    "cronfield",
    "crontab",
    "crontab_parser",
    "maybe_schedule",
    "schedstate",
    "schedule",
    "solar",
)
