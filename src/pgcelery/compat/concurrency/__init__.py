"""The kinds of pool, by the names of ``--pool`` and ``worker_pool``.

Source: Celery 5.7, ``celery.concurrency``.
"""

from __future__ import annotations

from typing import Any

from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.utils.imports import symbol_by_name

__all__ = ("get_available_pool_names", "get_implementation")

ALIASES = {
    "prefork": "pgcelery.compat.concurrency.prefork:TaskPool",
    "solo": "pgcelery.compat.concurrency.solo:TaskPool",
    "processes": "pgcelery.compat.concurrency.prefork:TaskPool",
    "threads": "pgcelery.compat.concurrency.thread:TaskPool",
}
#: Celery's names of pools that are not here
UNAVAILABLE = ("eventlet", "gevent", "custom")


def get_implementation(cls: Any) -> Any:
    """Class of a pool, from its name or itself.

    Raises:
        ImproperlyConfigured: Celery's name of a pool that is not here, or no pool at all.
    """
    if not isinstance(cls, str):
        return cls
    if cls in UNAVAILABLE:
        raise ImproperlyConfigured(
            f"pgcelery has no {cls} pool; use --pool threads (or prefork, or solo)."
        )
    if cls not in ALIASES and ":" not in cls and "." not in cls:
        names = ", ".join(ALIASES)
        raise ImproperlyConfigured(f"There is no pool called {cls!r}; there are {names}.")
    return symbol_by_name(cls, ALIASES)


def get_available_pool_names() -> tuple[str, ...]:
    """Names that can be given to ``--pool``."""
    return tuple(ALIASES)
