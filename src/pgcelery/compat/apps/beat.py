"""Beat as a program: banner, logging, signals of the process.

Source: Celery 5.7, ``celery.apps.beat``.
"""

from __future__ import annotations

import logging
import socket
import sys
from datetime import datetime
from types import FrameType
from typing import Any

from pgcelery.compat import platforms
from pgcelery.compat._version import VERSION_BANNER
from pgcelery.compat.beat import Service, beat_nodename
from pgcelery.compat.utils.imports import qualname
from pgcelery.compat.utils.log import get_logger, mlevel
from pgcelery.compat.utils.time import humanize_seconds

__all__ = ("Beat",)

logger = get_logger("celery.beat")


class Beat:
    """Beat that owns its process.

    Args:
        max_interval: Seconds between two looks at the schedule, at most.
        app: The app.
        socket_timeout: Default timeout of sockets in this process, in seconds.
        pidfile: Where to write the process id.
        no_color: Whether not to colour what is written; None asks the terminal.
        loglevel: Name or number.
        logfile: Path; default stderr.
        schedule: ``schedule_filename`` of the service.
        scheduler: ``scheduler_cls`` of the service.
        scheduler_cls: The same.
        redirect_stdouts: Whether what is printed is logged.
        redirect_stdouts_level: At which level.
        quiet: Whether to leave the banner out.
        remote_control: Whether to answer pings.
        hostname: Node name to answer by.
        kwargs: Other options, for subclasses.
    """

    Service: Any = Service
    app: Any = None

    def __init__(
        self,
        max_interval: float | None = None,
        app: Any = None,
        socket_timeout: float | None = 30,
        pidfile: str | None = None,
        no_color: bool | None = None,
        loglevel: int | str = "WARN",
        logfile: str | None = None,
        schedule: str | None = None,
        scheduler: Any = None,
        scheduler_cls: Any = None,
        redirect_stdouts: bool | None = None,
        redirect_stdouts_level: str | int | None = None,
        quiet: bool = False,
        remote_control: bool | None = None,
        hostname: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app = app or self.app
        self.loglevel = mlevel(loglevel)
        self.logfile = logfile
        self.schedule = app.either("beat_schedule_filename", schedule)
        self.scheduler_cls = app.either("beat_scheduler", scheduler, scheduler_cls)
        self.redirect_stdouts = app.either("worker_redirect_stdouts", redirect_stdouts)
        self.redirect_stdouts_level = app.either(
            "worker_redirect_stdouts_level", redirect_stdouts_level
        )
        self.quiet = quiet
        self.remote_control = remote_control
        self.hostname = hostname
        self.max_interval = max_interval
        self.socket_timeout = socket_timeout
        self.no_color = no_color
        self.colored = app.log.colored(logfile, enabled=None if no_color is None else not no_color)
        self.pidfile = pidfile

    def run(self) -> None:
        """Import the app's modules, say hello, and tick until a signal comes.

        Raises:
            EngineError: The database cannot be used; nothing was started.
        """
        self._say(self.colored.cyan(f"celery beat v{VERSION_BANNER} is starting."))
        self.init_loader()
        self.set_process_title()
        self.start_scheduler()

    def _say(self, text: Any) -> None:
        if not self.quiet and sys.__stdout__ is not None:
            encoding = sys.__stdout__.encoding or "utf-8"
            sys.__stdout__.write(f"{text}\n".encode(encoding, "replace").decode(encoding))
            sys.__stdout__.flush()

    def init_loader(self) -> None:
        """Import the app's modules."""
        self.app.loader.init_worker()
        self.app.finalize()

    def set_process_title(self) -> None:
        """Say in ``ps`` what this is."""
        begin = 2 if "manage" in sys.argv[0] else 1
        platforms.set_process_title("celery beat", info=" ".join(sys.argv[begin:]))

    def setup_logging(self, colorize: bool | None = None) -> None:
        """Set logging up."""
        if colorize is None and self.no_color is not None:
            colorize = not self.no_color
        self.app.log.setup(
            self.loglevel,
            self.logfile,
            self.redirect_stdouts,
            self.redirect_stdouts_level,
            colorize=colorize,
        )

    def start_scheduler(self) -> None:
        """Make the service, and run it."""
        if self.pidfile:
            platforms.create_pidlock(self.pidfile)
        service = self.Service(
            app=self.app,
            max_interval=self.max_interval,
            scheduler_cls=self.scheduler_cls,
            schedule_filename=self.schedule,
            remote_control=self.remote_control,
            hostname=self.hostname,
        )
        self._say(self.banner(service))
        self.setup_logging()
        if self.socket_timeout:
            logger.debug("Setting default socket timeout to %r", self.socket_timeout)
            socket.setdefaulttimeout(self.socket_timeout)
        try:
            self._prepare_schema()
            self.install_sync_handler(service)
            service.start()
        except Exception as exc:
            logger.critical("beat raised exception %s: %r", type(exc), exc, exc_info=True)
            raise

    def _prepare_schema(self) -> None:
        if self.app.conf.get("worker_auto_migrate", True):
            self.app.engine.migrate()
        else:
            self.app.engine.check_schema()

    def install_sync_handler(self, service: Any) -> None:
        """On TERM and INT let the scheduler write what it has, and end."""

        def end(signum: int, frame: FrameType | None) -> None:
            service.sync()
            raise SystemExit

        platforms.signals.update(SIGTERM=end, SIGINT=end)

    def banner(self, service: Any) -> str:
        """What is written at the start."""
        c = self.colored
        line = c.blue(
            "__    ", c.magenta("-"), c.blue("    ... __   "), c.magenta("-"), c.blue("        _\n")
        )
        return f"{line}{c.reset(self.startup_info(service))}"

    def startup_info(self, service: Any) -> str:
        """What runs here, and with which options."""
        scheduler = service.get_scheduler(lazy=True)
        interval = scheduler.max_interval
        lines = [
            f"LocalTime -> {datetime.now().replace(microsecond=0)}",
            "Configuration ->",
            f"    . broker -> {self.app.connection().as_uri()}",
            f"    . loader -> {qualname(self.app.loader)}",
            f"    . scheduler -> {qualname(scheduler)}",
            scheduler.info,
            f"    . logfile -> {self.logfile or '[stderr]'}@%{logging.getLevelName(self.loglevel)}",
            f"    . maxinterval -> {humanize_seconds(interval)} ({interval:g}s)",
            self._remote_control_info(service),
        ]
        return "\n".join(line for line in lines if line)

    def _remote_control_info(self, service: Any) -> str:
        if not service.remote_control:
            return ""
        return f"    . remote control -> {beat_nodename(service.hostname)}"
