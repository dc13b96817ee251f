"""One line of ``beat_schedule``.

Source: Celery 5.7, ``celery.beat.ScheduleEntry``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import total_ordering
from typing import Any, NamedTuple, Self

from kombu.utils.functional import reprcall

from pgcelery.compat.schedules import maybe_schedule, schedstate

__all__ = ("BeatLazyFunc", "ScheduleEntry", "SchedulingError", "event_t")

_EDITABLE = ("task", "schedule", "args", "kwargs", "options")


class SchedulingError(Exception):
    """A task could not be sent."""


class event_t(NamedTuple):
    """What is on a scheduler's heap: when (seconds of the epoch), how urgent, which entry."""

    time: float
    priority: int
    entry: Any


class BeatLazyFunc:
    """An argument in ``beat_schedule`` whose value is found out when the task is sent."""

    def __init__(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        self._func = func
        self._args = args
        self._kwargs = kwargs

    def delay(self) -> Any:
        """Give the value."""
        return self._func(*self._args, **self._kwargs)

    __call__ = delay


@total_ordering
class ScheduleEntry:
    """A task, its arguments, its schedule, and how far that has come.

    Args:
        name: What it is known by.
        task: Name of the task.
        last_run_at: When it ran last; default now, so that a new entry waits for its first time.
        total_run_count: How often it ran.
        schedule: A schedule, a timedelta, or seconds.
        args: Positional arguments.
        kwargs: Keyword arguments.
        options: Options of ``apply_async``.
        relative: Of a schedule given as an interval: whether to round down to the wall clock.
        app: Whose `now` and settings count.
    """

    name: Any = None
    schedule: Any = None
    args: Any = None
    kwargs: Any = None
    options: Any = None
    last_run_at: Any = None
    total_run_count: int = 0

    def __init__(
        self,
        name: str | None = None,
        task: str | None = None,
        last_run_at: datetime | None = None,
        total_run_count: int | None = None,
        schedule: Any = None,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        relative: bool = False,
        app: Any = None,
    ) -> None:
        self.app = app
        self.name = name
        self.task = task
        self.args = args
        self.kwargs = kwargs or {}
        self.options = options or {}
        self.schedule = maybe_schedule(schedule, relative, app=app)
        self.last_run_at = last_run_at or self.default_now()
        self.total_run_count = total_run_count or 0

    def default_now(self) -> datetime:
        """Give the time, by the schedule's clock."""
        now: datetime = self.schedule.now() if self.schedule else self.app.now()
        return now

    _default_now = default_now

    def _next_instance(self, last_run_at: datetime | None = None) -> Self:
        """Give the entry as it is after a run, now or at `last_run_at`."""
        after = {
            "last_run_at": last_run_at or self.default_now(),
            "total_run_count": self.total_run_count + 1,
        }
        return type(self)(**{**dict(self), **after})

    __next__ = next = _next_instance

    def update(self, other: ScheduleEntry) -> None:
        """Take over what another entry does; how far this one has come stays."""
        for name in _EDITABLE:
            setattr(self, name, getattr(other, name))

    def is_due(self) -> schedstate:
        """Say whether to run now, and in how many seconds to ask again."""
        state: schedstate = self.schedule.is_due(self.last_run_at)
        return state

    def editable_fields_equal(self, other: Any) -> bool:
        """Whether two entries do the same, however far they have come."""
        return all(getattr(self, name) == getattr(other, name) for name in _EDITABLE)

    # Its fields, for `dict(entry)`.
    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())

    def __reduce__(self) -> tuple[Any, ...]:
        progress = (self.name, self.task, self.last_run_at, self.total_run_count)
        return type(self), (*progress, self.schedule, self.args, self.kwargs, self.options)

    def __repr__(self) -> str:
        call = reprcall(self.task, self.args or (), self.kwargs or {})
        return f"<{type(self).__name__}: {self.name} {call} {self.schedule}"

    # Any order will do: heaps ask for it when time and priority are the same.
    def __lt__(self, other: object) -> bool:
        return id(self) < id(other) if isinstance(other, ScheduleEntry) else NotImplemented

    def __eq__(self, other: object) -> bool:
        return self.editable_fields_equal(other)


def evaluated(value: Any) -> Any:
    """Call what is a `BeatLazyFunc`."""
    return value() if isinstance(value, BeatLazyFunc) else value
