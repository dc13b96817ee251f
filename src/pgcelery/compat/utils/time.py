"""Dates, intervals, time zones.

Source: Celery 5.7, ``celery.utils.time``.
"""

from __future__ import annotations

import numbers
import os
import random
import time as _time
from calendar import monthrange
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cached_property
from types import ModuleType
from typing import Any, cast
from zoneinfo import ZoneInfo

from kombu.utils.functional import dictfilter, reprcall

from pgcelery.compat.utils.text import pluralize

__all__ = (
    "LocalTimezone",
    "add_seconds_to_datetime",
    "adjust_timestamp",
    "delta_resolution",
    "ffwd",
    "get_exponential_backoff_interval",
    "humanize_seconds",
    "is_naive",
    "localize",
    "make_aware",
    "maybe_iso8601",
    "maybe_make_aware",
    "maybe_timedelta",
    "rate",
    "remaining",
    "subtract_datetimes",
    "timezone",
    "to_utc",
    "utcoffset",
    "weekday",
    "yearmonth",
)

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
WEEKDAYS = {name: place for place, name in enumerate(_DAYS)}
YEARMONTHS = {name: place for place, name in enumerate(_MONTHS, 1)}
RATE_SECONDS = {"s": 1, "m": 60, "h": 3600}
TIME_UNITS = (("day", 86400.0), ("hour", 3600.0), ("minute", 60.0), ("second", 1.0))


class LocalTimezone(tzinfo):
    """The machine's own time zone, where its name cannot be found out."""

    def __init__(self) -> None:
        self.STDOFFSET = timedelta(seconds=-_time.timezone)
        self.DSTOFFSET = timedelta(seconds=-_time.altzone) if _time.daylight else self.STDOFFSET
        self.DSTDIFF = self.DSTOFFSET - self.STDOFFSET

    def __repr__(self) -> str:
        return f"<LocalTimezone: UTC{int(self.DSTOFFSET.total_seconds() / 3600):+03d}>"

    def utcoffset(self, dt: datetime | None) -> timedelta:
        """Give the offset at a time."""
        return self.DSTOFFSET if self._isdst(dt) else self.STDOFFSET

    def dst(self, dt: datetime | None) -> timedelta:
        """Give how far the clock is put forward at a time."""
        return self.DSTDIFF if self._isdst(dt) else timedelta(0)

    def tzname(self, dt: datetime | None) -> str:
        """Give the name of the zone at a time."""
        return _time.tzname[self._isdst(dt)]

    def fromutc(self, dt: datetime) -> datetime:
        """Convert a time that is UTC's but has this zone."""
        return dt.replace(tzinfo=UTC).astimezone().replace(tzinfo=self)

    def _isdst(self, dt: datetime | None) -> bool:
        if dt is None:
            return False
        parts = (dt.year, dt.month, dt.day, dt.hour, dt.minute, dt.second, dt.weekday(), 0, 0)
        return _time.localtime(_time.mktime(parts)).tm_isdst > 0


def _find_local_zone() -> tzinfo:
    """Name the machine's zone by TZ or /etc/localtime, as its C library does."""
    name = os.environ.get("TZ", "").lstrip(":")
    if not name:
        with suppress(OSError):
            name = os.readlink("/etc/localtime").partition("zoneinfo/")[2]
    if name:
        with suppress(Exception):  # an unknown or malformed name, or no data base of zones
            return ZoneInfo(name)
    return LocalTimezone()


class _Zone:
    """Where time zones come from."""

    def tz_or_local(self, tzinfo: tzinfo | str | None = None) -> tzinfo:
        """Give a zone by name, or the local one."""
        return self.local if tzinfo is None else self.get_timezone(tzinfo)

    def to_local(
        self, dt: datetime, local: tzinfo | None = None, orig: tzinfo | None = None
    ) -> datetime:
        """Convert to a zone, by default the local one; naive times are of `orig`, else UTC."""
        if is_naive(dt):
            dt = make_aware(dt, orig or self.utc)
        return localize(dt, self.tz_or_local(local))

    def to_system(self, dt: datetime) -> datetime:
        """Convert to the local zone."""
        return localize(dt, self.local)

    def to_local_fallback(self, dt: datetime) -> datetime:
        """Convert to the local zone; naive times are of it."""
        return make_aware(dt, self.local) if is_naive(dt) else localize(dt, self.local)

    def get_timezone(self, zone: tzinfo | str) -> tzinfo:
        """Give a zone by its IANA name."""
        return ZoneInfo(zone) if isinstance(zone, str) else zone

    @cached_property
    def local(self) -> tzinfo:
        """The machine's zone."""
        return _find_local_zone()

    @cached_property
    def utc(self) -> tzinfo:
        """UTC."""
        return self.get_timezone("UTC")


timezone = _Zone()


