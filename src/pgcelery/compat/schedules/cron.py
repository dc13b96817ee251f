"""`crontab`: runs when the wall clock shows a time that matches.

Source: Celery 5.7, ``celery.schedules.crontab``. Unlike cron, a day must match the day of the month
*and* the day of the week.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from datetime import MAXYEAR, UTC, date, datetime, timedelta, tzinfo
from typing import Any, Self

from pgcelery.compat.schedules.cronfields import Cronspec, cronfield, expand
from pgcelery.compat.schedules.intervals import BaseSchedule, schedstate
from pgcelery.compat.utils.time import ffwd, remaining, timezone

__all__ = ("crontab",)

_LEAP_YEAR = 2000


class crontab(BaseSchedule):
    """Runs at the minutes whose fields all match, in the app's time zone.

    Args:
        minute: 0 to 59. Each field is a number, several, or a text: ``*``, ``*/15``, ``1,5``,
            ``10-20/2``.
        hour: 0 to 23.
        day_of_week: 0 (Sunday) to 6, or names: ``mon-fri``.
        day_of_month: 1 to 31.
        month_of_year: 1 to 12, or names.
        kwargs: `nowfun` and `app` of `BaseSchedule`.

    Raises:
        ParseException: A text cannot be read.
        TypeError: A field of another type.
        ValueError: A value that does not exist, or days that no month of these has.
    """

    def __init__(
        self,
        minute: Cronspec = "*",
        hour: Cronspec = "*",
        day_of_week: Cronspec = "*",
        day_of_month: Cronspec = "*",
        month_of_year: Cronspec = "*",
        **kwargs: Any,
    ) -> None:
        self._orig_minute = cronfield(minute)
        self._orig_hour = cronfield(hour)
        self._orig_day_of_week = cronfield(day_of_week)
        self._orig_day_of_month = cronfield(day_of_month)
        self._orig_month_of_year = cronfield(month_of_year)
        self._orig_kwargs = kwargs
        self.hour = self._expand_cronspec(hour, 24)
        self.minute = self._expand_cronspec(minute, 60)
        self.day_of_week = self._expand_cronspec(day_of_week, 7)
        self.day_of_month = self._expand_cronspec(day_of_month, 31, 1)
        self.month_of_year = self._expand_cronspec(month_of_year, 12, 1)
        longest = max((monthrange(_LEAP_YEAR, month)[1] for month in self.month_of_year), default=0)
        if not any(day <= longest for day in self.day_of_month):
            raise ValueError(
                f"Invalid crontab: day_of_month {self._orig_day_of_month!r} never occurs in "
                f"month_of_year {self._orig_month_of_year!r}."
            )
        super().__init__(**kwargs)

    # Validators of libraries call it by this name.
    _expand_cronspec = staticmethod(expand)

    @classmethod
    def from_string(cls, crontab: str) -> Self:
        """Read five fields in cron's order: minute, hour, day of month, month, day of week."""
        minute, hour, day_of_month, month_of_year, day_of_week = crontab.split(" ")
        return cls(minute, hour, day_of_week, day_of_month, month_of_year)

    def remaining_delta(
        self, last_run_at: datetime, tz: str | tzinfo | None = None, ffwd: Any = ffwd
    ) -> tuple[datetime, Any, datetime]:
        """Give the last run, the step from it to the next match, and the time now.

        Both times are in the schedule's zone, or in `tz`.
        """
        zone = timezone.get_timezone(tz or self.tz)
        last = self.maybe_make_aware(last_run_at).astimezone(zone)
        now = self.maybe_make_aware(self.now()).astimezone(zone)
        return last, ffwd(**self._next_match(last), second=0, microsecond=0), now

    def _next_match(self, last: datetime) -> dict[str, int]:
        """Give the fields of the wall clock to change."""
        if self._matches(last.date()):
            later = [minute for minute in self.minute if minute > last.minute]
            if later and last.hour in self.hour:
                return {"minute": min(later)}
            hours = [hour for hour in self.hour if hour > last.hour]
            if hours:
                return {"hour": min(hours), "minute": min(self.minute)}
        day = self._next_day(last.date())
        fields = {"year": day.year, "month": day.month, "day": day.day}
        return {**fields, "hour": min(self.hour), "minute": min(self.minute)}

    def _matches(self, day: date) -> bool:
        return (
            day.month in self.month_of_year
            and day.day in self.day_of_month
            and day.isoweekday() % 7 in self.day_of_week
        )

    def _next_day(self, after: date) -> date:
        days = sorted(self.day_of_month)
        for year in range(after.year, MAXYEAR + 1):
            for month in sorted(self.month_of_year):
                if (year, month) < (after.year, after.month):
                    continue
                length = monthrange(year, month)[1]
                for found in (date(year, month, day) for day in days if day <= length):
                    if found > after and self._matches(found):
                        return found
        raise RuntimeError("unable to rollover, time specification is probably invalid")

    def remaining_estimate(self, last_run_at: datetime, ffwd: Any = ffwd) -> timedelta:
        """Give the time from now until the match after `last_run_at`; negative when it is past."""
        return remaining(*self.remaining_delta(last_run_at, ffwd=ffwd))

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Say whether to run now, given when it ran last, and when to ask again.

        A match that was missed is due once, however many there were; not any more when
        ``beat_cron_starting_deadline`` is set and no match lies within that many seconds.
        """
        left = self.remaining_estimate(last_run_at).total_seconds()
        if left > 0:
            return schedstate(False, left)
        due = left == 0 or not self._too_late()
        return schedstate(due, self._seconds_left(self.now()))

    def _too_late(self) -> bool:
        deadline_s = self.app.conf.beat_cron_starting_deadline
        if deadline_s is None:
            return False
        now = self.maybe_make_aware(self.now())
        # The microsecond makes a match right at the deadline count.
        since = now.astimezone(UTC) - timedelta(seconds=deadline_s, microseconds=1)
        return self.remaining_estimate(since.astimezone(now.tzinfo)).total_seconds() > 0

    def __repr__(self) -> str:
        return (
            f"<crontab: {self._orig_minute} {self._orig_hour} {self._orig_day_of_month} "
            f"{self._orig_month_of_year} {self._orig_day_of_week} (m/h/dM/MY/d)>"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (
            self._orig_minute,
            self._orig_hour,
            self._orig_day_of_week,
            self._orig_day_of_month,
            self._orig_month_of_year,
        )
        return type(self), fields, self._orig_kwargs

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        BaseSchedule.__init__(self, **state)
        self._orig_kwargs = dict(state)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        fields = ("month_of_year", "day_of_month", "day_of_week", "hour", "minute", "nowfun")
        return all(getattr(self, name) == getattr(other, name) for name in fields)
