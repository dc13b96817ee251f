"""The worker as a program: banner, logging, privileges, signals of the process.

Source: Celery 5.7, ``celery.apps.worker``: layout of the banner, the lines said on shutdown, what
each signal does, exit codes.
"""

from __future__ import annotations

import atexit
import logging
import os
import platform as _platform
import sys
import threading
import traceback
from collections.abc import Callable
from datetime import datetime
from types import FrameType
from typing import Any

from pgcelery._version import __version__
from pgcelery.compat import platforms, signals
from pgcelery.compat.dsn import mask
from pgcelery.compat.platforms import EX_FAILURE, EX_OK, check_privileges, isatty
from pgcelery.compat.utils.imports import qualname
from pgcelery.compat.utils.log import in_sighandler
from pgcelery.compat.worker import state
from pgcelery.compat.worker.controller import WorkController

__all__ = ("Worker",)

logger = logging.getLogger("celery.apps.worker")

ARTLINES = (
    " --------------",
    "   ▟█▙   ▟█▙   ",
    "   ▜██▄▄▄██▛   ",
    "     ▜███▛     ",
    "      ███      ",
    "      ███      ",
    "      ███      ",
    "      ███      ",
    "      ▜█▛      ",
    " --------------",
)
REMAP_SIGTERM = os.environ.get("REMAP_SIGTERM")


