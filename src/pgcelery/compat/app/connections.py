"""Other libraries' connections: the driver's connection inside them, to share its transaction."""

from __future__ import annotations

import importlib
from typing import Any

from pgcelery.engine import is_driver_connection

__all__ = ("driver_connection",)


def driver_connection(given: Any) -> Any:
    """Find the connection of psycopg or psycopg2 in what an application has at hand.

    Args:
        given: Such a connection or a cursor of one, a SQLAlchemy session or connection, a Django
            database wrapper or alias; None gives None.

    Raises:
        TypeError: Anything else, or a connection of another driver.
    """
    if given is None or is_driver_connection(given):
        return given
    if isinstance(given, str):
        given = importlib.import_module("django.db").connections[given]
    if hasattr(given, "ensure_connection"):  # Django's wrapper
        given.ensure_connection()
        found = given.connection
    elif type(given).__name__.startswith("Async"):  # psycopg's, SQLAlchemy's
        raise TypeError(
            f"conn must not be asynchronous, as {type(given).__name__} is: nothing here awaits"
        )
    else:
        # A session's `connection()` gives its connection, whose `connection` is the pool's; a
        # cursor's is the driver's.
        inner = given.connection() if callable(getattr(given, "connection", None)) else given
        if hasattr(inner, "in_transaction") and not inner.in_transaction():
            inner.begin()  # as a statement of its own would: else its commit() commits nothing
        found = getattr(inner, "connection", None)
        found = getattr(found, "driver_connection", found)
    if not is_driver_connection(found):
        of = "" if found is None else f" of {type(found).__module__}.{type(found).__name__}"
        raise TypeError(
            "conn must be a psycopg connection (psycopg 3, or psycopg2), or a SQLAlchemy session "
            "or connection or a Django connection that uses one of them, "
            f"not {type(given).__name__}{of}"
        )
    return found
