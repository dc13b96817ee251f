"""Errors of the layers below, as one sentence and an exit code."""

from __future__ import annotations

import click
from kombu.exceptions import OperationalError

from pgcelery.compat.dsn import mask
from pgcelery.compat.exceptions import (
    CeleryCommandException,
    ImproperlyConfigured,
    SecurityError,
)
from pgcelery.compat.platforms import EX_FAILURE, EX_UNAVAILABLE
from pgcelery.engine import DatabaseUnavailable, EngineError

__all__ = ("as_click_error",)


def as_click_error(exc: BaseException) -> click.ClickException | None:
    """What the user is told of an error; None for one that is not expected.

    Passwords in URLs are masked. Exit code 69: the database cannot be reached; 1: anything else.
    """
    text = mask(" ".join(str(exc).split()))
    if isinstance(exc, DatabaseUnavailable | OperationalError):
        return CeleryCommandException(
            message=f"Cannot reach the database: {text}", exit_code=EX_UNAVAILABLE
        )
    if isinstance(exc, EngineError | ImproperlyConfigured | SecurityError):
        return CeleryCommandException(message=text, exit_code=EX_FAILURE)
    return None
