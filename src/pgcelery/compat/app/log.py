"""``app.log``: loggers of a worker, their formats, colours, and what becomes of ``print``.

Source: Celery 5.7, ``celery.app.log``: when the root logger is taken over, which signals are sent,
the formats ``worker_log_format`` and ``worker_task_log_format``.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from logging.handlers import WatchedFileHandler
from typing import Any, ClassVar

from pgcelery.compat import signals
from pgcelery.compat._state import get_current_task
from pgcelery.compat.exceptions import CDeprecationWarning, CPendingDeprecationWarning
from pgcelery.compat.platforms import isatty
from pgcelery.compat.utils.log import ColorFormatter, LoggingProxy, get_logger, mlevel
from pgcelery.compat.utils.nodenames import node_format
from pgcelery.compat.utils.term import colored

__all__ = ("Logging", "TaskFormatter")


class TaskFormatter(ColorFormatter):
    """Formats with ``task_id`` and ``task_name`` of the task that runs, ``???`` outside of one."""

    def format(self, record: logging.LogRecord) -> str:
        """Add the two fields and format."""
        task = get_current_task()
        if task and task.request:
            record.__dict__.update(task_id=task.request.id, task_name=task.name)
        else:
            record.__dict__.setdefault("task_name", "???")
            record.__dict__.setdefault("task_id", "???")
        return super().format(record)


class _SetupFlag:
    """``already_setup``: the flag of the class, read and set through an instance."""

    def __get__(self, obj: Any, cls: type[Logging]) -> bool:
        return cls._setup

    def __set__(self, obj: Logging, value: bool) -> None:
        type(obj)._setup = value


class Logging:
    """Sets logging up for one app; the subsystem is set up once a process.

    Attributes:
        loglevel: Level when none is given.
        format: Of everything but task loggers.
        task_format: Of loggers below ``celery.task``.
        colorize: True, False, or None for "if it is a terminal".
    """

    _setup: ClassVar[bool] = False
    already_setup = _SetupFlag()

    def __init__(self, app: Any) -> None:
        self.app = app
        self.loglevel = mlevel(logging.WARNING)
        self.format: str = app.conf.worker_log_format
        self.datefmt: str | None = app.conf.get("worker_log_datefmt")
        self.task_format: str = app.conf.worker_task_log_format
        self.task_datefmt: str | None = app.conf.get("worker_task_log_datefmt")
        self.colorize: bool | None = app.conf.worker_log_color

    def setup(
        self,
        loglevel: int | str | None = None,
        logfile: Any = None,
        redirect_stdouts: bool = False,
        redirect_level: int | str = "WARNING",
        colorize: bool | None = None,
        hostname: str | None = None,
    ) -> Any:
        """Set everything up for a program; the receivers of ``setup_logging``, if any took over."""
        level = mlevel(loglevel)
        handled = self.setup_logging_subsystem(level, logfile, colorize=colorize, hostname=hostname)
        if not handled and redirect_stdouts:
            self.redirect_stdouts(redirect_level)
        os.environ.update(
            CELERY_LOG_LEVEL=str(level) if level else "",
            CELERY_LOG_FILE=str(logfile) if logfile else "",
        )
        warnings.filterwarnings("always", category=CDeprecationWarning)
        warnings.filterwarnings("always", category=CPendingDeprecationWarning)
        logging.captureWarnings(True)
        return handled

    def redirect_stdouts(
        self, loglevel: int | str | None = None, name: str = "celery.redirected"
    ) -> None:
        """Send what is printed to a logger."""
        self.redirect_stdouts_to_logger(get_logger(name), loglevel=loglevel)
        os.environ.update(CELERY_LOG_REDIRECT="1", CELERY_LOG_REDIRECT_LEVEL=str(loglevel or ""))

    def redirect_stdouts_to_logger(
        self,
        logger: logging.Logger,
        loglevel: int | str | None = None,
        stdout: bool = True,
        stderr: bool = True,
    ) -> LoggingProxy:
        """Put a logger in the place of ``sys.stdout`` and ``sys.stderr``; the stand-in."""
        proxy = LoggingProxy(logger, loglevel)
        if stdout:
            sys.stdout = proxy
        if stderr:
            sys.stderr = proxy
        return proxy

    def setup_logging_subsystem(
        self,
        loglevel: int | str | None = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        hostname: str | None = None,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Set the root and the task loggers up, unless a ``setup_logging`` receiver does it.

        Returns:
            The receivers and their answers; empty when none is connected, None when the
            process was set up before.

        Raises:
            Exception: What a receiver raised; logging then counts as not set up.
        """
        if self.already_setup:
            return None
        if logfile and hostname:
            logfile = node_format(logfile, hostname)
        Logging._setup = True
        level = mlevel(loglevel or self.loglevel)
        format = format or self.format
        colorize = self.supports_color(colorize, logfile)
        options = {
            "loglevel": level,
            "logfile": logfile,
            "format": format,
            "colorize": colorize,
        }
        receivers = signals.setup_logging.send(sender=None, **options)
        for _, answer in receivers:
            if isinstance(answer, Exception):
                Logging._setup = False
                raise answer
        if not receivers:
            self._setup_root(options, self.datefmt if datefmt is None else datefmt)
            self.setup_task_loggers(level, logfile, colorize=colorize)
        return receivers

    def _setup_root(self, options: dict[str, Any], datefmt: str | None) -> None:
        root = logging.getLogger()
        if self.app.conf.worker_hijack_root_logger:
            root.handlers = []
            for name in ("celery", "celery.task", "celery.redirected"):
                get_logger(name).handlers = []
        self.setup_handlers(
            root, options["logfile"], options["format"], options["colorize"], datefmt=datefmt
        )
        if options["loglevel"]:
            root.setLevel(options["loglevel"])
        signals.after_setup_logger.send(sender=None, logger=root, **options)

    def setup_task_loggers(
        self,
        loglevel: int | str | None = None,
        logfile: Any = None,
        format: str | None = None,
        colorize: bool | None = None,
        propagate: bool = False,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> logging.Logger:
        """Set ``celery.task`` up, whose format knows the task; that logger."""
        level = mlevel(loglevel or self.loglevel)
        format = format or self.task_format
        colorize = self.supports_color(colorize, logfile)
        logger = self.setup_handlers(
            get_logger("celery.task"),
            logfile,
            format,
            colorize,
            formatter=TaskFormatter,
            datefmt=self.task_datefmt if datefmt is None else datefmt,
        )
        logger.setLevel(level)
        logger.propagate = bool(propagate)
        signals.after_setup_task_logger.send(
            sender=None,
            logger=logger,
            loglevel=level,
            logfile=logfile,
            format=format,
            colorize=colorize,
        )
        return logger

    def supports_color(self, colorize: bool | None = None, logfile: Any = None) -> bool:
        """Whether to colour: asked for or left open, no log file, and stderr is a terminal."""
        colorize = self.colorize if colorize is None else colorize
        if colorize or colorize is None:
            return logfile is None and isatty(sys.stderr)
        return False

    def colored(self, logfile: Any = None, enabled: bool | None = None) -> colored:
        """Painter of strings that follows `supports_color`."""
        return colored(enabled=self.supports_color(enabled, logfile))

    def setup_handlers(
        self,
        logger: logging.Logger,
        logfile: Any,
        format: str,
        colorize: bool,
        formatter: type[ColorFormatter] = ColorFormatter,
        datefmt: str | None = None,
        **kwargs: Any,
    ) -> logging.Logger:
        """Give a logger its handler, unless the application gave it one; the logger."""
        if any(not isinstance(handler, logging.NullHandler) for handler in logger.handlers):
            return logger
        handler = self._detect_handler(logfile)
        handler.setFormatter(formatter(format, datefmt=datefmt, use_color=colorize))
        logger.addHandler(handler)
        return logger

    def _detect_handler(self, logfile: Any = None) -> logging.Handler:
        target: Any = sys.__stderr__ if logfile is None else logfile
        if hasattr(target, "write"):
            return logging.StreamHandler(target)
        return WatchedFileHandler(target, encoding="utf-8")

    def get_default_logger(self, name: str = "celery", **kwargs: Any) -> logging.Logger:
        """Logger of this name."""
        return get_logger(name)
