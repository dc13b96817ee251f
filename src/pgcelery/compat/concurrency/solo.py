"""Tasks in the worker itself, one at a time."""

from __future__ import annotations

import os
from typing import Any

from pgcelery.compat.concurrency.base import BasePool, PoolOptions
from pgcelery.engine.pool import SoloPool

__all__ = ("TaskPool",)


class TaskPool(BasePool):
    """The thread of the worker."""

    can_grow = False

    @classmethod
    def build(cls, options: PoolOptions) -> SoloPool:
        """Make the pool."""
        return SoloPool(prefetch=options.prefetch)

    @classmethod
    def info(cls, pool: SoloPool, worker: Any) -> dict[str, Any]:
        """Describe a worker's pool, for ``inspect stats``."""
        return {
            **super().info(pool, worker),
            "processes": [os.getpid()],
            "max-tasks-per-child": None,
            "put-guarded-by-semaphore": True,
            "timeouts": [],
        }
