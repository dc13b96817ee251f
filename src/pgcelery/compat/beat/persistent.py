"""`PersistentScheduler`: its state is in the database, so any number of them may run at once.

New here: Celery's keeps a file, and two of them send everything twice.
"""

from __future__ import annotations

import copy
import os
import time
from datetime import datetime, timedelta
from typing import Any

from pgcelery.compat.app.running import collecting
from pgcelery.compat.app.sending import tell_existing
from pgcelery.compat.beat.scheduler import Scheduler, logger
from pgcelery.compat.dsn import mask
from pgcelery.compat.utils.time import maybe_make_aware
from pgcelery.engine import DatabaseUnavailable, InvalidJob
from pgcelery.engine.schedules import Schedules, SlotHeldError, Standing

__all__ = ("PersistentScheduler",)

_CLOCK_AGE_S = 30.0  # after which the database is asked again what time it is
_HELD_S = 1.0  # until an entry is looked at again that another beat has in hand
_RECONNECT_S = (2.0, 30.0)  # first and longest pause, which grows by the first


class PersistentScheduler(Scheduler):
    """Sends each run of each entry once, however many of these are ticking.

    A run is one transaction: it locks the entry's row, asks the schedule again with what the row
    and the database's clock say, and inserts the task with the new `last_run_at`. Entries belong
    to the app of this name (`app.main`). Schedules with a `nowfun` of their own go by that.

    Args:
        args: See `Scheduler`.
        kwargs: The same, and ``schedule_filename``, which is not used.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.schedule_filename = kwargs.get("schedule_filename")
        self._pause_s = 0.0
        #: what time it was in the database, and here
        self._clock: tuple[datetime, float] | None = None
        self._schedules: Schedules | None = None
        super().__init__(*args, **kwargs)

    @property
    def _book(self) -> Schedules:
        if self._schedules is None:
            self._schedules = Schedules(self.app.engine, self.app.main or "")
        return self._schedules

    def setup_schedule(self) -> None:
        """Take the entries of ``beat_schedule``, and how far they have come from the database.

        Raises:
            EngineError: The database cannot be used.
        """
        self._set_clock(self._book.clock())
        self._mention_file()
        self.merge_inplace(self.app.conf.beat_schedule)
        self.install_default_entries(self.schedule)
        for entry in self.schedule.values():
            self._adopt(entry)
        standings = {name: _standing(entry) for name, entry in self.schedule.items()}
        for name, standing in self._book.enter(standings).items():
            self._stand(self.schedule[name], standing)
        entries = "\n".join(repr(entry) for entry in self.schedule.values())
        logger.debug("Current schedule:\n%s", entries)

    def _mention_file(self) -> None:
        name = self.schedule_filename
        for path in (f"{name}{suffix}" for suffix in ("", ".db", ".dat")) if name else ():
            if os.path.exists(path):
                logger.warning("%s is not read: the state of beat is in the database.", path)

    def _adopt(self, entry: Any) -> None:
        """Let an entry go by the database's clock, unless it has one of its own."""
        schedule = entry.schedule
        if getattr(schedule, "nowfun", self) is not None:
            return
        entry.schedule = copy.copy(schedule)  # the application's own object stays as it is
        entry.schedule.app = self.app
        entry.schedule.nowfun = self._now
        entry.last_run_at = min(maybe_make_aware(entry.last_run_at), self._now())

    def _stand(self, entry: Any, standing: Standing) -> None:
        entry.last_run_at = standing.last_run_at.astimezone(self.app.timezone)
        entry.total_run_count = standing.total_run_count

    def _set_clock(self, now: datetime) -> None:
        self._clock = now, time.monotonic()

    def _now(self) -> datetime:
        """Give the database's time, reckoned from when it was asked last."""
        if self._clock is None:
            self._set_clock(self._book.clock())
        assert self._clock is not None
        now, then = self._clock
        passed = timedelta(seconds=time.monotonic() - then)
        return (now + passed).astimezone(self.app.timezone)

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """Send one task if one is due here; give the seconds until the next call.

        An outage of the database is waited for, and nothing is lost by it.
        """
        try:
            if self._clock is None or time.monotonic() - self._clock[1] > _CLOCK_AGE_S:
                self._set_clock(self._book.clock())
            delay = super().tick(*args, **kwargs)
        except DatabaseUnavailable as exc:
            self._heap = None  # the entry that was in hand is not on it
            self._pause_s = min(self._pause_s + _RECONNECT_S[0], _RECONNECT_S[1])
            logger.error(
                "beat: Connection error: %s. Trying again in %s seconds...", exc, self._pause_s
            )
            return min(self._pause_s, self.max_interval)
        self._pause_s = 0.0
        return delay

    def _fire(self, entry: Any, next_s: Any) -> tuple[Any, Any]:
        self._adopt(entry)
        return self._book.insisting(lambda: self._fire_once(entry, next_s))

    def _fire_once(self, entry: Any, next_s: Any) -> tuple[Any, Any]:
        try:
            with self._book.claim(entry.name, _standing(entry)) as slot:
                self._set_clock(slot.now)
                self._stand(entry, slot.standing)
                is_due, next_s = self._due(entry, self.is_due)
                if not is_due:  # another beat was first
                    return entry, next_s
                following = self.reserve(entry)
                with collecting(alone=True) as jobs:
                    self.apply_entry(entry, producer=self.producer)
                last_run_at = maybe_make_aware(following.last_run_at)
                try:
                    existing = slot.fire(jobs, last_run_at)
                except InvalidJob as exc:
                    self._message_error(exc)
                    existing = slot.fire([], last_run_at)
        except SlotHeldError:
            return entry, _HELD_S
        except BaseException:
            self.schedule[entry.name] = entry  # it has not come further, whatever was reserved
            raise
        tell_existing(existing)
        return following, next_s

    def _ensure_connected(self) -> Any:
        # A claim has been made when this is asked, so the database is there.
        return self.connection

    def close(self) -> None:
        """Close the connection to the database; usable again afterwards."""
        super().close()
        if self._schedules is not None:
            self._schedules.close()

    @property
    def info(self) -> str:
        """A line of the banner."""
        return f"    . db -> {mask(self.app.engine_config.dsn)}"


def _standing(entry: Any) -> Standing:
    return Standing(maybe_make_aware(entry.last_run_at), entry.total_run_count)
