"""Retrying by itself when the body raises certain exceptions.

Source: Celery 5.7, `celery.app.autoretry`.
"""

from __future__ import annotations

import functools
from typing import Any

from pgcelery.compat.exceptions import Ignore, Retry
from pgcelery.compat.utils.time import get_exponential_backoff_interval

__all__ = ("add_autoretry_behaviour",)

_DEFAULTS: dict[str, Any] = {
    "autoretry_for": (),
    "dont_autoretry_for": (),
    "retry_kwargs": {},
    "retry_backoff": False,
    "retry_backoff_max": 600,
    "retry_jitter": True,
}


def add_autoretry_behaviour(task: Any, **options: Any) -> None:
    """Make a task retry for ``autoretry_for``; options win over attributes."""
    given = {
        name: options.get(name, getattr(task, name, default)) for name, default in _DEFAULTS.items()
    }
    retry_for = tuple(given["autoretry_for"])
    if not retry_for or hasattr(task, "_orig_run"):
        return
    never_for = (Ignore, Retry, *given["dont_autoretry_for"])
    # A factor below 1 counts as 1: the delay is in whole seconds.
    backoff = float(given["retry_backoff"])
    factor = int(max(1.0, backoff)) if backoff else 0
    longest = int(given["retry_backoff_max"])

    @functools.wraps(task.run)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return task._orig_run(*args, **kwargs)
        except never_for:
            raise
        except retry_for as exc:
            how = dict(given["retry_kwargs"])
            if factor:
                how["countdown"] = get_exponential_backoff_interval(
                    factor=factor,
                    retries=task.request.retries,
                    maximum=longest,
                    full_jitter=given["retry_jitter"],
                )
            # A `retry(max_retries=...)` in the body that did not happen still counts.
            if hasattr(task, "override_max_retries"):
                how["max_retries"] = task.override_max_retries
            retry = task.retry(exc=exc, **how)
            if hasattr(task, "override_max_retries"):
                del task.override_max_retries
            raise retry from exc

    task._orig_run, task.run = task.run, run