class Worker(WorkController):
    """A worker that owns its process."""

    def on_before_init(self, quiet: bool = False, **kwargs: Any) -> None:
        """Tell the world which worker this is, and refuse root with pickle."""
        self.quiet = quiet
        signals.celeryd_init.send(
            sender=self.hostname, instance=self, conf=self.app.conf, options=kwargs
        )
        check_privileges(self.app.conf.accept_content)

    def on_after_init(
        self,
        purge: bool = False,
        no_color: bool | None = None,
        redirect_stdouts: bool | None = None,
        redirect_stdouts_level: str | int | None = None,
        **kwargs: Any,
    ) -> None:
        """Read the options of the program."""
        either = self.app.either
        self.redirect_stdouts = either("worker_redirect_stdouts", redirect_stdouts)
        self.redirect_stdouts_level = either(
            "worker_redirect_stdouts_level", redirect_stdouts_level
        )
        self.purge = purge
        self.no_color = no_color
        self.colored = self.app.log.colored(
            self.logfile, enabled=not no_color if no_color is not None else None
        )

    def on_init_blueprint(self) -> None:
        """Set logging up, and finalize the app."""
        self._custom_logging = self.setup_logging()
        self.app.finalize()
        self.app.set_current()
        self.app.set_default()

    def setup_logging(self, colorize: bool | None = None) -> Any:
        """Set logging up; true if the application did it itself."""
        if colorize is None and self.no_color is not None:
            colorize = not self.no_color
        return self.app.log.setup(
            self.loglevel,
            self.logfile,
            redirect_stdouts=False,
            colorize=colorize,
            hostname=self.hostname,
        )

    def on_start(self) -> None:
        """Say hello, purge if asked, and take the signals of the process."""
        super().on_start()
        signals.celeryd_after_setup.send(sender=self.hostname, instance=self, conf=self.app.conf)
        if self.purge:
            self.purge_messages()
        if not self.quiet:
            self.emit_banner()
        platforms.set_mp_process_title(
            "celeryd", info=f"-active- ({platforms.strargv(sys.argv)})", hostname=self.hostname
        )
        if threading.current_thread() is threading.main_thread():
            install_signal_handlers(self)
        if not self._custom_logging and self.redirect_stdouts:
            self.app.log.redirect_stdouts(self.redirect_stdouts_level)

    def on_consumer_ready(self, consumer: Any) -> None:
        """Say that tasks are taken."""
        signals.worker_ready.send(sender=consumer)
        logger.info("%s ready.", self.hostname)

    def purge_messages(self) -> None:
        """Delete what waits in the queues."""
        count = self.app.control.purge()
        if count:
            word = "message" if count == 1 else "messages"
            say(f"purge: Erased {count} {word} from the queue.")

    # The banner.

    def emit_banner(self) -> None:
        """Write the banner to stdout."""
        text = str(self.colored.cyan(" \n", self.startup_info()))
        text += str(self.colored.reset(self.extra_info() or ""))
        if sys.__stdout__ is not None:
            encoding = sys.__stdout__.encoding or "utf-8"
            sys.__stdout__.write(text.encode(encoding, "replace").decode(encoding) + "\n")
            sys.__stdout__.flush()

    def startup_info(self, artlines: bool = True) -> str:
        """The banner without its list of tasks."""
        lines = [
            f"{self.hostname} v{__version__} (pgcelery)",
            f"{_platform.platform()} {datetime.now().replace(microsecond=0)}"
            f"  Python {_platform.python_version()}",
            "[config]",
            f".> app:         {self._app_line()}",
            f".> database:    {mask(self.app.engine_config.dsn)}",
            f".> results:     {self._results_line()}",
            f".> concurrency: {self._size_line()} ({self.pool_cls.__module__.split('.')[-1]})",
            f".> task events: {'ON' if self.task_events else 'OFF'}",
            "",
            "[queues]",
            *self._queue_lines(),
        ]
        if artlines:
            lines = [
                f"{ARTLINES[i]} {line}" if i < len(ARTLINES) else f"{'':16}{line}"
                for i, line in enumerate(lines)
            ]
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _app_line(self) -> str:
        loader = qualname(self.app.loader)
        name = f"{self.app.main or '__main__'}:{id(self.app):#x}"
        if loader.endswith("loaders.app.AppLoader"):
            return name
        return f"{name} ({loader.rpartition('loaders.')[2]})"

    def _size_line(self) -> str:
        if self.autoscale:
            return f"{{min={self.min_concurrency}, max={self.max_concurrency}}}"
        return str(self.concurrency)

    def _results_line(self) -> str:
        expires = self.app.conf.result_expires
        kept = getattr(expires, "total_seconds", lambda: expires)()
        if self.app.conf.get("result_backend") == "disabled://":
            return "disabled"
        return f"same database, kept {_duration(kept)}" if kept else "same database, kept for ever"

    def _queue_lines(self) -> list[str]:
        names = self.queue_names()
        counts = self.app.engine.counts(names)
        lines = []
        for name in sorted(names):
            found = counts.get(name)
            ready, scheduled = (found.ready, found.scheduled) if found else (0, 0)
            lines.append(f".> {name:<16} {ready} ready, {scheduled} scheduled")
        return lines

    def tasklist(
        self, include_builtins: bool = True, sep: str = "\n", int_: str = "celery."
    ) -> str:
        """Names of the tasks, one a line."""
        return sep.join(
            f"  . {task}"
            for task in sorted(self.app.tasks)
            if include_builtins or not task.startswith(int_)
        )

    def extra_info(self) -> str | None:
        """List of tasks, from log level INFO on; with the built-in ones on DEBUG."""
        if not isinstance(self.loglevel, int) or not 0 < self.loglevel <= logging.INFO:
            return None
        return f"\n[tasks]\n{self.tasklist(include_builtins=self.loglevel <= logging.DEBUG)}\n"


def _duration(seconds: float) -> str:
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = round(seconds / size, 1)
            return f"{count:g} {word}{'' if count == 1 else 's'}"
    return f"{seconds:g} seconds"


def say(message: str, stream: Any = None) -> None:
    """Write a line past buffers and loggers, as a signal handler must."""
    stream = stream or sys.__stdout__
    try:
        os.write(stream.fileno(), f"\n{message}\n".encode())
    except (AttributeError, OSError, ValueError):
        # No stdout any more: nobody is there to read it.
        return


# Signals of the process. The first TERM or INT finishes what runs; a second INT, or QUIT, ends it.


