"""The numbers of ``inspect stats``.

Source: Celery 5.7, ``celery.worker.worker`` and the ``info`` of its parts (keys).
"""

from __future__ import annotations

import os
import resource
from typing import Any

__all__ = ("of", "rusage")


def rusage() -> dict[str, float]:
    """What this process has used, by the names of getrusage(2) without ``ru_``."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {name[3:]: getattr(usage, name) for name in dir(usage) if name.startswith("ru_")}


def of(worker: Any) -> dict[str, Any]:
    """What a `WorkController` has and is connected to."""
    return {
        "pool": _pool(worker),
        "broker": _broker(worker.app),
        "prefetch_count": worker.prefetch_count,
        "rusage": rusage(),
    }


def _pool(worker: Any) -> dict[str, Any]:
    module = worker.pool_cls.__module__.split(".")[-1]
    return {
        "implementation": f"celery.concurrency.{module}:TaskPool",
        "max-concurrency": worker.pool.size,
        "processes": list(getattr(worker.pool, "pids", None) or [os.getpid()]),
        "max-tasks-per-child": worker.max_tasks_per_child or "N/A",
        "put-guarded-by-semaphore": False,
        "timeouts": [worker.soft_time_limit or 0, worker.time_limit or 0],
        "writes": {},
    }


def _broker(app: Any) -> dict[str, Any]:
    info: dict[str, Any] = app.connection().info()
    return {name: value for name, value in info.items() if name != "password"}