def maybe_timedelta(delta: Any) -> Any:
    """Turn a number of seconds into a timedelta."""
    return timedelta(seconds=float(delta)) if isinstance(delta, numbers.Real) else delta


def delta_resolution(dt: datetime, delta: timedelta) -> datetime:
    """Round a time down to the largest unit (day, hour, minute) that fits in `delta`."""
    seconds = delta.total_seconds()
    for unit, parts in ((86400, 3), (3600, 4), (60, 5)):
        if seconds >= unit:
            fields = (dt.year, dt.month, dt.day, dt.hour, dt.minute)[:parts]
            return datetime(*fields, tzinfo=dt.tzinfo, fold=dt.fold)  # type: ignore[arg-type, misc]
    return dt


def _in_gap(dt: datetime) -> bool:
    """Whether the clock never showed this wall time."""
    back = dt.astimezone(UTC).astimezone(dt.tzinfo)
    return back.replace(tzinfo=None) != dt.replace(tzinfo=None)


def _occurrences(dt: datetime, delta: timedelta) -> list[datetime]:
    """Give the moments, in UTC, at which the clock shows `dt` rounded to `delta`."""
    rounded = delta_resolution(dt, delta).replace(microsecond=0)
    moments = []
    for fold in (0, 1):
        moment = rounded.replace(fold=fold)
        if is_naive(moment) or not _in_gap(moment):
            moments.append(moment.astimezone(UTC))
            continue
        # A time that was skipped counts as the same distance after the gap.
        before = cast(timedelta, moment.replace(fold=0).utcoffset())
        moments.append((moment.replace(tzinfo=None) - before).replace(tzinfo=UTC))
    return moments


def _relative_end(start: datetime, ends_in: timedelta, end: datetime) -> datetime:
    """Give the last clock boundary (day, hour, minute) up to `end`, but after `start`; in UTC."""
    candidates = _occurrences(end, ends_in)
    start_utc = start.astimezone(UTC)
    if ends_in >= timedelta(days=1):
        later = [moment for moment in candidates if moment > start_utc]
        return min(later, default=end.astimezone(UTC))
    end_utc = start_utc + ends_in
    rounded = max((m for m in candidates if m <= end_utc), default=min(candidates))
    if ends_in >= timedelta(minutes=1) and rounded <= start_utc:
        # The clock was put back in between: look at the next boundary, and at the one that the
        # calendar gives, each as often as the clock shows it.
        unit = timedelta(hours=1) if ends_in >= timedelta(hours=1) else timedelta(minutes=1)
        candidates += _occurrences(end + unit, ends_in) + _occurrences(start + ends_in, ends_in)
        later = [moment for moment in candidates if moment > start_utc]
        in_time = [moment for moment in later if moment <= end_utc]
        return max(in_time) if in_time else min(later, default=end_utc)
    return rounded


def remaining(
    start: datetime, ends_in: Any, now: datetime | None = None, relative: bool = False
) -> timedelta:
    """Give the real time from `now` until `ends_in` after `start`; negative when it is past.

    Args:
        start: Aware.
        ends_in: A timedelta, or an `ffwd`.
        now: Aware; by default this moment.
        relative: Whether the end is rounded down to the unit of `ends_in`: "every hour" then
            means on the hour.
    """
    calendar_days = relative and not isinstance(ends_in, ffwd) and ends_in >= timedelta(days=1)
    if isinstance(ends_in, timedelta) and not calendar_days:
        end = add_seconds_to_datetime(start, ends_in.total_seconds())
    else:
        end = start + ends_in
    if relative:
        end = _relative_end(start, ends_in, end)
    # Between two times of one zone Python subtracts what the clock shows, not time that passed.
    return end.astimezone(UTC) - (now or datetime.now(UTC)).astimezone(UTC)


def rate(r: Any) -> float:
    """Turn ``"100/m"``, ``"2/h"``, ``"0.5/s"`` or a number into tasks a second; 0 is no limit."""
    if not r:
        return 0
    if isinstance(r, str):
        count, _, unit = r.partition("/")
        return float(count) / RATE_SECONDS[unit or "s"]
    return cast(float, r)


def weekday(name: str) -> int:
    """Give the number of a weekday, 0 for Sunday, from its English name or the first letters."""
    return _by_name(WEEKDAYS, name)


def yearmonth(name: str) -> int:
    """Give the number of a month from its English name or the first letters."""
    return _by_name(YEARMONTHS, name)


def _by_name(names: dict[str, int], name: str) -> int:
    try:
        return names[name[:3].lower()]
    except KeyError:
        raise KeyError(name) from None


