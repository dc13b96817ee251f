"""What a schedule is, and the one that runs every so often.

Source: Celery 5.7, ``celery.schedules``.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from functools import cached_property
from typing import Any, NamedTuple

from pgcelery.compat._state import get_current_app
from pgcelery.compat.utils.time import (
    humanize_seconds,
    maybe_make_aware,
    maybe_timedelta,
    remaining,
    timezone,
)

__all__ = ("BaseSchedule", "maybe_schedule", "schedstate", "schedule")


class schedstate(NamedTuple):
    """What `is_due` answers: whether to run now, and in how many seconds to ask again."""

    is_due: bool
    next: float


class BaseSchedule:
    """Base of all schedules.

    Args:
        nowfun: Gives the time; default the app's `now`. What is naive is UTC.
        app: Whose settings count; default the current app.
    """

    def __init__(self, nowfun: Callable[[], datetime] | None = None, app: Any = None) -> None:
        self.nowfun = nowfun
        self._app = app

    def now(self) -> datetime:
        """Give the time."""
        found: datetime = (self.nowfun or self.app.now)()
        return found

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Give the time from now until the run after `last_run_at`; negative when it is past."""
        raise NotImplementedError

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Say whether to run now, given when it ran last, and when to ask again."""
        raise NotImplementedError

    def maybe_make_aware(self, dt: datetime, naive_as_utc: bool = True) -> datetime:
        """Give a naive time a zone: UTC, converted to the schedule's, or the schedule's."""
        return maybe_make_aware(dt, self.tz, naive_as_utc=naive_as_utc)

    @property
    def app(self) -> Any:
        """The app."""
        return self._app or get_current_app()

    @app.setter
    def app(self, app: Any) -> None:
        self._app = app

    @cached_property
    def tz(self) -> tzinfo:
        """The zone whose wall clock counts."""
        zone: tzinfo = self.app.timezone
        return zone

    @cached_property
    def utc_enabled(self) -> bool:
        """The setting ``enable_utc``."""
        return bool(self.app.conf.enable_utc)

    def to_local(self, dt: datetime) -> datetime:
        """Convert to the machine's zone unless ``enable_utc`` is set."""
        return dt if self.utc_enabled else timezone.to_local_fallback(dt)

    def _seconds_left(self, last_run_at: datetime) -> float:
        return max(self.remaining_estimate(last_run_at).total_seconds(), 0)

    # As in Celery, schedules that are equal in all but their clock differ, and none has a hash.
    def __eq__(self, other: object) -> bool:
        if isinstance(other, BaseSchedule):
            return bool(other.nowfun == self.nowfun)
        return NotImplemented


class schedule(BaseSchedule):
    """Runs every so often, counted from the last run in time that really passes.

    Args:
        run_every: Seconds or a timedelta.
        relative: Whether runs are rounded down to the wall clock's days, hours or minutes,
            whichever is the largest that fits in `run_every`.
        nowfun: See `BaseSchedule`.
        app: See `BaseSchedule`.
    """

    relative: bool = False

    def __init__(
        self,
        run_every: float | timedelta | None = None,
        relative: bool = False,
        nowfun: Callable[[], datetime] | None = None,
        app: Any = None,
    ) -> None:
        self.run_every: Any = maybe_timedelta(run_every)
        self.relative = relative
        super().__init__(nowfun=nowfun, app=app)

    def remaining_estimate(self, last_run_at: datetime) -> timedelta:
        """Give the time from now until the run after `last_run_at`; negative when it is past."""
        start, now = self.maybe_make_aware(last_run_at), self.maybe_make_aware(self.now())
        return remaining(start, self.run_every, now, self.relative)

    def is_due(self, last_run_at: datetime) -> schedstate:
        """Say whether to run now, given when it ran last, and when to ask again."""
        last_run_at = self.maybe_make_aware(last_run_at)
        left = self._seconds_left(last_run_at)
        if left > 0:
            return schedstate(is_due=False, next=left)
        following = self.seconds
        if self.relative:
            # From a late run, or over a change of the clock, the next boundary is nearer or
            # farther than one interval. Intervals without one (zero, or below a second) keep it.
            now = self.maybe_make_aware(self.now()).astimezone(last_run_at.tzinfo)
            following = self._seconds_left(now) or following
        return schedstate(is_due=True, next=following)

    def __repr__(self) -> str:
        return f"<freq: {self.human_seconds}>"

    def __eq__(self, other: object) -> bool:
        return bool(self.run_every == (other.run_every if isinstance(other, schedule) else other))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.run_every, self.relative, self.nowfun)

    @property
    def seconds(self) -> float:
        """The interval in seconds, 0 at least."""
        return max(float(self.run_every.total_seconds()), 0)

    @property
    def human_seconds(self) -> str:
        """The interval in words."""
        return humanize_seconds(self.seconds)


def maybe_schedule(s: Any, relative: bool = False, app: Any = None) -> Any:
    """Turn seconds or a timedelta into a `schedule`; a schedule is given the app."""
    if isinstance(s, float | int):
        s = timedelta(seconds=s)
    if isinstance(s, timedelta):
        return schedule(s, relative, app=app)
    if s is not None:
        s.app = app
    return s
