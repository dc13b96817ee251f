"""Celery's `rate_limit`: how many tasks of a type one worker starts in a time.

Source: Celery 5.7, ``celery.worker.consumer.consumer`` (buckets for one token).
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from pgcelery.compat.exceptions import ImproperlyConfigured
from pgcelery.compat.utils.time import rate

__all__ = ("of_tasks", "per_second")


def per_second(limit: Any) -> float | None:
    """Read a rate limit; None for no limit.

    Raises:
        ValueError: It is no rate, negative, NaN or infinite.
    """
    try:
        value = float(rate(limit))
    except (KeyError, TypeError, ValueError, OverflowError):
        value = -1.0
    if value < 0 or not isfinite(value):
        raise ValueError(
            f"a rate limit is a number of tasks a second, or text such as '10/s', '100/m' or"
            f" '5/h'; not {limit!r:.100}"
        )
    return value or None


def of_tasks(app: Any) -> dict[str, float]:
    """Give the tasks that each worker limits, by name, with starts a second.

    Those whose limit is for all workers together are not among them: see `RateLimit`.

    Raises:
        ImproperlyConfigured: The rate limit of a task is none.
    """
    found = {}
    default = app.conf.task_rate_limit_scope or "worker"
    for name, task in app.tasks.items():
        if (getattr(task, "rate_limit_scope", None) or default) != "worker":
            continue
        try:
            limit = per_second(task.rate_limit)
        except ValueError as exc:
            raise ImproperlyConfigured(f"rate_limit of task {name}: {exc}") from exc
        if limit is not None:
            found[name] = limit
    return found