def humanize_seconds(
    secs: float, prefix: str = "", sep: str = "", now: str = "now", microseconds: bool = False
) -> str:
    """Say seconds as days, hours, minutes or seconds, with two decimals."""
    secs = round(float(secs), 2)
    for unit, size in TIME_UNITS:
        if secs >= size:
            count = secs / size
            return f"{prefix}{sep}{count:.2f} {pluralize(count, unit)}"
    if microseconds and secs > 0.0:
        return f"{prefix}{sep}{secs:.2f} seconds"
    return now


def maybe_iso8601(dt: datetime | str | None) -> datetime | None:
    """Read a time from ISO 8601; None stays None."""
    if not dt:
        return None
    return dt if isinstance(dt, datetime) else datetime.fromisoformat(dt)


def is_naive(dt: datetime) -> bool:
    """Whether a time has no zone."""
    return dt.tzinfo is None or dt.tzinfo.utcoffset(dt) is None


def add_seconds_to_datetime(dt: datetime, seconds: float) -> datetime:
    """Add time that really passes, which the clock may show otherwise."""
    delta = timedelta(seconds=seconds)
    if is_naive(dt):
        return dt + delta
    return (dt.astimezone(UTC) + delta).astimezone(dt.tzinfo)


def subtract_datetimes(end: datetime, start: datetime) -> timedelta:
    """Give the time that passes between two moments; naive ones are UTC."""
    return maybe_make_aware(end).astimezone(UTC) - maybe_make_aware(start).astimezone(UTC)


def make_aware(dt: datetime, tz: tzinfo) -> datetime:
    """Give a naive time a zone; of two moments that the clock shows alike it is the first."""
    return dt.replace(tzinfo=tz, fold=0)


def localize(dt: datetime, tz: tzinfo) -> datetime:
    """Convert a time to a zone; an aware one is only converted if it is UTC."""
    if is_naive(dt):
        dt = make_aware(dt, tz)
    if dt.tzinfo in (UTC, timezone.utc):
        return dt.astimezone(tz)
    return dt


def to_utc(dt: datetime) -> datetime:
    """Say that a naive time is UTC."""
    return make_aware(dt, timezone.utc)


def maybe_make_aware(
    dt: datetime, tz: tzinfo | str | None = None, naive_as_utc: bool = True
) -> datetime:
    """Make a naive time aware; it is UTC unless `naive_as_utc` is false, then of `tz`."""
    if not is_naive(dt):
        return dt
    if naive_as_utc:
        dt = to_utc(dt)
    return localize(dt, timezone.utc if tz is None else timezone.tz_or_local(tz))


class ffwd:
    """A step forward on the calendar: fields to set, and weeks to add, when added to a date."""

    def __init__(
        self,
        year: int | None = None,
        month: int | None = None,
        weeks: int = 0,
        weekday: int | None = None,
        day: int | None = None,
        hour: int | None = None,
        minute: int | None = None,
        second: int | None = None,
        microsecond: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.year = year
        self.month = month
        self.weeks = weeks
        self.weekday = weekday
        self.day = day
        self.hour = hour
        self.minute = minute
        self.second = second
        self.microsecond = microsecond
        self.days = weeks * 7
        self._has_time = hour is not None or minute is not None

    def __repr__(self) -> str:
        fields = self._fields(weeks=self.weeks, weekday=self.weekday)
        return cast(str, reprcall("ffwd", (), fields))

    def __radd__(self, other: Any) -> Any:
        if not isinstance(other, date):
            return NotImplemented
        year = self.year or other.year
        month = self.month or other.month
        day = min(monthrange(year, month)[1], self.day or other.day)
        fields = self._fields()
        fields.update(year=year, month=month, day=day)
        result = other.replace(**fields)
        if self.weekday is not None:
            result += timedelta(days=(7 - result.weekday() + self.weekday) % 7)
        return result + timedelta(days=self.days)

    def _fields(self, **extra: Any) -> dict[str, Any]:
        names = ("year", "month", "day", "hour", "minute", "second", "microsecond")
        fields = {name: getattr(self, name) for name in names}
        return cast(dict[str, Any], dictfilter(fields, **extra))


def utcoffset(time: ModuleType = _time, localtime: Callable[..., Any] = _time.localtime) -> float:
    """Give the local offset from UTC now, in hours west."""
    seconds: float = time.altzone if localtime().tm_isdst else time.timezone
    return seconds / 3600


def adjust_timestamp(ts: float, offset: float, here: Callable[..., float] = utcoffset) -> float:
    """Move a time stamp from a place with this offset (hours west) to ours."""
    return ts - (offset - here()) * 3600


def get_exponential_backoff_interval(
    factor: int, retries: int, maximum: int, full_jitter: bool = False
) -> int:
    """Give the seconds to wait before a retry: ``factor * 2 ** retries``, at most `maximum`.

    With `full_jitter` it is anything from 0 to that.
    """
    countdown = min(maximum, factor * (2**retries))
    if full_jitter:
        countdown = random.randrange(countdown + 1)
    return int(max(0, countdown))
