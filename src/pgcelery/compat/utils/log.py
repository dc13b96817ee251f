"""Loggers.

Source: Celery 5.7, ``celery.utils.log``. Every logger here descends from ``celery``, every task's
from ``celery.task``.
"""

from __future__ import annotations

import logging
import multiprocessing.util
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, cast

from kombu.log import LOG_LEVELS
from kombu.log import get_logger as _kombu_get_logger
from kombu.utils.encoding import safe_str

from pgcelery.compat.utils.term import colored

__all__ = (
    "LOG_LEVELS",
    "ColorFormatter",
    "LoggingProxy",
    "base_logger",
    "get_logger",
    "get_multiprocessing_logger",
    "get_task_logger",
    "in_sighandler",
    "mlevel",
    "reset_multiprocessing_logger",
    "set_in_sighandler",
)

RESERVED_LOGGER_NAMES = {"celery", "celery.task"}

base_logger = logger = cast(logging.Logger, _kombu_get_logger("celery"))

_in_sighandler = False


def set_in_sighandler(value: bool) -> None:
    """Note that a signal handler runs, in which nothing may be logged."""
    global _in_sighandler
    _in_sighandler = value


@contextmanager
def in_sighandler() -> Iterator[None]:
    """Note for a while that a signal handler runs."""
    set_in_sighandler(True)
    try:
        yield
    finally:
        set_in_sighandler(False)


def iter_open_logger_fds() -> Iterator[Any]:
    """Give the streams that log handlers write to."""
    loggers = [*logging.Logger.manager.loggerDict.values(), logging.getLogger()]
    seen = set()
    for each in loggers:
        for handler in getattr(each, "handlers", ()):
            stream = getattr(handler, "stream", None)
            if stream is not None and handler not in seen:
                seen.add(handler)
                yield stream


def logger_isa(child: logging.Logger, parent: logging.Logger, max: int = 1000) -> bool:
    """Whether a logger is, or descends from, another.

    Raises:
        RuntimeError: The parents go in a circle, or are more than `max`.
    """
    each: logging.Logger | None = child
    seen: set[logging.Logger] = set()
    for _ in range(max):
        if each is None or each is parent:
            return each is parent
        if each in seen:
            raise RuntimeError(f"Logger {child.name!r} parents recursive")
        seen.add(each)
        each = each.parent
    raise RuntimeError(f"Logger hierarchy exceeds {max}")


def _under(parent: logging.Logger, child: logging.Logger) -> logging.Logger:
    if not logger_isa(child, parent):
        child.parent = parent
    return child


def get_logger(name: str | logging.Logger) -> logging.Logger:
    """Give a logger; one that would hang under the root goes under ``celery``."""
    found = cast(logging.Logger, _kombu_get_logger(name))
    if logging.root not in (found, found.parent) and found is not base_logger:
        return _under(base_logger, found)
    return found


task_logger = get_logger("celery.task")
worker_logger = get_logger("celery.worker")


def get_task_logger(name: str) -> logging.Logger:
    """Give the logger of a module of tasks, under ``celery.task``.

    Raises:
        RuntimeError: The name is Celery's own.
    """
    if name in RESERVED_LOGGER_NAMES:
        raise RuntimeError(f"Logger name {name!r} is reserved!")
    return _under(task_logger, get_logger(name))


def mlevel(level: int | str | None) -> Any:
    """Give the number of a log level."""
    return LOG_LEVELS[level.upper()] if level and isinstance(level, str) else level


class ColorFormatter(logging.Formatter):
    """Colours a record by its level."""

    COLORS = colored().names
    colors: ClassVar[dict[str, Any]] = {
        "DEBUG": COLORS["blue"],
        "WARNING": COLORS["yellow"],
        "ERROR": COLORS["red"],
        "CRITICAL": COLORS["magenta"],
    }

    def __init__(
        self, fmt: str | None = None, use_color: bool = True, datefmt: str | None = None
    ) -> None:
        super().__init__(fmt, datefmt)
        self.use_color = use_color

    def formatException(self, ei: Any) -> str:
        """Format an exception; anything true but a tuple means the current one."""
        return super().formatException(sys.exc_info() if ei and not isinstance(ei, tuple) else ei)

    def format(self, record: logging.LogRecord) -> str:
        """Format a record; one that cannot be shown says so."""
        text = safe_str(super().format(record))
        color = self.colors.get(record.levelname)
        return str(color(text) if color and self.use_color else text)


class LoggingProxy:
    """A file whose lines go to a logger.

    Args:
        logger: Where to.
        loglevel: A name or number; by default the logger's own, else ERROR.
    """

    mode = "w"
    name: str | None = None
    closed = False
    loglevel: int = logging.ERROR
    _thread = threading.local()

    def __init__(self, logger: logging.Logger, loglevel: int | str | None = None) -> None:
        self.logger = logger
        self.loglevel = mlevel(loglevel or logger.level or self.loglevel)
        for handler in logger.handlers:
            self._write_errors_past_us(handler)

    @staticmethod
    def _write_errors_past_us(handler: logging.Handler) -> None:
        # sys.stderr may be this very object: a handler's own failure must not come back here.
        def handle_error(record: logging.LogRecord) -> None:
            with suppress(OSError):
                traceback.print_exc(None, sys.__stderr__)

        handler.handleError = handle_error  # type: ignore[method-assign]

    def write(self, data: Any) -> int:
        """Log the text; nothing is logged from within a signal handler or a log handler."""
        text = safe_str(data)
        if _in_sighandler:
            if sys.__stderr__ is not None:
                sys.__stderr__.write(text)
            return len(text)
        if not data or self.closed or getattr(self._thread, "busy", False):
            return 0
        text = text.rstrip("\n")
        self._thread.busy = True
        try:
            if text:
                self.logger.log(self.loglevel, text)
        finally:
            self._thread.busy = False
        return len(text)

    def writelines(self, sequence: Iterable[Any]) -> None:
        """Write each part."""
        for part in sequence:
            self.write(part)

    def flush(self) -> None:
        """Do nothing; nothing is held back."""

    def close(self) -> None:
        """Forward nothing from now on."""
        self.closed = True

    def isatty(self) -> bool:
        """Say that this is no terminal."""
        return False


def get_multiprocessing_logger() -> logging.Logger:
    """Give the logger of the processes of a pool."""
    return multiprocessing.util.get_logger()


def reset_multiprocessing_logger() -> None:
    """Take the handlers from the logger of the processes of a pool."""
    multiprocessing.util.get_logger().handlers.clear()


#: Place of this process in its pool, from 0; None outside of one. The pool's children set it.
process_index: int | None = None


def set_process_index(index: int | None) -> None:
    """Note the place of this process in its pool, from 0."""
    global process_index
    process_index = index


def current_process_index(base: int = 1) -> int | None:
    """Give the place of this process in its pool, counted from `base`; None outside of one."""
    return None if process_index is None else process_index + base
