"""Logging is one for the whole process, and a worker sets it up: put back what a test found."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from pgcelery.compat.app.log import Logging

_FIELDS = ("level", "propagate", "disabled")


@contextmanager
def restored_logging() -> Iterator[None]:
    """Undo at the end of the block what happened in it to loggers, stdout and stderr."""
    before = {logger: _state(logger) for logger in _loggers()}
    streams = sys.stdout, sys.stderr
    with mock.patch.object(Logging, "_setup", Logging._setup):
        yield
    sys.stdout, sys.stderr = streams
    logging.captureWarnings(False)
    fresh = _state(logging.Logger("fresh"))
    for logger in _loggers():
        handlers, fields = before.get(logger, fresh)
        for handler in set(logger.handlers) - set(handlers):
            logger.removeHandler(handler)
            handler.close()
        logger.handlers = list(handlers)
        for name, value in fields.items():
            setattr(logger, name, value)
    logging.Logger.manager._clear_cache()  # type: ignore[attr-defined]


def _loggers() -> list[logging.Logger]:
    named = logging.Logger.manager.loggerDict.values()
    return [logging.root, *(one for one in named if isinstance(one, logging.Logger))]


def _state(logger: logging.Logger) -> tuple[list[logging.Handler], dict[str, object]]:
    return logger.handlers[:], {name: getattr(logger, name) for name in _FIELDS}
