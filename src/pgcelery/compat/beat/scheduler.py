"""`Scheduler`: keeps entries on a heap by their next time, and sends those that are due.

Source: Celery 5.7, ``celery.beat.Scheduler``. Libraries subclass it to keep entries elsewhere, so
its methods, what they return and the order in which they are called are Celery's.
"""

from __future__ import annotations

import copy
import heapq
import time
import traceback
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from kombu.exceptions import OperationalError
from kombu.utils.functional import maybe_evaluate, retry_over_time

from pgcelery.compat.beat.entry import ScheduleEntry, SchedulingError, evaluated, event_t
from pgcelery.compat.schedules import crontab
from pgcelery.compat.utils.functional import is_numeric_value
from pgcelery.compat.utils.log import get_logger
from pgcelery.compat.utils.time import humanize_seconds, maybe_make_aware

__all__ = ("DEFAULT_MAX_INTERVAL", "Scheduler")

logger = get_logger("celery.beat")

#: Seconds between two looks at the schedule, at most.
DEFAULT_MAX_INTERVAL = 300

_PRIORITY = 5
_RECONNECT_S = {"interval_start": 2, "interval_step": 2, "interval_max": 30}


class Scheduler:
    """Keeps its entries in memory: a restart begins anew, and only one may run.

    Args:
        app: The app.
        schedule: What the entries are kept in, or what gives it; default a dict.
        max_interval: Seconds between two looks at the schedule, at most; default
            ``beat_max_loop_interval``, else the class's own.
        Producer: Accepted, and made when somebody asks for `producer`.
        lazy: Leave the schedule empty; for looking at the scheduler itself.
        sync_every_tasks: Tasks after which `sync` is called; default ``beat_sync_every``.
        kwargs: For subclasses; ``schedule_filename`` is always given by the service.
    """

    Entry: Any = ScheduleEntry
    max_interval: float = DEFAULT_MAX_INTERVAL
    #: Seconds after which `sync` is called.
    sync_every: float = 3 * 60
    sync_every_tasks: int | None = None
    logger = logger

    _last_sync: float | None = None
    _tasks_since_sync = 0

    def __init__(
        self,
        app: Any,
        schedule: Any = None,
        max_interval: float | None = None,
        Producer: Any = None,
        lazy: bool = False,
        sync_every_tasks: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        self.data: Any = maybe_evaluate({} if schedule is None else schedule)
        self.max_interval = max_interval or app.conf.beat_max_loop_interval or self.max_interval
        self.Producer = Producer or app.amqp.Producer
        self._heap: list[Any] | None = None
        self.old_schedulers: Any = None
        if sync_every_tasks is None:
            sync_every_tasks = app.conf.beat_sync_every
        self.sync_every_tasks = sync_every_tasks
        if not lazy:
            self.setup_schedule()

    # The entries.

    def setup_schedule(self) -> None:
        """Fill the schedule; a subclass opens its storage here."""
        self.install_default_entries(self.data)
        self.merge_inplace(self.app.conf.beat_schedule)

    def install_default_entries(self, data: Any) -> None:
        """Add the cleaning of results, where the backend does not expire them by itself."""
        entries = {}
        if (
            self.app.conf.result_expires
            and not self.app.backend.supports_autoexpire
            and "celery.backend_cleanup" not in data
        ):
            entries["celery.backend_cleanup"] = {
                "task": "celery.backend_cleanup",
                "schedule": crontab("0", "4", "*"),
                "options": {"expires": 12 * 3600},
            }
        self.update_from_dict(entries)

    def get_schedule(self) -> Any:
        """Give the entries by name."""
        return self.data

    def set_schedule(self, schedule: Any) -> None:
        """Replace the entries."""
        self.data = schedule

    schedule = property(get_schedule, set_schedule)

    def add(self, **kwargs: Any) -> Any:
        """Add an entry made of these fields, and give it."""
        entry = self.Entry(app=self.app, **kwargs)
        self.schedule[entry.name] = entry
        return entry

    def _maybe_entry(self, name: str, entry: Any) -> Any:
        if isinstance(entry, self.Entry):
            entry.app = self.app
            return entry
        return self.Entry(**dict(entry, name=name, app=self.app))

    def update_from_dict(self, dict_: Mapping[str, Any]) -> None:
        """Add or replace entries, given as entries or as their fields."""
        self.schedule.update({name: self._maybe_entry(name, one) for name, one in dict_.items()})

    def merge_inplace(self, b: Mapping[str, Any]) -> None:
        """Make the entries those of `b`; how far the ones that stay have come is kept."""
        schedule = self.schedule
        for name in set(schedule) - set(b):
            schedule.pop(name, None)
        for name, fields in b.items():
            entry = self.Entry(**dict(fields, name=name, app=self.app))
            if schedule.get(name):
                schedule[name].update(entry)
            else:
                schedule[name] = entry

    def schedules_equal(self, old_schedules: Any, new_schedules: Any) -> bool:
        """Whether two schedules do the same; the heap is built anew when they do not."""
        if old_schedules is None or new_schedules is None:
            return old_schedules is new_schedules
        if set(old_schedules.keys()) != set(new_schedules.keys()):
            return False
        return all(new_schedules.get(name) == old for name, old in old_schedules.items())

    # The heap.

    def adjust(self, n: Any, drift: float = -0.010) -> Any:
        """Wake a little early: what is not due by then is asked again."""
        return n + drift if n and n > 0 else n

    def is_due(self, entry: Any) -> Any:
        """Say whether to run an entry now, and in how many seconds to ask again."""
        return entry.is_due()

    def _is_due_failed(self, entry: Any) -> tuple[bool, float]:
        logger.error(
            "beat: Cannot calculate the next run of %r, trying again in %s.",
            entry.name,
            humanize_seconds(self.max_interval),
            exc_info=True,
        )
        return False, self.max_interval

    def _due(self, entry: Any, ask: Callable[[Any], Any]) -> Any:
        """Ask; an entry that cannot tell must not stop the others."""
        try:
            return ask(entry)
        except Exception:
            return self._is_due_failed(entry)

    def _when(self, entry: Any, next_time_to_run: Any) -> float:
        """Give the time of the epoch that is some seconds from the entry's now."""
        now = maybe_make_aware(entry.default_now()).timestamp()
        return now + float(self.adjust(next_time_to_run) or 0)

    def populate_heap(self, event_t: Any = event_t, heapify: Any = heapq.heapify) -> None:
        """Build the heap from the schedule."""
        heap = self._heap = []
        for entry in self.schedule.values():
            now = self._when(entry, 0)
            is_due, next_s = self._due(entry, lambda one: one.is_due())
            delay = 0 if is_due else self.adjust(next_s) or 0
            heap.append(event_t(now + delay, _PRIORITY, entry))
        heapify(heap)

    def tick(
        self,
        event_t: Any = event_t,
        min: Any = min,
        heappop: Any = heapq.heappop,
        heappush: Any = heapq.heappush,
    ) -> float:
        """Send one task if one is due; give the seconds until this wants to be called again."""
        if self._heap is None or not self.schedules_equal(self.old_schedulers, self.schedule):
            self.old_schedulers = copy.copy(self.schedule)
            self.populate_heap()
        heap: Any = self._heap
        if not heap:
            return self.max_interval
        event = heap[0]
        entry = event[2]
        # All that follows counts from here, however long sending takes.
        now = self._when(entry, 0)
        if event[0] > now:
            return float(min(event[0] - now, self.max_interval))
        is_due, next_s = self._due(entry, self.is_due)
        if heap[0] is not event:  # somebody added one that is earlier meanwhile
            first = heap[0]
            return float(min(first[0] - self._when(first[2], 0), self.max_interval))
        heappop(heap)
        if is_due:
            following, next_s = self._fire(entry, next_s)
            heappush(heap, event_t(now + (self.adjust(next_s) or 0), event[1], following))
            return 0
        # It asks for more time. Left where it is, it would keep those behind it from their turn.
        delay = next_s if is_numeric_value(next_s) else self.max_interval
        heappush(heap, event_t(now + (self.adjust(delay) or 0), event[1], entry))
        return 0 if heap[0][2] is not entry else min(self.adjust(delay), self.max_interval)

    def _fire(self, entry: Any, next_s: Any) -> tuple[Any, Any]:
        """Send an entry that is due; give it as it is afterwards, and when to ask again."""
        following = self.reserve(entry)
        self.apply_entry(entry, producer=self.producer)
        return following, next_s

    # Sending.

    def reserve(self, entry: Any) -> Any:
        """Move an entry on to its next run, and give it so."""
        following = self.schedule[entry.name] = next(entry)
        return following

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        """Send an entry's task. What goes wrong is logged: that run is lost, the next is not."""
        logger.info("Scheduler: Sending due task %s (%s)", entry.name, entry.task)
        try:
            result = self.apply_async(entry, producer=producer, advance=False)
        except Exception as exc:
            self._message_error(exc)
        else:
            if result and hasattr(result, "id"):
                logger.debug("%s sent. id->%s", entry.task, result.id)
            else:
                logger.debug("%s sent.", entry.task)

    def _message_error(self, exc: Exception) -> None:
        logger.error("Message Error: %s\n%s", exc, traceback.format_stack(), exc_info=True)

    def apply_async(
        self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any
    ) -> Any:
        """Send an entry's task; give its result.

        Raises:
            SchedulingError: It could not be sent.
        """
        # Moved on first: an entry that cannot be sent must not be tried for ever.
        entry = self.reserve(entry) if advance else entry
        task = self.app.tasks.get(entry.task)
        try:
            args = [evaluated(value) for value in entry.args or ()]
            named = {name: evaluated(value) for name, value in (entry.kwargs or {}).items()}
            options = dict(entry.options)
            options["headers"] = {**(options.get("headers") or {}), "celery_beat_task": True}
            if task:
                return task.apply_async(args, named, producer=producer, **options)
            return self.send_task(entry.task, args, named, producer=producer, **options)
        except Exception as exc:
            raise SchedulingError(f"Couldn't apply scheduled task {entry.name}: {exc}") from exc
        finally:
            self._tasks_since_sync += 1
            if self.should_sync():
                self._do_sync()

    def send_task(self, *args: Any, **kwargs: Any) -> Any:
        """Send a task that this process does not know."""
        return self.app.send_task(*args, **kwargs)

    # Storage.

    def should_sync(self) -> bool:
        """Whether it is time for `sync`."""
        if not self._last_sync or time.monotonic() - self._last_sync > self.sync_every:
            return True
        return bool(self.sync_every_tasks and self._tasks_since_sync >= self.sync_every_tasks)

    def _do_sync(self) -> None:
        try:
            logger.debug("beat: Synchronizing schedule...")
            self.sync()
        finally:
            self._last_sync = time.monotonic()
            self._tasks_since_sync = 0

    def sync(self) -> None:
        """Write how far the entries have come, where a subclass keeps that."""

    def close(self) -> None:
        """Write, and let go of what is open; a subclass closes its storage."""
        try:
            self.sync()
        finally:
            self.__dict__.pop("producer", None)
            connection = self.__dict__.pop("connection", None)
            if connection is not None:
                connection.release()

    @cached_property
    def connection(self) -> Any:
        """The way to the database, as `app.connection_for_write` gives it."""
        return self.app.connection_for_write()

    @cached_property
    def producer(self) -> Any:
        """What ``apply_async`` is given; made when the database has answered."""
        return self.Producer(self._ensure_connected(), auto_declare=False)

    def _ensure_connected(self) -> Any:
        """Wait for the database, as often as ``broker_connection_max_retries`` says."""

        def say(exc: Exception, intervals: Any, retries: int) -> float:
            pause: float = next(intervals)
            logger.error("beat: Connection error: %s. Trying again in %s seconds...", exc, pause)
            return pause

        return retry_over_time(
            self.connection.ensure_connection,
            OperationalError,
            max_retries=self.app.conf.broker_connection_max_retries,
            errback=say,
            **_RECONNECT_S,
        )

    @property
    def info(self) -> str:
        """A line of the banner."""
        return ""