def install_signal_handlers(worker: Worker) -> None:
    """Take TERM, INT, QUIT, USR1, and HUP where no terminal is."""
    remapped = REMAP_SIGTERM == "SIGQUIT"
    platforms.signals["SIGTERM"] = _cold(worker, "SIGTERM") if remapped else _warm(worker)
    platforms.signals["SIGINT"] = _interrupt(worker)
    platforms.signals["SIGQUIT"] = _cold(worker, "SIGQUIT")
    platforms.signals["SIGUSR1"] = dump_stacks
    if not isatty(sys.stdout):
        platforms.signals["SIGHUP"] = _restart(worker)


Handler = Callable[[int, FrameType | None], None]


def _shutdown(worker: Worker, sig: str, how: str, exitcode: int, verbose: bool = True) -> None:
    if how == "Warm":
        state.should_stop = worker.exitcode = exitcode
    else:
        # As in Celery, this does not change how the process ends: 0, or 1 after a first Ctrl+C.
        state.should_terminate = exitcode
    if verbose:
        say(f"worker: {how} shutdown (MainProcess)")
    signals.worker_shutting_down.send(sender=worker.hostname, sig=sig, how=how, exitcode=exitcode)


def _warm(worker: Worker) -> Handler:
    def handle(signum: int, frame: FrameType | None) -> None:
        with in_sighandler():
            _shutdown(worker, "SIGTERM", "Warm", EX_OK)
            worker.stop(in_sighandler=True)

    return handle


def _interrupt(worker: Worker) -> Handler:
    def handle(signum: int, frame: FrameType | None) -> None:
        with in_sighandler():
            say(
                "worker: Hitting Ctrl+C again will initiate cold shutdown, "
                "terminating all running tasks!"
            )
            platforms.signals["SIGINT"] = _cold(worker, "SIGINT")
            _shutdown(worker, "SIGINT", "Warm", EX_FAILURE)
            worker.stop(in_sighandler=True)

    return handle


def _cold(worker: Worker, sig: str) -> Handler:
    def handle(signum: int, frame: FrameType | None) -> None:
        with in_sighandler():
            say("worker: Hitting Ctrl+C again will terminate all running tasks!")
            for name in ("SIGINT", "SIGQUIT"):
                platforms.signals[name] = _at_once(worker, name)
            _shutdown(worker, sig, "Cold", EX_FAILURE)
            worker.terminate(in_sighandler=True, timeout_s=_soft_shutdown_s(worker))

    return handle


def _at_once(worker: Worker, sig: str) -> Handler:
    def handle(signum: int, frame: FrameType | None) -> None:
        with in_sighandler():
            say("Waiting gracefully for cold shutdown to complete...")
            for name in ("SIGINT", "SIGQUIT"):
                platforms.signals[name] = _give_up
            worker.terminate(in_sighandler=True, timeout_s=0)

    return handle


def _give_up(signum: int, frame: FrameType | None) -> None:
    os._exit(EX_FAILURE)


def _soft_shutdown_s(worker: Worker) -> float:
    window = float(worker.app.conf.worker_soft_shutdown_timeout or 0)
    node = worker.node
    busy = node is not None and not node.pool.idle
    if window <= 0 or not (busy or worker.app.conf.worker_enable_soft_shutdown_on_idle):
        return 0.0
    logger.warning("Initiating Soft Shutdown, terminating in %s seconds", window)
    return window


def _restart(worker: Worker) -> Handler:
    def handle(signum: int, frame: FrameType | None) -> None:
        with in_sighandler():
            say(f"Restarting celery worker ({' '.join(sys.argv)})")
            atexit.register(_exec_again)
            state.should_stop = worker.exitcode = EX_OK
            worker.stop(in_sighandler=True)

    return handle


def _exec_again() -> None:
    platforms.close_open_fds([sys.__stdin__, sys.__stdout__, sys.__stderr__])
    os.execv(sys.executable, [sys.executable, *sys.argv])


def dump_stacks(signum: int = 0, frame: FrameType | None = None) -> None:
    """Write the stack of every thread to stderr."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, top in sys._current_frames().items():
        stack = "".join(traceback.format_stack(top))
        parts.append(f"{names.get(ident, ident)}\n{'=' * 49}\n{stack}{'=' * 49}\n")
    say("\n".join(parts), sys.__stderr__)
