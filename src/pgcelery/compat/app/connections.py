"""Other libraries' connections: the psycopg connection inside them, to share its transaction."""

from __future__ import annotations

import importlib
from typing import Any

import psycopg

__all__ = ("driver_connection",)


def driver_connection(given: Any) -> psycopg.Connection[Any] | None:
    """Find the psycopg connection in what an application has at hand.

    Args:
        given: A psycopg connection, a SQLAlchemy session or connection, a Django database wrapper
            or alias; None gives None.

    Raises:
        TypeError: Anything else, or a connection of another driver.
    """
    if given is None or isinstance(given, psycopg.Connection):
        return given
    if isinstance(given, str):
        given = importlib.import_module("django.db").connections[given]
    if hasattr(given, "ensure_connection"):  # Django's wrapper
        given.ensure_connection()
        found = given.connection
    else:
        # A session's `connection()` gives its connection, whose `connection` is the pool's.
        inner = given.connection() if callable(getattr(given, "connection", None)) else given
        pooled = getattr(inner, "connection", None)
        found = getattr(pooled, "driver_connection", None)
    if not isinstance(found, psycopg.Connection):
        raise TypeError(
            "conn must be a psycopg connection, or a SQLAlchemy or Django connection that uses "
            f"psycopg 3, not {type(given).__name__}"
        )
    return found
