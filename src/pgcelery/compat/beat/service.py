"""`Service`: lets a scheduler tick until it is stopped.

Source: Celery 5.7, ``celery.beat.Service``.
"""

from __future__ import annotations

import threading
import time
from functools import cached_property
from typing import Any

from pgcelery.compat import platforms, signals
from pgcelery.compat.beat.persistent import PersistentScheduler
from pgcelery.compat.beat.pidbox import BeatPidbox
from pgcelery.compat.utils.imports import load_extension_class_names, symbol_by_name
from pgcelery.compat.utils.log import get_logger
from pgcelery.compat.utils.time import humanize_seconds

__all__ = ("Service",)

logger = get_logger("celery.beat")


class Service:
    """A scheduler and the loop around it.

    Args:
        app: The app.
        max_interval: Seconds between two looks at the schedule, at most.
        schedule_filename: Handed to the scheduler.
        scheduler_cls: Class of the scheduler, its path, or a name that a library has registered
            as an entry point of ``celery.beat_schedulers``.
        remote_control: Whether to answer pings; default ``beat_enable_remote_control``.
        hostname: Node name to answer by.
    """

    scheduler_cls: Any = PersistentScheduler

    def __init__(
        self,
        app: Any,
        max_interval: float | None = None,
        schedule_filename: str | None = None,
        scheduler_cls: Any = None,
        remote_control: bool | None = None,
        hostname: str | None = None,
    ) -> None:
        self.app = app
        self.max_interval = max_interval or app.conf.beat_max_loop_interval
        self.scheduler_cls = scheduler_cls or self.scheduler_cls
        self.schedule_filename = schedule_filename or app.conf.beat_schedule_filename
        self.remote_control = app.either("beat_enable_remote_control", remote_control)
        self.hostname = hostname
        #: what the scheduler made of `max_interval`
        self.effective_max_interval: float | None = None
        self._pidbox: BeatPidbox | None = None
        #: monotonic time at which the scheduler ticked last
        self._last_tick: float | None = None
        self._is_shutdown = threading.Event()
        self._is_stopped = threading.Event()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (
            self.app,
            self.max_interval,
            self.schedule_filename,
            self.scheduler_cls,
            self.remote_control,
            self.hostname,
        )

    def start(self, embedded_process: bool = False) -> None:
        """Tick until stopped.

        Args:
            embedded_process: Whether this process was started by a worker, for this alone.
        """
        logger.info("beat: Starting...")
        self.effective_max_interval = self.scheduler.max_interval
        logger.debug(
            "beat: Ticking with max interval->%s", humanize_seconds(self.scheduler.max_interval)
        )
        signals.beat_init.send(sender=self)
        if embedded_process:
            signals.beat_embedded_init.send(sender=self)
            platforms.set_process_title("celery beat")
        if self.remote_control:
            self._pidbox = BeatPidbox(self)
            self._pidbox.start()
        # Before the first tick: one that never ends must be noticed too.
        self._last_tick = time.monotonic()
        try:
            while not self._is_shutdown.is_set():
                self._round()
        except (KeyboardInterrupt, SystemExit):
            self._is_shutdown.set()
        finally:
            self.sync()
            if self._pidbox is not None:
                self._pidbox.stop()

    def _round(self) -> None:
        interval = self.scheduler.tick()
        self._last_tick = time.monotonic()
        if not interval or interval <= 0:
            return
        logger.debug("beat: Waking up %s.", humanize_seconds(interval, prefix="in "))
        self._is_shutdown.wait(interval)
        if self.scheduler.should_sync():
            self.scheduler._do_sync()

    def sync(self) -> None:
        """Let the scheduler write what it has and close; `stop` stops waiting."""
        self.scheduler.close()
        self._is_stopped.set()

    def stop(self, wait: bool = False) -> None:
        """Ask for the end, and wait for it if asked; from any thread."""
        logger.info("beat: Shutting down...")
        self._is_shutdown.set()
        if wait:
            self._is_stopped.wait()

    def get_scheduler(
        self, lazy: bool = False, extension_namespace: str = "celery.beat_schedulers"
    ) -> Any:
        """Make a scheduler; a lazy one, to be looked at, has no entries."""
        aliases = dict(load_extension_class_names(extension_namespace))
        return symbol_by_name(self.scheduler_cls, aliases=aliases)(
            app=self.app,
            schedule_filename=self.schedule_filename,
            max_interval=self.max_interval,
            lazy=lazy,
        )

    @cached_property
    def scheduler(self) -> Any:
        """The scheduler; made when it is first needed."""
        return self.get_scheduler()
